"""Who works on a run, and whether that process still lives: told by host, boot, process and its start.

A lock alone does not tell: on a shared folder another machine cannot see it, and it says nothing once it is gone.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from heretic_tui.engine.control_files import moment, part_of_a_name, read_fields, whole, word
from heretic_tui.engine.files import write_text
from heretic_tui.private import Refused, tell_once

OWNER = "owner.json"
SILENCE = 120.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""
PULSE = 5.0
"""Seconds between two signs of life."""
OWNER_FIELDS = {"host": word, "boot": word, "process": whole, "started": part_of_a_name, "since": moment}

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
        return re.sub(r"[^A-Za-z0-9.-]", "-", f"{self.host}-{self.process}-{self.started}")

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
    def place(self) -> str:
        """Which process it is, in words, with its machine where that is another one."""
        return f"process {self.owner.process}{'' if self.owner.here else f' on {self.owner.host}'}"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Say in a run's folder that this process works on it; one that is killed leaves its claim, which tells so."""
    path = folder / OWNER
    owner = Owner(socket.gethostname(), _boot(), os.getpid(), _start_of(os.getpid()) or "", time.time())
    write_text(path, json.dumps(asdict(owner), indent=2) + "\n", inside=folder)
    try:
        yield
    finally:
        with suppress(OSError):  # what is left counts as dead once this process has ended
            path.unlink(missing_ok=True)


def read_claim(folder: Path) -> Claim | None:
    """The claim in a run's folder; None where no process works on it, or the file cannot be understood or trusted."""
    path = folder / OWNER
    try:
        fields, seen = read_fields(path, OWNER_FIELDS)
        # A sign of life that is still to come is none: it would never grow old.
        return Claim(Owner(**fields), min(seen, time.time()), _silent(path, seen))
    except FileNotFoundError:
        return None
    except (OSError, Refused) as error:
        tell_once(path, error)
        return None


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


def read_claims(folder: Path) -> tuple[Claim, ...]:
    """The claims of all processes that work on a run, or died at it."""
    claim = read_claim(folder)
    return () if claim is None else (claim,)


class Pulse:
    """Gives a run's signs of life, seldom enough to cost nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / OWNER
        self._next = 0.0

    def beat(self) -> None:
        """Give a sign of life, if the last one is long ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PULSE
            with suppress(OSError):  # not claimed yet, or the disk is away for a moment
                os.utime(self._path)


@cache
def _boot() -> str:
    """What tells this start of the machine from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _start_of(process: int) -> str | None:
    """When a process started, on a clock that nobody sets; None where there is no such process."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The name in brackets may hold anything; the start is the twentieth field behind it, in ticks since the boot.
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        return str(round(psutil.Process(process).create_time()))
    except (psutil.Error, OverflowError, ValueError):
        return None
