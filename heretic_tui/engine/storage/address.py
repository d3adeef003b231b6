"""Addresses of storages: without passwords wherever they are kept or shown, with one only when a storage is opened."""

import os
import re

from heretic_tui.engine.checkpoints.permissions import known
from heretic_tui.engine.errors import EngineError
from heretic_tui.masking import holds_password, masked
from heretic_tui.profile.secret import STORAGE_PASSWORD, WITHOUT_PASSWORD


def opened_with(address: str) -> str:
    """The address that a storage is opened with: with the password of the environment, where it names a user.

    Raises `EngineError` for an address that carries a password itself.
    """
    check_address(address)
    password = os.environ.get(STORAGE_PASSWORD)
    if not password or not re.match(r"[A-Za-z][\w+.-]*://[^\s/@]+@", address):
        return address
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(address).set(password=password).render_as_string(hide_password=False)
    except ArgumentError:  # an address of another kind
        return address


def check_address(address: str) -> None:
    """Raise `EngineError` for an address that carries a password: it would stand in every file that names it."""
    if holds_password(address):
        raise EngineError(f"The storage {masked(address)} is given with a password.", WITHOUT_PASSWORD)


def check_known(address: str, run: str) -> None:
    """Raise `EngineError` for the storage of a run that nobody has used from here: looking at it would reach out.

    A run that came from somebody else may name any place: one that learns of you, is sent your password, or is a file
    of yours.
    """
    if not known("storage", address):
        raise EngineError(
            f"The study of {run} is kept in {masked(address)}, which was never used from this machine.",
            f"If you know that place, go on with the run from there: heretic-tui run --resume {run}",
        )


def storage_error(address: str, error: Exception) -> EngineError:
    """Say why a storage cannot be used, in the first line of its driver's words."""
    reason = (_words(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    remedy = "Check that it runs, its address and your rights."
    if re.search(r"password|authenticat|access denied", reason, re.IGNORECASE):
        remedy = WITHOUT_PASSWORD
    return EngineError(f"The storage {masked(address)} cannot be used: {reason}.", remedy)


def _words(error: Exception) -> str:
    """What the driver says, from below what Optuna and others have wrapped it in."""
    for one in (error, error.__cause__):
        if (below := getattr(one, "orig", None)) is not None:
            return str(below)
        if callable(details := getattr(one, "details", None)):
            return str(details())
    return str(error)


def is_storage_error(error: Exception) -> bool:
    """Whether an exception comes from a database or its driver."""
    return type(error).__module__.partition(".")[0] in {"sqlalchemy", "psycopg", "psycopg2", "grpc", "redis"} or (
        type(error).__name__ == "StorageInternalError"
    )
