"""Where an export goes: what must not be there, what must fit, and how the folder is filled."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heretic_tui.engine.background import Report
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Tick
from heretic_tui.engine.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: bytes and, for an adapter, its rank and worst relative error against the exact edit."""

    size: int
    rank: int | None = None
    error: float | None = None


def check_target(to: Path, needed: int, *, overwrite: bool) -> None:
    """Raise `EngineError` where the target exists and may not be replaced, or the disk has no room."""
    if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
        raise EngineError(f"{to} exists already.", "Choose another folder, or add --overwrite to replace it.")
    check_room(next(folder for folder in to.resolve().parents if folder.exists()), needed)


def check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EngineError(
            f"The export needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free.",
            "Free some space or choose another disk.",
        )


def spare_source(model: LanguageModel, to: Path) -> None:
    """Raise `EngineError` where putting something at `to` would take the source away."""
    source, target = model.source and model.source.resolve(), to.resolve()
    if source and (source == target or target in source.parents):
        raise EngineError(
            f"{to} is, or holds, the original model itself, which an export never replaces.", "Choose another folder."
        )


@contextmanager
def filled(folder: Path, report: Report) -> Iterator[None]:
    """Remove the folder where filling it fails, or where the job has gone: nobody else would look at it again."""
    try:
        yield
        report(Tick())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def let_others_read(folder: Path) -> None:
    """Give every file the permissions of an ordinary new one; safetensors makes its own for their owner alone."""
    ordinary = (folder / "README.md").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(ordinary)


def size_of(folder: Path) -> int:
    """Bytes below a folder that another thread may be writing to."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size
