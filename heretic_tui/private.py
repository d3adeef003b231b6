"""Files and folders that are this person's alone, and care with those that somebody else may have had a hand in."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
OTHERS = 0o077
MOST = 64 * 1024
"""Bytes that a control file may have at most; an honest one has a few hundred."""

logger = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()


class Refused(Exception):
    """A file that is not read, with the reason in words."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it as far as they are missing, for this person alone. Raises `OSError`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=FOLDER)
    if not path.is_dir():
        path.mkdir()  # says what is in the way


def tighten(path: Path, depth: int = 64) -> None:
    """Take everybody else's rights from a file, or from a folder and what is in it, as many folders deep as asked for.

    Links are not followed.
    What belongs to somebody else, and a file system that knows no rights, stay as they are.
    """
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or not _ours(status):
            return
        if status.st_mode & OTHERS:
            path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)
        if depth and stat.S_ISDIR(status.st_mode):
            for inner in path.iterdir():
                tighten(inner, depth - 1)


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`: a new file is this person's alone, and a link is not followed."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), FILE)


def make_file(path: Path) -> None:
    """Make an empty file for this person alone, where there is none yet. Raises `OSError`."""
    if not path.exists():
        with suppress(FileExistsError):
            os.close(opener(str(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def links_in(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is neither a file nor a folder: links, pipes, sockets, devices."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from links_in(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def read_own(path: Path, most: int = MOST) -> tuple[bytes, float]:
    """The bytes of a control file and when it was last changed, in seconds.

    It must be a plain file of at most `most` bytes that belongs to this person or to the owner of its folder. Raises
    `Refused`, and `OSError` where it cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise Refused("it is a link")
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        check_own(status, path.parent)
        if status.st_size > most:
            raise Refused(f"it has {status.st_size} bytes; an honest one has {most} at most")
        return os.read(descriptor, most), status.st_mtime
    finally:
        os.close(descriptor)


def check_own(status: os.stat_result, folder: Path) -> None:
    """Raise `Refused` for what is no plain file, or belongs neither to this person nor to the owner of `folder`."""
    if not stat.S_ISREG(status.st_mode):
        raise Refused("it is a link" if stat.S_ISLNK(status.st_mode) else "it is no plain file")
    if not _ours(status) and status.st_uid != folder.stat().st_uid:
        raise Refused(f"it belongs to another person (user {status.st_uid})")


def tell_once(path: Path, reason: object) -> None:
    """Note in the log that a file was not used, once for each reason."""
    told = str(path), str(reason)
    if told not in _told:
        _told.add(told)
        logger.warning("%r is not used: %s", *told)


def _ours(status: os.stat_result) -> bool:
    # Where the system knows no users everything is everybody's.
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
