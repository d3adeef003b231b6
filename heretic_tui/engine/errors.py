"""Errors that a user can act on: what happened and what to do about it."""

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from heretic_tui.formats import size
from heretic_tui.masking import masked


class EngineError(Exception):
    """A failure with its cause and its remedy in plain words; shown without a traceback."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        cause, remedy = masked(cause), masked(remedy)
        super().__init__(f"{cause} {remedy}".strip())
        self.cause = cause
        self.remedy = remedy


class NoRoom(EngineError):
    """A disk is full: what was to be written did not fit."""


class WriteError(OSError):
    """A write that failed; `needed` bytes were to be written."""

    needed = 0

    def of(self, needed: int) -> "WriteError":
        """This error, of a write of so many bytes."""
        self.needed = needed
        return self


GONE = frozenset(
    {errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)
"""What the system says of a folder that was removed, or of a share or a disk that went away."""
_WRITE_FAILURES = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another place, and run the same command again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or choose another place, and try again."),
    errno.EROFS: ("the file system is read-only", "Choose a place that can be written to."),
    errno.EACCES: ("permission was denied", "Choose a place that you may write to."),
    errno.EPERM: ("permission was denied", "Choose a place that you may write to."),
    errno.EFBIG: ("the file would be larger than is allowed here", "Raise the limit, or choose another place."),
    errno.ETIMEDOUT: ("the network share does not answer", "Bring it back, and run the same command again."),
    errno.EIO: ("the device reports an error", "Check the disk, or choose another place."),
    errno.EEXIST: ("a file of that name is in the way", "Choose another place."),
    errno.EBUSY: ("that folder is in use, or a disk is mounted on it", "Choose a folder inside it."),
    errno.EXDEV: ("that folder is the root of another disk", "Choose a folder inside it."),
    errno.ENOTDIR: ("part of that path is a file, not a folder", "Choose another place."),
}


def damaged(path: Path, error: Exception) -> EngineError:
    """Say that a file which can be made again cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return EngineError(f"{path} is damaged ({reason}).", "Delete that file: what it held is measured again.")


def write_failure(path: Path, error: OSError, needed: int = 0) -> EngineError:
    """Say why `path` could not be written and that what was there before is still there.

    `needed` is how many bytes were to be written, where that is known.
    """
    if error.errno in GONE:
        return EngineError(
            f"Could not write {path}: its folder is not there any more.",
            "If it was moved, move it back; if it is on a share or a disk that went away, bring that back. Then go on "
            "as before: all that stands in it is kept.",
        )
    reason, remedy = _WRITE_FAILURES.get(
        error.errno or 0, (error.strerror or str(error), "Check the place and try again.")
    )
    needed = needed or (error.needed if isinstance(error, WriteError) else 0)
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    room = _room(path, needed) if full and needed else ""
    kind = NoRoom if full else EngineError
    return kind(f"Could not write {path}: {reason}{room}. What was there before is unchanged.", remedy)


def _room(path: Path, needed: int) -> str:
    """How much room a write needs, and how much there is."""
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        if free < needed:  # where it is not, somebody has made room meanwhile, or the limit is one of the user alone
            return f" ({size(needed)} are needed, {size(free)} are free)"
    return f" ({size(needed)} are needed)"


def first_line(error: BaseException) -> str:
    """What an exception says first, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
