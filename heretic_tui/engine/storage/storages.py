"""Where a study is kept: the run's own journal, a database, or Optuna's gRPC proxy; each takes any number of workers.

A file on a shared folder tells by the claims in it which worker is gone. A database is told by heartbeats: Optuna
fails the trial of a worker that is silent for too long and queues it again.
"""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.storage.address import is_storage_error, opened_with, storage_error
from heretic_tui.engine.storage.journal import journal_storage

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

INDEX = "index"
"""The attribute of a trial that holds its number among those that count, from 1."""

HEARTBEAT = 15
"""Seconds between two heartbeats of a trial in a database."""
SILENCE = 60
"""Seconds without a heartbeat after which a trial in a database is given to another worker."""
OPENING_TRIES = 5
PULSE = "pulse"
"""The attribute of a trial that changes as long as somebody works on it."""
RETRIED = "retried"
"""The attribute of a trial that tells which one it does again."""
GRPC = "grpc"
GRPC_WAIT = 10.0
"""Seconds that a gRPC proxy is given to answer at first."""
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
"""The driver that this program is tested with, where a URL names none."""


def storage_at(location: str | None, journal: Path) -> "BaseStorage":
    """The storage of a study: its own `journal`, or with a `location` that URL's. Raises `EngineError`, `OSError`."""
    quiet_optuna()
    if location is None:
        return journal_storage(journal)
    scheme = location.partition("://")[0]
    address = opened_with(location)
    try:
        return _proxy(address) if scheme == GRPC else _database(address, scheme)
    except ImportError as error:
        raise EngineError(
            f"The storage {scheme}:// needs a package that is not there ({error}).",
            "Install what it needs with: pip install 'heretic-tui[workers]'",
        ) from error


def _proxy(location: str) -> "BaseStorage":
    from optuna.storages import GrpcStorageProxy

    place = urlsplit(location)
    proxy = GrpcStorageProxy(host=place.hostname or "localhost", port=place.port or 13000)
    try:
        proxy.wait_server_ready(GRPC_WAIT)
    except ConnectionError as error:
        raise EngineError(
            f"No gRPC proxy answers at {place.hostname}:{place.port or 13000}.", "Start it, and check host and port."
        ) from error
    return proxy


def _database(location: str, scheme: str) -> "BaseStorage":
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    url = location.replace(f"{scheme}://", f"{DRIVERS.get(scheme, scheme)}://", 1)
    # A connection that a restart of the server has cut is replaced without a word.
    options = {"pool_pre_ping": True} if scheme.startswith("postgres") else {}

    def opened(tries: int) -> RDBStorage:
        try:
            return RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT,
                grace_period=SILENCE,
                heartbeat_stale_trial_callback=_queue_again,
            )
        except (IntegrityError, ProgrammingError, StorageInternalError):
            if tries == 1:
                raise
            time.sleep(0.5)  # another worker makes the tables of an empty database at this very moment
            return opened(tries - 1)

    return opened(OPENING_TRIES)


def _queue_again(study: "optuna.Study", trial: "FrozenTrial") -> None:
    """Give a silent worker's trial to the next one: its number and what was sampled of it, and nothing else."""
    attributes = {INDEX: trial.user_attrs[INDEX], RETRIED: trial.number} if INDEX in trial.user_attrs else {}
    if attributes:
        study.enqueue_trial(trial.params, user_attrs=attributes)


def close_storage(storage: "BaseStorage") -> None:
    """Let the connections of a storage go."""
    from optuna.storages import GrpcStorageProxy, RDBStorage

    with suppress(Exception):  # what is closed badly is closed
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
        elif isinstance(storage, GrpcStorageProxy):
            storage.close()


@contextmanager
def storage_failures(
    journal: Path | None = None, location: str | None = None, *, reading: bool = False
) -> Iterator[None]:
    """Turn what a storage raises into errors that say what to do; `reading` it, nothing else than it can be wrong."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename) if error.filename else journal or Path("the run's journal")
        raise write_failure(path, error) from error
    except (KeyError, TypeError, ValueError) as error:
        told = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        told = told or any(words in str(error) for words in ("log format", "integer string"))
        if journal is None or (isinstance(error, ValueError) and not (told or reading)):
            raise
        raise _damaged_journal(journal, error) from error
    except EngineError:
        raise
    except Exception as error:
        if is_storage_error(error):
            raise storage_error(location or "of the study", error) from error
        if journal is None or location is not None:
            raise
        raise _damaged_journal(journal, error) from error  # what a journal may hold is anything, and fails anyhow


def _damaged_journal(journal: Path, error: Exception) -> EngineError:
    return EngineError(
        f"The journal {journal} is damaged ({error or type(error).__name__}).",
        "Restore it from a backup; its intact lines can be copied to a new file.",
    )


@contextmanager
def heartbeats(storage: "BaseStorage", study: str, trial: int) -> Iterator[None]:
    """Tell a storage, as long as the block lasts, that the trial of this Optuna number is being worked on.

    A database has heartbeats of its own, by which Optuna frees trials. They are nothing to a worker that comes by a
    proxy, and so there is a pulse too, an attribute of the trial that changes. A journal needs neither: the claims
    beside it tell who lives.
    """
    from optuna.storages import JournalStorage, RDBStorage

    if isinstance(storage, JournalStorage):
        yield
        return
    key = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study), trial)
    over = threading.Event()

    def beat(pulse: int) -> None:
        if isinstance(storage, RDBStorage):
            storage.record_heartbeat(key)
        storage.set_trial_user_attr(key, PULSE, pulse)

    def beats() -> None:
        for pulse in count(1):
            if over.wait(HEARTBEAT):
                return
            with suppress(Exception):  # the server is away: the trial tells so when it is over
                beat(pulse)

    beat(0)
    thread = threading.Thread(target=beats, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def quiet_optuna() -> None:
    """Optuna logs to the terminal on its own; a screen or a JSON stream must not be written over."""
    import optuna

    optuna.logging.disable_default_handler()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # It knows no other way to beat than its own loop; `heartbeats` is ours.
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
