"""Writing files whole or not at all, with failures that a user can act on."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heretic_tui.atomic import write_whole
from heretic_tui.engine.errors import write_failure


def write_atomically(path: Path, write: Callable[[Path], object], *, private: bool = True) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place.

    What is not `private` is an export, which gets the ordinary rights of a new file. Raises `EngineError` where the
    disk is full, read-only or refuses; the old file then still stands.
    """

    def fill(temporary: Path) -> None:
        with os_errors():
            write(temporary)

    try:
        write_whole(path, fill, private=private)
    except OSError as error:
        raise write_failure(path, error) from error


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


def write_text(path: Path, text: str, *, private: bool = True) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), private=private)
