"""The program's log, and a terminal that belongs to the screen alone."""

import io
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import cast

from heretic_tui import paths
from heretic_tui.masking import masked
from heretic_tui.private import make_folder, opener, tighten

LOG_BYTES, LOG_FILES = 2_000_000, 3


def log_file() -> Path:
    """Where the program's own log stands."""
    return paths.log_dir() / "app.log"


class LogFile(RotatingFileHandler):
    """The log on disk, for this person alone."""

    def _open(self) -> io.TextIOWrapper:
        return cast("io.TextIOWrapper", open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener))


class Masked(logging.Formatter):
    """Lines of the log, tracebacks included, with every secret in them hidden."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        return masked(super().format(record))


def log_to_file() -> None:
    """Send every library's log to the file and nowhere else; a folder that cannot be written costs the log only."""
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
    try:
        make_folder(log_file().parent)
        tighten(log_file().parent)
        handler: logging.Handler = LogFile(
            log_file(), maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
        )
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(Masked("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    threading.excepthook = _log_failure


def _log_failure(failure: threading.ExceptHookArgs) -> None:
    """A thread that died: in the log, and nowhere where a secret could be read."""
    if failure.exc_value is not None:
        logging.getLogger(__name__).error("A thread died", exc_info=failure.exc_value)


class Terminal(io.TextIOWrapper):
    """The terminal as a file; once it is gone what is written goes nowhere, so that nothing waits or fails for it."""

    def write(self, text: str) -> int:
        """Write text, if there is a terminal to show it."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Show what was written, if there is a terminal."""
        with suppress(OSError):
            super().flush()


@contextmanager
def own_terminal() -> Iterator[None]:
    """Keep the terminal for the screen: what anything else writes to standard output or error goes to the log.

    Libraries written in C write to the file descriptors themselves, which no redirection in Python can catch. The
    screen therefore gets a descriptor of its own, and the two usual ones lead to the log file.
    """
    saved = sys.__stdout__, sys.__stderr__
    kept = [os.dup(1), os.dup(2)]
    try:
        path = log_file()
        make_folder(path.parent)
        sink = opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError:
        sink = os.open(os.devnull, os.O_WRONLY)
    for stream in saved:
        if stream is not None:
            stream.flush()
    files = [Terminal(open(descriptor, "wb", closefd=False), encoding="utf-8") for descriptor in kept]  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = files  # type: ignore[misc] # Textual's driver writes to these two
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield
    finally:
        for file in files:
            file.flush()
        for descriptor, place in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, place)
            os.close(descriptor)
        sys.__stdout__, sys.__stderr__ = saved  # type: ignore[misc]


def has_terminal() -> bool:
    """Whether the program was started from a terminal, whatever its output was sent to."""
    return any(os.isatty(place) for place in (0, 1, 2))


def let_go_of_terminal() -> None:
    """The terminal is gone, and whatever its output went through: only what is written to a file still goes there."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        with suppress(OSError):  # it was closed before
            if not stat.S_ISREG(os.fstat(place).st_mode):
                os.dup2(nowhere, place)
    os.close(nowhere)


def run_on_terminal(command: Sequence[str]) -> int:
    """Run a program that takes the terminal over, such as an editor, while the app is suspended; its exit code."""
    return subprocess.run(command, stdout=sys.__stdout__, stderr=sys.__stderr__, check=False).returncode
