"""A run in a few facts, for lists of runs; a damaged one is listed too, and says what is wrong."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.runs.live import Worker, read_workers
from heretic_tui.engine.runs.ownership import State
from heretic_tui.engine.runs.run import PROFILE, Run
from heretic_tui.engine.storage.front import best_compromise, pareto_front
from heretic_tui.profile.problems import ProfileError

UNKNOWN = "?"
MOST_NAMED = 3
"""Processes that are named where several work on a run."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a list shows of a run; `begun` is a time stamp in seconds, `problem` says why the run cannot be read.

    `workers` are the processes that work on it, or did when they died.
    """

    name: str
    path: Path
    model: str
    trials: int
    wanted: int
    finished: bool
    best: TrialRecord | None
    begun: float
    problem: str | None
    workers: tuple[Worker, ...] = ()

    @property
    def alive(self) -> tuple[Worker, ...]:
        """The processes that work on it now."""
        return tuple(worker for worker in self.workers if worker.claim.alive)

    @property
    def state(self) -> State:
        """Whether it is being worked on, and if not, why."""
        if self.alive:
            return "running"
        if self.finished:
            return "finished"
        return "dead" if self.workers else "paused"

    @property
    def told(self) -> str:
        """The state in words, with the processes that run it or the time at which the last of them died."""
        match self.state:
            case "running":
                others = [worker.place for worker in self.alive if not worker.owner.itself]
                if len(others) > MOST_NAMED:
                    others[MOST_NAMED - 1 :] = [f"and {len(others) - MOST_NAMED + 1} more"]
                return ", ".join(["running", *others])
            case "dead":
                last = max(worker.heard for worker in self.workers)
                return f"dead since {datetime.fromtimestamp(last):%Y-%m-%d %H:%M}"
            case _:
                return self.state


def summarize(run: Run) -> RunSummary:
    """Read a run's summary from its folder; never raises for one that is damaged."""
    records: list[TrialRecord] = []
    model, wanted, best, problem = UNKNOWN, 0, None, None
    try:
        run.check_links()
        model = run.model_name
        records, wanted = run.progress()
        objectives = run.profile.objectives
        best = best_compromise(pareto_front(records, objectives), objectives) if records else None
    except (EngineError, ProfileError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others must be listed
        problem = f"{run.path} is damaged ({type(error).__name__}: {error})."
    finished = problem is None and len(records) >= wanted
    workers = read_workers(run.path)
    return RunSummary(run.name, run.path, model, len(records), wanted, finished, best, _begun(run), problem, workers)


def _begun(run: Run) -> float:
    try:
        return (run.path / PROFILE).stat().st_mtime
    except OSError:
        return 0.0
