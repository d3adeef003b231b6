"""A run in a few facts, for lists of runs; a damaged one is listed too, and says what is wrong."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.front import best_compromise, pareto_front
from heretic_tui.engine.ownership import Claim, State, elsewhere, read_claims, telling
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.run import PROFILE, Run
from heretic_tui.profile.problems import ProfileError

UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a list shows of a run; `begun` is a time stamp in seconds, `problem` says why the run cannot be read.

    `claims` tell which processes work on it, or did when they died.
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
    claims: tuple[Claim, ...] = ()

    @property
    def claim(self) -> Claim | None:
        """The claim that tells the state."""
        return telling(self.claims)

    @property
    def state(self) -> State:
        """Whether it is being worked on, and if not, why."""
        if self.claim is not None and self.claim.alive:
            return "running"
        if self.finished:
            return "finished"
        return "paused" if self.claim is None else "dead"

    @property
    def told(self) -> str:
        """The state in words, with the process that runs it or the time at which it died."""
        if self.claim is None or self.state in {"paused", "finished"}:
            return self.state
        if self.state == "dead":
            return f"dead since {datetime.fromtimestamp(self.claim.seen):%Y-%m-%d %H:%M}"
        return f"running, {others}" if (others := elsewhere(self.claims)) else "running"


def summarize(run: Run) -> RunSummary:
    """Read a run's summary from its folder; never raises for one that is damaged."""
    records: list[TrialRecord] = []
    model, wanted, best, problem = UNKNOWN, 0, None, None
    try:
        model = run.model_name
        records, wanted = run.progress()
        objectives = run.profile.objectives
        best = best_compromise(pareto_front(records, objectives), objectives) if records else None
    except (EngineError, ProfileError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others must be listed
        problem = f"{run.path} is damaged ({type(error).__name__}: {error})."
    finished = problem is None and len(records) >= wanted
    claims = read_claims(run.path)
    return RunSummary(run.name, run.path, model, len(records), wanted, finished, best, _begun(run), problem, claims)


def _begun(run: Run) -> float:
    try:
        return (run.path / PROFILE).stat().st_mtime
    except OSError:
        return 0.0
