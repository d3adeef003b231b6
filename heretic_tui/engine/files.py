"""Writing files whole or not at all, with failures that a user can act on."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heretic_tui.atomic import write_whole
from heretic_tui.engine.errors import write_failure


def write_atomically(
    path: Path,
    write: Callable[[Path], object],
    *,
    needed: int = 0,
    inside: Path | None = None,
    private: bool = True,
) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place.

    Folders are made as needed, but `inside` one that must be there: what belongs on a share that went away is not
    written to where it was mounted. What is not `private` is an export, which gets the ordinary rights of a new file.
    Raises `EngineError` where the disk is full, read-only or refuses, or that folder is gone; the old file then still
    stands. `needed` is how many bytes are written, for people to be told.
    """

    def fill(temporary: Path) -> None:
        with os_errors():
            write(temporary)

    try:
        if inside is not None:
            inside.stat()
        write_whole(path, fill, private=private)
    except OSError as error:
        raise write_failure(path, error, needed) from error


@contextmanager
def os_errors() -> Iterator[None]:
    """Safetensors and tokenizers report a failed write as an error of their own; give it back its number."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def write_text(path: Path, text: str, *, inside: Path | None = None, private: bool = True) -> None:
    """Write UTF-8 text atomically; `inside` is a folder that must be there."""
    needed = len(text.encode("utf-8"))

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write, needed=needed, inside=inside, private=private)


def bytes_of(tensors: Iterable[Any]) -> int:
    """How many bytes tensors or arrays take, in memory as in a file."""
    return sum(int(tensor.nbytes) for tensor in tensors)
