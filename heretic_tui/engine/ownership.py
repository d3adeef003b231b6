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
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from heretic_tui.engine.files import write_text

OWNER = "owner.json"
SILENCE = 120.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""
PULSE = 5.0
"""Seconds between two signs of life."""

FOREVER = 1e11
"""Seconds since the epoch that no clock shows."""

State = Literal["running", "paused", "finished", "dead"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that works on a run; `started` tells it from a later one of the same number, `since` is in seconds."""

    host: str
    boot: str
    process: int
    started: str
    since: float

    def __post_init__(self) -> None:
        """Raise `TypeError` for what a file may hold and no process is."""
        texts = isinstance(self.host, str) and isinstance(self.boot, str) and isinstance(self.started, str)
        times = isinstance(self.since, int | float) and 0 <= self.since < FOREVER
        if not (texts and times and isinstance(self.process, int) and not {"/", "\0"} & {*self.started}):
            raise TypeError("that is no process")

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def name(self) -> str:
        """A name that no other process has or will have, which any file system takes."""
        return f"{re.sub(r'[^A-Za-z0-9.-]', '-', self.host)}-{self.process}-{self.started}"

    @property
    def itself(self) -> bool:
        """Whether it is the process that asks."""
        return self.here and self.process == os.getpid() and self.started == _start_of(os.getpid())


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run's folder says of its owner; `seen` is when that process last gave a sign of life, in seconds."""

    owner: Owner
    seen: float

    @property
    def alive(self) -> bool:
        """Whether the process is there; of one on another machine only its signs of life are known."""
        if not self.owner.here:
            return time.time() - self.seen < SILENCE
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
    write_text(path, json.dumps(asdict(owner), indent=2) + "\n")
    try:
        yield
    finally:
        with suppress(OSError):  # what is left counts as dead once this process has ended
            path.unlink(missing_ok=True)


def read_claim(folder: Path) -> Claim | None:
    """The claim in a run's folder; None where no process works on it, or the file cannot be understood."""
    path = folder / OWNER
    try:
        return Claim(Owner(**json.loads(path.read_text(encoding="utf-8"))), path.stat().st_mtime)
    except (OSError, TypeError, ValueError):
        return None


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
    except psutil.Error:
        return None
