"""Reading and writing a profile's file: UTF-8, whole or not at all."""

import stat
from pathlib import Path

from heretic_tui import paths
from heretic_tui.atomic import write_whole
from heretic_tui.profile.problems import Problem, ProfileError

LARGEST = 4 << 20
"""Bytes of a profile."""


def read_text(path: Path) -> str:
    """The text of a file; a ProfileError says why it cannot be read."""
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise _refused(path, "is no plain file")
        if status.st_size > LARGEST:
            raise _refused(path, f"has {status.st_size} bytes, which no profile has")
        content = path.read_bytes()
    except OSError as error:
        raise _refused(path, f"cannot be read: {_why(path, error)}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem(line, "", f"is not UTF-8 text (byte {content[error.start]:#04x}): save it as UTF-8")
        raise ProfileError(path.name, [problem]) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, privately in the program's own folders; a ProfileError says why it cannot be."""
    private = any(folder in path.absolute().parents for folder in (paths.config_dir(), paths.state_dir()))
    try:
        write_whole(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")), private=private)
    except OSError as error:
        raise _refused(path, f"cannot be written: {_why(path, error)}; the old file is as it was") from error


def _refused(path: Path, reason: str) -> ProfileError:
    return ProfileError(str(path), [Problem(None, "", reason)])


def _why(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return "it is a folder, not a file"
        case PermissionError():
            return "permission denied"
        case NotADirectoryError() | FileExistsError():
            return f"{error.filename or path.parent} is a file, not a folder"
        case _:
            return error.strerror or type(error).__name__
