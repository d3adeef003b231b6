"""Where a study is kept: the run's own journal, a database, or Optuna's gRPC proxy; each takes any number of workers.

A file on a shared folder tells by the claims in it which worker is gone. A database is told by heartbeats: Optuna
fails the trial of a worker that is silent for too long and queues it again.
"""

import json
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from heretic_tui.engine.errors import EngineError, write_failure

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

HEARTBEAT = 15
"""Seconds between two heartbeats of a trial in a database."""
SILENCE = 60
"""Seconds without a heartbeat after which a trial in a database is given to another worker."""
LOCK_GRACE = 10
"""Seconds after which the journal's lock of a process that was killed is broken."""
OPENING_TRIES = 5
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
    try:
        return _proxy(location) if scheme == GRPC else _database(location, scheme)
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
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

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
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        except (IntegrityError, ProgrammingError, StorageInternalError):
            if tries == 1:
                raise
            time.sleep(0.5)  # another worker makes the tables of an empty database at this very moment
            return opened(tries - 1)

    try:
        return opened(OPENING_TRIES)
    except (SQLAlchemyError, StorageInternalError) as error:
        # What the driver says may hold the password: only its first kind of trouble is told.
        raise EngineError(
            f"The storage {scheme}:// cannot be opened ({type(error.__cause__ or error).__name__}).",
            "Check that the server runs, and the URL's host, user and password.",
        ) from error


@contextmanager
def storage_failures(journal: Path | None = None) -> Iterator[None]:
    """Turn what a storage raises into errors that say what to do."""
    try:
        yield
    except EngineError:
        raise
    except OSError as error:
        path = Path(error.filename) if error.filename else journal or Path("the run's journal")
        raise write_failure(path, error) from error
    except (KeyError, TypeError, ValueError) as error:
        told = isinstance(error, json.JSONDecodeError | UnicodeDecodeError) or "log format" in str(error)
        if journal is None or (isinstance(error, ValueError) and not told):
            raise
        raise EngineError(
            f"The journal {journal} is damaged ({error}).",
            "Restore it from a backup; its intact lines can be copied to a new file.",
        ) from error
    except Exception as error:
        if (trouble := _trouble(error)) is None:
            raise
        raise trouble from error


def _trouble(error: Exception) -> EngineError | None:
    """What is wrong with a database or a proxy, as an error that says what to do; None for any other exception."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, StorageInternalError | SQLAlchemyError) and type(error).__module__.split(".")[0] != GRPC:
        return None
    return EngineError(
        "The storage of the study does not answer any more, or refuses.",
        "All trials that were told are in it. See that its server runs, and resume the run.",
    )


def journal_storage(journal: Path) -> "BaseStorage":
    """A study in one file that several processes and machines may write to."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Mending(JournalFileOpenLock):
        """Who takes the lock first sets aside a line that was cut: the next one would be glued to it."""

        def acquire(self) -> bool:
            taken = super().acquire()
            try:
                set_cut_line_aside(journal)
            except BaseException:
                self.release()
                raise
            return taken

    lock = Mending(str(journal), grace_period=LOCK_GRACE)

    class WholeLines(JournalFileBackend):
        """A line that a full disk has cut is taken back at once, and the error names the file."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:
                with suppress(OSError):
                    lock.acquire()
                    lock.release()
                raise OSError(error.errno, error.strerror, str(journal)) from error

    return JournalStorage(WholeLines(str(journal), lock_obj=lock))


def set_cut_line_aside(journal: Path) -> bool:
    """Move a last line that does not end to a file beside the journal; call it only while holding the journal's lock.

    Returns whether there was one. Raises `OSError`.
    """
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return False
        file.seek(0)
        content = file.read()
    whole = content.rfind(b"\n") + 1
    with suppress(OSError):  # on a full disk the piece is lost; nobody was told that it was written
        journal.with_name(f"{journal.name}.cut").write_bytes(content[whole:])
    os.truncate(journal, whole)
    return True


def whole_lines(content: bytes) -> int:
    """Length of a journal without a last line that was cut, or whose end never reached the disk."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    try:
        json.loads(content[start:end] or b"{}")
    except ValueError:
        return start
    return end


@contextmanager
def heartbeats(storage: "BaseStorage", study: str, trial: int) -> Iterator[None]:
    """Tell a database, as long as the block lasts, that the trial of this Optuna number is being worked on."""
    from optuna.exceptions import OptunaError
    from optuna.storages import RDBStorage

    if not isinstance(storage, RDBStorage):
        yield
        return
    database: RDBStorage = storage
    key = database.get_trial_id_from_study_id_trial_number(database.get_study_id_from_name(study), trial)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            with suppress(OptunaError):  # the server is away: the trial tells so when it is over
                database.record_heartbeat(key)

    database.record_heartbeat(key)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
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
