"""Requests to a process that works on a run: files in the run's folder, each for one process, taken by removing it.

What they hold is data with a schema. Whoever asked knows by the file whether the request was taken, and by the
process whether it still can be.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from heretic_tui.engine.errors import write_failure
from heretic_tui.engine.runs.live import Worker, file_of, read_others, read_small, write_private
from heretic_tui.engine.runs.ownership import Owner, read_claims
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.storage.studies import want_pause

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LISTEN = 0.4
"""Seconds between two looks for a request."""

Kind = Literal["pause", "end", "trials"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: a pause, the end of the study, or that it has so many `trials` in all.

    The number of trials itself stands in the journal before it is asked for, so that it holds whoever answers.
    """

    kind: Kind
    trials: int | None = None

    @property
    def told(self) -> str:
        """The request as the run's log tells it."""
        match self.kind:
            case "pause":
                return "Another process asked for a pause."
            case "end":
                return f"Another process asked to end the study with {self.trials} trials."
            case "trials":
                return f"Another process asked for {self.trials} trials in all."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to a process."""

    worker: Worker
    request: Request
    file: Path

    @property
    def taken(self) -> bool:
        """Whether the process has taken it; also one that gave the run up without being asked."""
        return not self.file.exists()

    def worker_now(self) -> Worker | None:
        """The process as it is now; None where it is gone, and nobody can take the request any more."""
        others = read_others(self.file.parent.parent)[0]
        return next((one for one in others if one.owner == self.worker.owner), None)

    def withdraw(self) -> None:
        """Take the request back, where it is still there."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)


def ask(folder: Path, request: Request) -> tuple[Asked, ...]:
    """Ask every process that works on a run at this moment; none where none does. Raises `EngineError`.

    Workers that share the study's storage but not this folder read a wish to pause in the study.
    """
    asked = []
    for worker in read_others(folder)[0]:
        path = file_of(folder, worker.owner, request.kind)
        try:
            write_private(path, json.dumps(asdict(request)))
        except OSError as error:
            raise write_failure(path, error) from error
        asked.append(Asked(worker, request, path))
    run = Run(folder)
    if request.kind == "pause" and run.begun and run.profile.storage is not None:
        want_pause(run.read_study())
    return tuple(asked)


class Listener:
    """Hears requests to this process, seldom enough to cost nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner: Owner | None = None
        self._next = 0.0

    def requests(self) -> Iterator[Request]:
        """What is asked of this process, each request once; one that cannot be understood is put away."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LISTEN
        if self._owner is None:
            self._owner = next((claim.owner for claim in read_claims(self._folder) if claim.owner.itself), None)
        if self._owner is None:
            return
        for kind in KINDS:
            path = file_of(self._folder, self._owner, kind)
            content = read_small(path)
            if content is None:
                continue
            try:
                path.unlink()
                request = _schema().validate_json(content)
            except (OSError, ValueError):
                continue
            if request.kind == kind:
                yield request


@cache
def _schema() -> "TypeAdapter[Request]":
    from pydantic import TypeAdapter

    return TypeAdapter(Request)
