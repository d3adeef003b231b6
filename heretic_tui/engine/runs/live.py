"""What a process that works on a run is at, told about once a second in a small file of the run's folder.

Whoever watches the run from elsewhere reads it beside the journal. Nothing of it is needed to go on with the run, so it
is never waited for: it does not reach the disk before its time, and a disk that is full costs no more than the news.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from heretic_tui.engine.events import Event, ModelLoaded, Progress, TrialFinished, TrialStarted
from heretic_tui.engine.memory import MemoryReading, read_memory
from heretic_tui.engine.runs.ownership import Claim, Owner, read_claims
from heretic_tui.private import Refused, read_own, tell_once

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FOLDER = "live"
"""Files of the processes that work on a run, and requests to them; private to the user."""
EVERY = 0.7
"""Seconds between two writings: with the time that a reader takes to look, nobody is more than a second behind."""
LONGEST = 200
"""Letters that are kept of a name; with it the file stays below a few kilobytes."""
MOST = 64_000
"""Bytes above which a file is none of ours."""


@dataclass(frozen=True, slots=True)
class Live:
    """What a process is at: the trial under way, how far its phase has come, and the memory of its devices.

    `spent` counts the seconds of the phase so far.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"allow_inf_nan": False}

    device: str = ""
    trial: int | None = None
    phase: str = ""
    detail: str = ""
    unit: str = ""
    done: float = 0.0
    total: float | None = None
    spent: float = 0.0
    memory: tuple[MemoryReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that works on a run, or did until it died; `heard` is its last sign of life, in seconds."""

    claim: Claim
    live: Live | None
    heard: float

    @property
    def owner(self) -> Owner:
        """The process."""
        return self.claim.owner

    @property
    def device(self) -> str:
        """What it computes on; empty where it did not say."""
        return self.live.device if self.live else ""

    @property
    def place(self) -> str:
        """Which process it is, in words."""
        return self.claim.place


Running = Mapping[Path, tuple[Worker, ...]]
"""Runs, and the other processes that work on each."""


def read_workers(folder: Path) -> tuple[Worker, ...]:
    """All processes that work on a run, and those that died at it."""
    return tuple(_worker(folder, claim) for claim in read_claims(folder))


def read_others(folder: Path) -> tuple[tuple[Worker, ...], tuple[Worker, ...]]:
    """The other processes that work on a run at this moment, and those that died at it."""
    others = [one for one in read_workers(folder) if not one.owner.itself]
    alive = tuple(one for one in others if one.claim.alive)
    return alive, tuple(one for one in others if one not in alive)


def running(runs: Iterable[Path]) -> Running:
    """The runs that other processes work on at this moment, with these; found without reading any study."""
    return {run: workers for run in runs if (workers := read_others(run)[0])}


def file_of(folder: Path, owner: Owner, kind: str) -> Path:
    """A file of one process in a run's folder: `json` for what it tells, and one for each kind of request."""
    return folder / FOLDER / f"{owner.name}.{kind}"


def read_live(folder: Path, owner: Owner) -> Live | None:
    """What a process last told; None where it told nothing that can be understood."""
    content = read_small(file_of(folder, owner, "json"))
    try:
        return None if content is None else _schema().validate_json(content)
    except ValueError:
        return None


def read_small(path: Path) -> bytes | None:
    """A small file's content; None where there is none, or it is too large to be one of ours."""
    try:
        return read_own(path, MOST)[0]
    except Refused as error:
        tell_once(path, error)
    except OSError:
        pass
    return None


def write_private(path: Path, content: str) -> None:
    """Put a small file that only the user can read in its place at once. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Announcer:
    """Tells what this process is at, seldom enough to cost nothing, while the run is its own."""

    def __init__(self, folder: Path, device: str = "") -> None:
        self._folder = folder
        self._live = Live(device)
        self._owner: Owner | None = None
        self._began = self._next = 0.0

    def tell(self, event: Event) -> None:
        """Take in an event of the job, and write if the last time is long enough ago."""
        match event:
            case Progress():
                self._advance(event)
            case ModelLoaded():
                self._live = replace(self._live, device=event.facts.device)
            case TrialStarted():
                self._live = replace(self._live, trial=event.trial)
            case TrialFinished() if event.record.trial == self._live.trial:
                self._live = replace(self._live, trial=None)
        if time.monotonic() >= self._next:
            with suppress(OSError):  # without the news the run goes on all the same
                self._write()
            self._next = time.monotonic() + EVERY

    def end(self) -> None:
        """Take back what was told."""
        if self._owner is not None:
            for path in _files(self._folder):
                if _of(path, self._owner):
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # another process tells its own
                (self._folder / FOLDER).rmdir()

    def _advance(self, event: Progress) -> None:
        name = event.phase[:LONGEST]
        if name != self._live.phase:
            self._began = time.monotonic()
        detail, unit = event.detail[:LONGEST], event.unit[:LONGEST]
        self._live = replace(self._live, phase=name, detail=detail, unit=unit, done=event.done, total=event.total)

    def _write(self) -> None:
        if self._owner is None:
            own = next((claim.owner for claim in read_claims(self._folder) if claim.owner.itself), None)
            if own is None:
                return  # the job looks at a run that it does not work on
            self._owner = own
            _sweep(self._folder)
        spent = time.monotonic() - self._began if self._live.phase else 0.0
        live = replace(self._live, spent=round(spent, 1), memory=read_memory())
        write_private(file_of(self._folder, self._owner, "json"), json.dumps(asdict(live)))


def _worker(folder: Path, claim: Claim) -> Worker:
    heard = claim.seen
    with suppress(OSError):
        heard = max(heard, file_of(folder, claim.owner, "json").stat().st_mtime)
    return Worker(claim, read_live(folder, claim.owner), heard)


def _sweep(folder: Path) -> None:
    """Remove what processes left behind that were killed."""
    alive = [claim.owner for claim in read_claims(folder) if claim.alive]
    for path in _files(folder):
        if not any(_of(path, owner) for owner in alive):
            path.unlink(missing_ok=True)


def _of(path: Path, owner: Owner) -> bool:
    """Whether a file is one process's own, also while it is written."""
    return path.name.removeprefix(".").startswith(f"{owner.name}.")


def _files(folder: Path) -> list[Path]:
    try:
        return list((folder / FOLDER).iterdir())
    except OSError:
        return []


@cache
def _schema() -> "TypeAdapter[Live]":
    from pydantic import TypeAdapter

    return TypeAdapter(Live)
