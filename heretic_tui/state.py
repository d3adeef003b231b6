"""What the screens show, folded from the engine's events: plain values that a test can look at without a screen."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.engine import events
from heretic_tui.engine.ablation.style import PLAIN, AblationStyle, style_of
from heretic_tui.engine.events import Event
from heretic_tui.engine.records import ModelFacts, Score, TrialRecord
from heretic_tui.engine.storage.front import Objective, hypervolume, pareto_front
from heretic_tui.engine.timing import tokens_per_second, totals
from heretic_tui.formats import size
from heretic_tui.masking import masked
from heretic_tui.told import told
from heretic_tui.worker import Failure, JobEnded, JobStarted

if TYPE_CHECKING:  # the first paint waits for neither
    from heretic_tui.engine.chat.steering import Steered
    from heretic_tui.engine.runs.live import Worker
    from heretic_tui.exports import ExportView
    from heretic_tui.following import Followed, Waiting
    from heretic_tui.inspections import Inspection
    from heretic_tui.talk import Talk
    from heretic_tui.token_desk import TokenDesk

LOG_LINES = 1000
RECENT_TRIALS = 20
"""How many of the last trials tell how long the rest will take."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log: when (seconds since the epoch), how grave, and what."""

    time: float
    level: str
    text: str


@dataclass
class Activity:
    """The job that runs, and how far its present phase has come."""

    title: str
    began: float
    phase: str = ""
    detail: str = ""
    unit: str = ""
    done: float = 0.0
    total: float | None = None
    phase_began: float = 0.0
    stopping: bool = False

    def advance(self, progress: events.Progress) -> None:
        """Take over a progress event."""
        if progress.phase != self.phase:
            self.phase_began = time.monotonic()
        self.phase, self.detail, self.unit = progress.phase, progress.detail, progress.unit
        self.done, self.total = progress.done, progress.total

    @property
    def fraction(self) -> float | None:
        """How much of the phase is done, between 0 and 1; None where nobody knows."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def amount(self) -> str:
        """How far, with its unit: `12/40 prompts`, `3.1 MB/5.2 MB`."""
        if not self.phase:
            return ""
        if self.unit == "B":
            return size(self.done) if self.total is None else f"{size(self.done)}/{size(self.total)}"
        total = "" if self.total is None else f"/{self.total:.0f}"
        return f"{self.done:.0f}{total} {self.unit}".strip()


@dataclass
class StudyView:
    """A run as the screen knows it: read from its folder, and kept up to date by events while it runs."""

    path: Path
    model: str
    objectives: Sequence[Objective]
    wanted: int
    base: Mapping[str, Score] = field(default_factory=dict)
    records: dict[int, TrialRecord] = field(default_factory=dict)
    layers: int = 0
    phases: list[events.PhaseFinished] = field(default_factory=list)
    current: int | None = None
    """The trial under way."""
    workers: "tuple[Worker, ...]" = ()
    """The other processes that work on it."""
    died: "tuple[Worker, ...]" = ()
    """Those that died at it."""
    crew: "tuple[Worker, ...]" = ()
    """Who works on it, or died at it, this process among them, as far as its folder tells."""
    under_way: Mapping[str, int] = field(default_factory=dict)
    """Who is at which trial, as the study in its database tells: also those who share no folder with this process."""
    followed: "Followed | None" = None
    """What was told of it by the processes that work on it, while it was looked at."""
    style: AblationStyle = PLAIN
    """What of the model its trials edit, and how."""
    own: bool = False
    """Whether the work on it that is told in the log was this process's."""
    front: list[TrialRecord] = field(default_factory=list, init=False)
    volumes: list[float] = field(default_factory=list, init=False)
    """The front's share of the volume after each trial; empty where that cannot be said."""

    def __post_init__(self) -> None:
        """Draw the front of what was read."""
        found, self.records = self.records, {}
        for record in sorted(found.values(), key=lambda record: record.trial):
            self.add(record)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def shared(self) -> bool:
        """Whether several workers are at it, or were at the same time: a run that was only resumed is not shared."""
        if self.at_work > 1:
            return True
        ran = [record.worker for _, record in sorted(self.records.items())]
        return sum(one != other for one, other in pairwise(ran)) >= max(2, len(set(ran)))

    @property
    def at_work(self) -> int:
        """How many processes work on it, as far as its folder and its study tell."""
        claims = {one.owner.name: one.claim.alive for one in self.crew}
        return sum(claims.values()) + len(self.under_way.keys() - claims)

    @property
    def others(self) -> "Sequence[Worker]":
        """The other processes that work on it, also beside this one."""
        return [one for one in self.crew if one.claim.alive and not one.owner.itself]

    @property
    def finished(self) -> bool:
        """Whether it has all the trials that it is to have."""
        return len(self.records) >= self.wanted

    def add(self, record: TrialRecord) -> None:
        """Take in a finished trial."""
        again = record.trial in self.records
        self.records[record.trial] = record
        # A trial that is not on the front never comes back to it, so the front and the new one are enough.
        among = list(self.records.values()) if again else [*self.front, record]
        self.front = pareto_front(among, self.objectives) if self.objectives else []
        volume = self._volume()
        if volume is not None:
            self.volumes.append(volume)

    def _volume(self) -> float | None:
        """Hypervolume of the front, as a share of the box between 0 and the original model's scores (KL: 1 nat)."""
        scored = [one for one in self.objectives if one.optimization == "minimize" and one.name in self.base]
        if len(scored) != 2 or len(self.objectives) != 2:
            return None
        across, up = (self.base[one.name].value or 1.0 for one in scored)
        return hypervolume(self.front, self.objectives, (across, up)) / (across * up)

    @property
    def on_front(self) -> set[int]:
        """Numbers of the front's trials."""
        return {record.trial for record in self.front}

    def seconds_left(self) -> float | None:
        """Estimated seconds to the last trial, from the trials done last; None before the first."""
        last = list(self.records.values())[-RECENT_TRIALS:]
        if not last or self.finished:
            return None
        at_once = max(1, self.at_work)
        return sum(record.seconds for record in last) / len(last) * (self.wanted - len(self.records)) / at_once

    def tokens_per_second(self) -> float | None:
        """Speed of decoding in the last trials that generated anything."""
        return tokens_per_second(totals(list(self.records.values())[-RECENT_TRIALS:]))


