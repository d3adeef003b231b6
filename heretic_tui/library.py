"""What this machine has to offer: models, from those known at once to those searched for, and runs. For threads."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.private import make_folder

if TYPE_CHECKING:
    from heretic_tui.engine.checkpoints.catalog import ModelEntry
    from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts
    from heretic_tui.engine.runs.live import Running
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.engine.runs.summary import RunSummary

TRASH = ".trash"
"""Where runs that are deleted go, below the folder of the runs."""
HERE_DEPTH = 2
"""Folders below the current one that are looked into; it may be a home full of other things."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADDRESS = re.compile(rf"(?:https?://)?huggingface\.co/({HUB_ID.pattern})")
BATCH = 0.2
"""Seconds after which what was found is told, though the search goes on."""


@dataclass(frozen=True, slots=True)
class Known:
    """Models known without a search: names used last, entries, and names whose files are not there any more."""

    recent: tuple[str, ...]
    entries: tuple["ModelEntry", ...]
    gone: frozenset[str]


def known_models() -> Known:
    """The demonstration model and the models used last."""
    from heretic_tui.engine.checkpoints.catalog import demo_model, models_below
    from heretic_tui.recents import recent_models

    recent, entries, gone = recent_models(), [demo_model()], set()
    for name in recent:
        path = Path(name)
        if not path.is_absolute():
            continue
        place = path.parent if path.suffix == ".gguf" else path
        found = [entry for entry in models_below(place, 0) if entry.name == name]
        entries += [entry for entry in found if entry.path != entries[0].path]
        if not found and not path.exists():
            gone.add(name)
    return Known(tuple(recent), tuple(entries), frozenset(gone))


def searched_models(folders: Sequence[Path]) -> Iterator[tuple[str, list["ModelEntry"]]]:
    """Models of the local cache, below `folders` and below the current folder: where, and what was found there."""
    from heretic_tui.engine.checkpoints.catalog import cached_models, models_below

    yield "the local cache", []
    yield "the local cache", cached_models()
    here = _here()
    places = [(folder, 4) for folder in folders] + ([(here, HERE_DEPTH)] if here else [])
    for folder, depth in places:
        yield str(folder), []
        yield from ((str(folder), some) for some in _batches(models_below(folder, depth)))


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


def _batches(entries: Iterator["ModelEntry"]) -> Iterator[list["ModelEntry"]]:
    some: list[ModelEntry] = []
    told = time.monotonic()
    for entry in entries:
        some.append(entry)
        if time.monotonic() - told > BATCH:
            yield some
            some, told = [], time.monotonic()
    yield some


def named(text: str) -> str:
    """The model that a person means by what was typed or pasted: a hub id, its address, or a path."""
    name = text.strip().strip("'\"")
    if address := ADDRESS.match(name):
        return address[1]
    if name.startswith(("~", ".", "/")):
        with suppress(OSError, RuntimeError):  # the home of nobody
            return os.path.abspath(Path(name).expanduser())  # noqa: PTH100 - resolve() would follow links
    return name


def facts_of(name: str, entry: "ModelEntry | None") -> "CheckpointFacts":
    """Facts of a model on this machine, or else of the hub's. Raises `EngineError`."""
    from heretic_tui.engine.checkpoints.checkpoint import facts_of_hub, read_facts

    try:
        return read_facts(entry or name)
    except EngineError:
        if entry is not None or HUB_ID.fullmatch(name) is None:
            raise
    return facts_of_hub(name)


@dataclass
class RunReader:
    """Reads runs, and reads one again only when its study has changed."""

    folder: Path
    _read: dict[Path, tuple[object, "RunSummary"]] = field(default_factory=dict)

    def runs(self) -> list[Path]:
        """The folders of the runs that there are, newest first; found without reading one, so at once."""
        from heretic_tui.engine.runs.listing import list_runs

        with suppress(OSError):  # it may not be read
            return [run.path for run in list_runs(self.folder)]
        return []

    def running(self, runs: Sequence[Path]) -> "Running":
        """The runs that other processes work on at this moment; found without reading any study."""
        from heretic_tui.engine.runs.live import running

        return running(runs)

    def summary(self, path: Path) -> "RunSummary":
        """A run's summary."""
        from heretic_tui.engine.runs.run import Run
        from heretic_tui.engine.runs.summary import summarize

        run = Run(path)
        stamp = _stamp(run)
        kept = self._read.get(path)
        if kept is None or kept[0] != stamp:
            kept = self._read[path] = (stamp, summarize(run))
        return kept[1]


def _stamp(run: "Run") -> object:
    """What changes when a trial is added or a process comes or goes; another storage is always read again."""
    from heretic_tui.engine.runs.ownership import read_claims

    try:
        status = run.journal.stat()
        return status.st_mtime_ns, status.st_size, [(claim.owner, claim.alive) for claim in read_claims(run.path)]
    except OSError:
        return object()


def throw_away(path: Path) -> Path:
    """Move a run into the trash beside it and give its new place. Raises `EngineError`, also while it is worked on."""
    from heretic_tui.engine.runs.ownership import OWNERS
    from heretic_tui.engine.runs.run import Run

    trash = path.parent / TRASH
    target = trash / path.name
    number = 1
    while target.exists():
        number += 1
        target = trash / f"{path.name}.{number}"
    with Run(path).locked():
        try:
            make_folder(trash)
            path.rename(target)
            shutil.rmtree(target / OWNERS, ignore_errors=True)
        except OSError as error:
            raise write_failure(target, error) from error
    return target
