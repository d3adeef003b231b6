"""Writing so that a crash leaves the old or the new, never a half."""

import os
import platform
import re
import secrets
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from heretic_tui.private import FILE, make_folder

HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""This machine, so that on a shared disk no other machine's work is taken for a dead process's."""
_LEFT = re.compile(rf"\.(?P<name>.+)\.(?P<process>\d+)-(?:{HOST})?[0-9a-f]{{6}}\.partial")


def write_whole(path: Path, write: Callable[[Path], object], *, private: bool = True) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place; folders are made as needed.

    A `private` file is for this person alone, whatever the umask and whatever it was before; any other one gets the
    ordinary rights, or keeps those of the file that it replaces. A link stays a link. Raises `OSError`; the old file
    then still stands.
    """
    target = path.resolve()
    # A name of its own for each, since two threads may write the same file.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{HOST}{secrets.token_hex(3)}.partial")
    try:
        if private:
            make_folder(target.parent)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
        mode = _made(temporary, FILE if private else 0o666)
        write(temporary)
        _give_mode(temporary, _mode(target) if target.exists() and not private else mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _made(path: Path, mode: int) -> int:
    """Make an empty file before anything is in it that others could read; gives the rights that it got."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    return _mode(path)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _give_mode(path: Path, mode: int) -> None:
    # Only where they differ: some file systems have no modes to set, and some libraries set their own.
    if _mode(path) != mode:
        path.chmod(mode)


def left_behind(folder: Path) -> Iterator[tuple[Path, str]]:
    """What killed processes of this machine were writing in a folder, each with the name of the file it was to be."""
    import psutil

    for path in sorted(folder.glob(".*.partial")):
        found = _LEFT.fullmatch(path.name)
        if found and path.is_file() and not psutil.pid_exists(int(found["process"])):
            yield path, found["name"]
