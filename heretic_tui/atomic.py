"""Writing so that a crash leaves the old or the new, never a half."""

import os
import platform
import re
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""This machine, so that on a shared disk no other machine's work is taken for a dead process's."""
_LEFT = re.compile(rf"\.(?P<name>.+)\.(?P<process>\d+)-(?:{HOST})?[0-9a-f]{{6}}\.partial")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place; folders are made as needed.

    A link stays a link, and what replaces a file keeps its mode. Raises `OSError`; the old file then still stands.
    """
    target = path.resolve()
    # A name of its own for each, since two threads may write the same file.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{HOST}{secrets.token_hex(3)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _keep_mode(target, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _keep_mode(target: Path, temporary: Path) -> None:
    # Only where they differ: some file systems have no modes to set.
    if target.exists() and (mode := target.stat().st_mode & 0o777) != temporary.stat().st_mode & 0o777:
        temporary.chmod(mode)


def left_behind(folder: Path) -> Iterator[tuple[Path, str]]:
    """What killed processes of this machine were writing in a folder, each with the name of the file it was to be."""
    import psutil

    for path in sorted(folder.glob(".*.partial")):
        found = _LEFT.fullmatch(path.name)
        if found and path.is_file() and not psutil.pid_exists(int(found["process"])):
            yield path, found["name"]
