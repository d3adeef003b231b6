"""Errors that a user can act on: what happened and what to do about it."""

import errno
from pathlib import Path

from heretic_tui.masking import masked


class EngineError(Exception):
    """A failure with its cause and its remedy in plain words; shown without a traceback."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        cause, remedy = masked(cause), masked(remedy)
        super().__init__(f"{cause} {remedy}".strip())
        self.cause = cause
        self.remedy = remedy


_WRITE_FAILURES = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another place, and run the same command again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or choose another place, and try again."),
    errno.EROFS: ("the file system is read-only", "Choose a place that can be written to."),
    errno.EACCES: ("permission was denied", "Choose a place that you may write to."),
    errno.EPERM: ("permission was denied", "Choose a place that you may write to."),
    errno.EFBIG: ("the file would be larger than is allowed here", "Raise the limit, or choose another place."),
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


def write_failure(path: Path, error: OSError) -> EngineError:
    """Say why `path` could not be written and that what was there before is still there."""
    reason, remedy = _WRITE_FAILURES.get(
        error.errno or 0, (error.strerror or str(error), "Check the place and try again.")
    )
    return EngineError(f"Could not write {path}: {reason}. What was there before is unchanged.", remedy)
