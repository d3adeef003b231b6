"""Who works on a run, and whether those processes still live: told by host, boot, process and its start.

Every process that works on a run has a claim of its own in the run's folder, and a request of its own. A lock alone
does not tell: on a shared folder another machine cannot see it, and it says nothing once it is gone.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from heretic_tui.engine.control_files import moment, part_of_a_name, read_fields, whole, word
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import write_text
from heretic_tui.names import in_folder
from heretic_tui.private import Refused, tell_once

OWNERS = "owners"
"""The folder of the claims, a file for each process."""
SILENCE = 120.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""
PULSE = 5.0
"""Seconds between two signs of life."""
OWNER_FIELDS = {"host": word, "boot": word, "process": whole, "started": part_of_a_name, "since": moment}
ENDED = {"Z", "X"}
"""States of a process that is no more."""

State = Literal["running", "paused", "finished", "dead"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that works on a run; `started` tells it from a later one of the same number, `since` is in seconds."""

    host: str
    boot: str
    process: int
    started: str
    since: float

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def name(self) -> str:
        """A name that no other process has or will have, which any file system takes."""
        return _plain(f"{self.host}-{self.process}-{self.started}")

    @property
    def itself(self) -> bool:
        """Whether it is the process that asks."""
        return self.here and self.process == os.getpid() and self.started == _start_of(os.getpid())


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run's folder says of its owner.

    `seen` is when that process last gave a sign of life, a time stamp in seconds; `silent` is for how long it has given
    none since, as far as can be told.
    """

    owner: Owner
    seen: float
    silent: float = field(default=0.0, compare=False)

    @property
    def alive(self) -> bool:
        """Whether the process is there; of one on another machine only its signs of life are known."""
        if not self.owner.here:
            return self.silent < SILENCE
        return self.owner.boot == _boot() and self.owner.started == _start_of(self.owner.process)

    @property
    def elsewhere(self) -> str:
        """Which other process works on the run, in words; empty where none does."""
        if not self.alive or self.owner.itself:
            return ""
        return self.place

    @property
    def place(self) -> str:
        """Which process it is, in words, with its machine where that is another one."""
        return f"process {self.owner.process}{'' if self.owner.here else f' on {self.owner.host}'}"


def this_process() -> Owner:
    """This process as an owner."""
    return Owner(socket.gethostname(), _boot(), os.getpid(), _start_of(os.getpid()) or "", time.time())


@contextmanager
def claimed(folder: Path) -> Iterator[Owner]:
    """Say in a run's folder that this process works on it; one that is killed leaves its claim, which tells so."""
    owner = this_process()
    path = _path(folder, owner)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise write_failure(path.parent, error) from error
    _write(path, owner)
    try:
        yield owner
    finally:
        with suppress(OSError):  # what is left counts as dead once this process has ended
            path.unlink(missing_ok=True)


def _write(path: Path, owner: Owner) -> None:
    write_text(path, json.dumps(asdict(owner), indent=2) + "\n", inside=path.parent)


def read_claims(folder: Path) -> tuple[Claim, ...]:
    """The claims in a run's folder, oldest first; those that cannot be understood or trusted are left out."""
    found = [claim for path in _files(folder) if (claim := _read(path)) is not None]
    return tuple(sorted(found, key=lambda claim: (claim.owner.since, claim.owner.name)))


def _files(folder: Path) -> list[Path]:
    return list((folder / OWNERS).glob("*.json"))


def _read(path: Path) -> Claim | None:
    try:
        fields, seen = read_fields(path, OWNER_FIELDS)
        # A sign of life that is still to come is none: it would never grow old.
        return Claim(Owner(**fields), min(seen, time.time()), _silent(path, seen))
    except FileNotFoundError:
        return None
    except (OSError, Refused) as error:
        tell_once(path, error)
        return None


def companions(folder: Path) -> int:
    """How many other processes work on a run."""
    return sum(claim.alive and not claim.owner.itself for claim in read_claims(folder))


def elsewhere(claims: Sequence[Claim]) -> str:
    """Which other processes work on a run, in words; empty where none does."""
    others = [claim.elsewhere for claim in claims if claim.elsewhere]
    return others[0] + (f" and {len(others) - 1} more" if len(others) > 1 else "") if others else ""


def process_of(name: str) -> str:
    """The process in an owner's name."""
    return name.rsplit("-", 2)[-2] if name.count("-") >= 2 else name


def place_of(name: str) -> str:
    """The process in an owner's name, with its machine where that is another one."""
    if name.count("-") < 2:
        return name
    host = name.rsplit("-", 2)[0]
    return process_of(name) + ("" if host == _plain(socket.gethostname()) else f" on {host}")


def gone(folder: Path, worker: str) -> bool | None:
    """Whether the worker of this name lives no more; None where its claim is not in this folder, or cannot be read."""
    claim = _read(folder / OWNERS / f"{worker}.json") if in_folder(f"{worker}.json") else None
    return None if claim is None else not claim.alive


def clear_dead(folder: Path) -> None:
    """Remove the claims of processes that are gone; what they were working on must have been given back before."""
    for path in _files(folder):
        if (claim := _read(path)) is not None and not claim.alive:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)


def _path(folder: Path, owner: Owner) -> Path:
    return folder / OWNERS / f"{owner.name}.json"


_signs: dict[Path, tuple[float, float]] = {}
"""By file: the last sign of life that was seen, and when that was on this process's own clock."""


def _silent(path: Path, seen: float) -> float:
    """Seconds since a sign of life.

    A stamp of another machine's clock, or of a clock that was set, tells little. From the second look on only this
    process's own clock counts, which nobody sets: whether there was a new sign, and if not, for how long.
    """
    now = time.monotonic()
    known = _signs.get(path)
    if known is None:
        known = _signs[path] = seen, now - max(0.0, time.time() - seen)
    elif known[0] != seen:
        known = _signs[path] = seen, now
    return now - known[1]


class Pulse:
    """Gives this process's signs of life in a run, seldom enough to cost nothing."""

    def __init__(self, folder: Path) -> None:
        self._owner = this_process()
        self._path = _path(folder, self._owner)
        self._next = 0.0
        self._claimed = False

    def beat(self) -> None:
        """Give a sign of life, if the last one is long ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PULSE
            try:
                os.utime(self._path)
                self._claimed = True
            except FileNotFoundError:
                # Not claimed yet; or taken for dead by others while this machine slept, who must learn better.
                if self._claimed:
                    with suppress(EngineError):
                        _write(self._path, self._owner)
            except OSError:
                pass  # the disk is away for a moment


@cache
def _boot() -> str:
    """What tells this start of the machine from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "-"  # when a process started tells starts of the machine apart as well


def _start_of(process: int) -> str | None:
    """When a process started, on a clock that nobody sets; None where there is no such process."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The name in brackets may hold anything; the start is the twentieth field behind it, in ticks since the boot.
        state, *fields = status.rpartition(")")[2].split()
        # One that has ended stays in the list until its parent has asked how.
        return None if state in ENDED else fields[18]
    except (OSError, IndexError):
        pass
    try:
        return str(round(psutil.Process(process).create_time()))
    except (psutil.Error, OverflowError, ValueError):
        return None
