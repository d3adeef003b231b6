"""What must not stand in a profile: it is saved, shown, copied and handed on."""

from collections.abc import Iterator, Mapping
from typing import Any

from heretic_tui.masking import holds_password, holds_token

STORAGE_PASSWORD = "HERETIC_TUI_STORAGE_PASSWORD"
"""The environment variable that holds the password of a storage."""
WITHOUT_PASSWORD = (
    f"Leave the password out of the address and give it in the environment variable {STORAGE_PASSWORD}; for PostgreSQL "
    "PGPASSWORD and the file ~/.pgpass serve too."
)
WITHOUT_TOKEN = "holds a token of the hub: give it with `hf auth login` or in the environment variable HF_TOKEN"
ADDRESSES = frozenset({"storage", "model", "dataset"})


def secrets_in(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where a profile's values hold a secret, and what to do about it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets_in(inner, (*where, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from secrets_in(inner, (*where, index))
    elif isinstance(value, str):
        if holds_token(value):
            yield where, WITHOUT_TOKEN
        elif where[-1] in ADDRESSES and holds_password(value):
            yield where, f"a password does not belong here. {WITHOUT_PASSWORD}"
