"""The journal of a study: Optuna's file of one JSON object a line, in which no line stays torn."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.errors import WriteError, write_failure
from heretic_tui.private import make_file

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK = ".lock"
CUT = ".cut"
"""What the file is called that torn lines are moved to."""


def journal_storage(journal: Path) -> "BaseStorage":
    """Optuna's storage in that file, for any number of processes; a full disk or a killed writer leaves whole lines."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    lock = JournalFileOpenLock(str(journal))

    class WholeLines(JournalFileBackend):
        """Optuna's own would glue a new line to one that was cut."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
            lock.acquire()
            try:
                append(journal, lines.encode("utf-8"))
            finally:
                # Lost where this process slept so long that another took the lock for stale; the lines are written.
                with suppress(RuntimeError):
                    lock.release()

    make_file(journal)
    return JournalStorage(WholeLines(str(journal), lock_obj=lock))


def append(journal: Path, lines: bytes) -> None:
    """Add whole lines, or none of them; call it only while holding the journal's lock."""
    size = _set_aside(journal, _end_of_last_line(journal))
    try:
        with journal.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(journal, size)
        raise WriteError(error.errno, error.strerror, str(journal)).of(len(lines)) from error


def repair_journal(journal: Path) -> list[str]:
    """Make a journal that a crash left behind writable again; call it only while nobody else works on the run.

    Gives what was mended, in words: a torn line goes to a file beside the journal, the lock of a dead process goes.
    """
    words = []
    try:
        lock = journal.with_name(journal.name + LOCK)
        if lock.exists():
            lock.unlink(missing_ok=True)
            words.append("The journal was locked by a process that is no more; that lock was removed.")
        if not journal.is_file():
            return words
        content = journal.read_bytes()
        if _set_aside(journal, _whole_lines(content)) < len(content):
            words.append("The journal ended in the middle of a line; that unfinished entry was set aside.")
    except OSError as error:
        raise write_failure(journal, error) from error
    return words


def _end_of_last_line(journal: Path) -> int:
    """Length of a journal without a line that has no end."""
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() in {b"", b"\n"}:
            return size
        file.seek(0)
        return file.read().rfind(b"\n") + 1


def _set_aside(journal: Path, length: int) -> int:
    """Move what lies behind the first `length` bytes to the end of a file beside the journal; gives that length."""
    if length < journal.stat().st_size:
        with journal.open("rb") as file:
            file.seek(length)
            torn = file.read()
        cut = journal.with_name(journal.name + CUT)
        make_file(cut)
        with cut.open("ab") as file:
            file.write(torn)
        os.truncate(journal, length)
    return length


def _whole_lines(content: bytes) -> int:
    """Length of a journal without a last line that was cut, or whose end never reached the disk."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    try:
        json.loads(content[start:end] or b"{}")
    except ValueError:
        return start
    return end
