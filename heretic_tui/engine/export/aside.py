"""Folders that are written aside and renamed when they are whole, and what killed processes leave of them."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from heretic_tui.atomic import HOST
from heretic_tui.engine.errors import EngineError, write_failure

_LEFT = re.compile(rf"\.(?P<name>.+)\.(?P<process>\d+)-{HOST}[0-9a-f]{{6}}\.(?P<kind>partial|replaced)")


@contextmanager
def written_aside(to: Path) -> Iterator[Path]:
    """A fresh folder beside `to` that takes its place when the block ends well, and vanishes when it does not.

    A link is followed, so that the folder is on the disk that it leads to. What processes that are no more have left
    beside `to` is cleared away first.
    """
    place = to.resolve()
    # A name of its own for each, since the thread of an export that was stopped may not be quite through with its own.
    stem = f".{place.name}.{os.getpid()}-{HOST}{secrets.token_hex(3)}"
    aside, replaced = place.with_name(f"{stem}.partial"), place.with_name(f"{stem}.replaced")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(place.parent)
        aside.mkdir()
        yield aside
        if place.exists():
            place.rename(replaced)
        aside.rename(place)
    except OSError as error:
        raise write_failure(to, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if replaced.exists() and not place.exists():
            _put_back(replaced, place)
        shutil.rmtree(replaced, ignore_errors=True)


def clear_leftovers(folder: Path) -> list[str]:
    """Remove what killed processes of this machine were writing in `folder`, and put back what they had set aside.

    Gives what was done, in words.
    """
    words = []
    for path in sorted(folder.iterdir()):
        found = _LEFT.fullmatch(path.name)
        if not found or psutil.pid_exists(int(found["process"])) or not path.is_dir():
            continue
        place = path.with_name(found["name"])
        if found["kind"] == "replaced" and not place.exists():
            path.rename(place)
            words.append(f"{place} had been set aside by a process that was killed; it is back.")
        else:
            shutil.rmtree(path, ignore_errors=True)
            words.append(f"What a killed process had written of {place} is removed.")
    return words


def _put_back(replaced: Path, to: Path) -> None:
    try:
        replaced.rename(to)
    except OSError as error:
        raise EngineError(
            f"Could not write {to}: {error.strerror}. What was there before is now in {replaced}.", "Rename it back."
        ) from error