@dataclass
class State:
    """All that the app knows of the engine and of the runs that were looked at."""

    model: ModelFacts | None = None
    activity: Activity | None = None
    failure: Failure | None = None
    studies: dict[Path, StudyView] = field(default_factory=dict)
    shown: Path | None = None
    """The run that the screens are about."""
    running: Path | None = None
    """The run that the engine works on."""
    export: "ExportView | None" = None
    """The export that was asked for last."""
    talks: "dict[Path | str, Talk]" = field(default_factory=dict)
    """The talk of each run, or of each model without one."""
    talking: "Talk | None" = None
    """The talk that the engine was asked for last."""
    steering: "Steered | None" = None
    """A candidate that was taken to the chat, until the chat takes it up."""
    inspection: "Inspection | None" = None
    """What the inspector has read."""
    tokens: "TokenDesk | None" = None
    """What the inspector's view of tokens has asked for."""
    beside: dict[str, Activity] = field(default_factory=dict)
    """What is computed without the engine, by its title."""
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    waiting: "list[Waiting]" = field(default_factory=list)
    """Requests to other processes that nobody has taken yet."""
    starting: list[events.PhaseFinished] = field(default_factory=list)
    """Phases that ended before the run's folder was there."""

    @property
    def study(self) -> StudyView | None:
        """The run that the screens are about."""
        return self.studies.get(self.shown) if self.shown else None

    def say(self, text: str, level: str = "info") -> None:
        """Add a line to the log."""
        self.log.append(LogLine(time.time(), level, masked(text)))

    def _log(self, event: Event) -> None:
        if (words := told(event)) is not None:
            self.say(*words)

    def apply(self, event: Event) -> None:
        """Take in one event of the engine."""
        if self.talking is not None:
            self.talking.apply(event)
        if self.export is not None:
            self.export.apply(event)
        if self.tokens is not None:
            self.tokens.apply(event)
        match event:
            case JobStarted():
                self.activity = Activity(event.title, time.monotonic())
                self.failure = None
                self.starting = []
                self.say(f"{event.title} begins")
            case JobEnded():
                self._ended(event)
            case _:
                self._told(event, self.studies.get(self.running) if self.running else None)

    def _told(self, event: Event, study: StudyView | None) -> None:
        match event:
            case events.Progress() if self.activity is not None:
                self.activity.advance(event)
            case events.PhaseFinished():
                (study.phases if study else self.starting).append(event)
                self._log(event)
            case events.Note() | events.Exported():
                self._log(event)
            case events.ModelLoaded() if self.export is not None and self.export.measuring:
                pass  # a copy that is measured and let go: the engine keeps the original
            case events.ModelLoaded():
                self.model = event.facts
                self._log(event)
            case events.RunOpened():
                self._opened(event)
            case _ if study is not None:
                self._studied(study, event)
            case _:
                pass

    def _studied(self, study: StudyView, event: Event) -> None:
        match event:
            case events.BaselineMeasured():
                study.base = event.scores
                self._log(event)
            case events.TrialStarted():
                study.current, study.wanted = event.trial, event.trials
            case events.TrialFinished():
                study.add(event.record)
                self._log(event)
            case events.StudyFinished():
                self._log(event)
            case _:
                pass

    def _opened(self, event: events.RunOpened) -> None:
        from heretic_tui.engine.runs.run import Run

        if event.path not in self.studies:
            run = Run(event.path)
            self.studies[event.path] = StudyView(
                event.path,
                run.model_name,
                run.profile.objectives,
                event.trials,
                phases=self.starting,
                style=style_of(run.profile),
            )
        study = self.studies[event.path]
        study.wanted = event.trials
        study.layers = self.model.layers if self.model else study.layers
        self.running = self.shown = event.path
        study.workers, study.died, study.followed, study.own = (), (), None, True
        self._log(event)

    def _ended(self, event: JobEnded) -> None:
        if self.running in self.studies:
            self.studies[self.running].current = None
        self.running = self.activity = None
        self.failure = event.failure
        if event.failure is not None:
            self.say(f"{event.title} failed: {event.failure.cause}", "error")
        else:
            self.say(f"{event.title}: {event.outcome}")


def read_study(path: Path) -> StudyView:
    """Read a run from its folder, without its model. Raises `EngineError` and `ProfileError`; takes up to seconds."""
    from heretic_tui.engine.runs.live import read_others
    from heretic_tui.engine.runs.run import Run

    run = Run(path)
    run.check_links()
    model = run.model()
    workers, died = read_others(path)
    return StudyView(
        path,
        run.model_name,
        run.profile.objectives,
        run.wanted(),
        run.base_scores() or {},
        {record.trial: record for record in run.records()},
        model[0].layers if model else 0,
        style=style_of(run.profile),
        workers=workers,
        died=died,
        crew=(*workers, *died),
    )
