"""Following a run on disk that other processes work on: trials from its journal, the rest from what they tell."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heretic_tui.engine.events import PhaseFinished, RunOpened
from heretic_tui.engine.memory import MemoryReading
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.live import Worker, read_others, read_workers
from heretic_tui.engine.runs.requests import Asked
from heretic_tui.engine.runs.run import BASELINE, JOURNAL, LOG, MODEL, Run
from heretic_tui.engine.runs.run_log import Logged, LogReader
from heretic_tui.formats import duration
from heretic_tui.state import LOG_LINES, Activity, LogLine, State, StudyView
from heretic_tui.told import told

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

LOOK = 0.25
"""Seconds between two looks into the folder of the run that is shown."""
RESTS = 3
"""How many times as long as it took to read a run's folder nothing of it is read again."""
MUSTER = 1.0
"""Seconds between two looks at who else works on the run that this process works on."""
PATIENCE = 5.0
"""Seconds without a look after a run's folder could not be read."""
ANSWER = 10.0
"""Seconds after which it is told that nobody answers."""
GAUGE, HISTORY = 1.0, 240
"""Seconds between two memory readings that are kept, and how many are."""

Level = Literal["information", "warning"]
Tell = Callable[[str, Level], None]
"""Tells the person something, and how grave it is."""


@dataclass
class Followed:
    """What was told of a run by those that work on it, while it was looked at."""

    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    activity: Activity | None = None
    memory: tuple[MemoryReading, ...] = ()
    history: dict[str, deque[float]] = field(default_factory=dict)
    """The fractions of the last readings of each device."""
    gauged: float = 0.0


@dataclass
class Waiting:
    """A request that nobody has taken yet."""

    asked: Asked
    since: float = field(default_factory=time.monotonic)
    complained: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What a run's folder says now; trials and log lines only those that were added."""

    workers: tuple[Worker, ...]
    died: tuple[Worker, ...]
    logged: list[Logged]
    study: "StudyNews | None"


@dataclass(frozen=True, slots=True)
class StudyNews:
    """What a run's study says now."""

    records: list[TrialRecord]
    wanted: int
    base: dict[str, Score]
    layers: int
    under_way: dict[str, int] = field(default_factory=dict)


class Reader:
    """Reads what changes in a run's folder; its study is opened once, so that only what was added is read."""

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self._log = LogReader(path)
        self._study: optuna.Study | None = None
        self._known: set[int] = set()
        self._sign: object = None
        self._study_sign: object = None
        self._size = 0

    def look(self) -> News | None:
        """What is new; None where nothing is. Raises what reading a damaged folder raises."""
        path = self.run.path
        workers, died = read_others(path)
        study_sign = tuple(_changed(path / name) for name in (JOURNAL, BASELINE, MODEL))
        if self.run.profile.storage is not None:
            study_sign = (*study_sign, (int(time.monotonic()), 0))  # what changes there is only seen by asking
        told_at = tuple((worker.owner, worker.heard) for worker in (*workers, *died))
        sign = (study_sign, told_at, len(workers), _changed(path / LOG))
        if sign == self._sign:
            return None
        study = self._read_study() if study_sign != self._study_sign else None
        self._sign, self._study_sign = sign, study_sign
        return News(workers, died, self._log.read(), study)

    def _read_study(self) -> StudyNews:
        size = (_changed(self.run.journal) or (0, 0))[1]
        if size < self._size:  # a line that was cut in the middle was taken back
            self._study = None
        self._size = size
        if self._study is None and self.run.begun:
            self._study = self.run.read_study()
        records, wanted = self.run.progress(self._study)
        new = [record for record in records if record.trial not in self._known]
        self._known |= {record.trial for record in new}
        model = self.run.model()
        under_way = self.run.under_way(self._study)
        return StudyNews(new, wanted, self.run.base_scores() or {}, model[0].layers if model else 0, under_way)


class Follower:
    """Keeps the run that is shown up to date while other processes work on it, and waits for their answers."""

    def __init__(self, state: State, tell: Tell, changed: Callable[[], None]) -> None:
        self._state, self._tell, self._changed = state, tell, changed
        self._reader: Reader | None = None
        self._run: Run | None = None
        self._mustered = 0.0

    async def keep_up(self) -> None:
        """Look again and again, until the app ends."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._look()
                await self._settle()
            except Exception:  # whatever is wrong with the folder at this moment, the next look tells
                logger.exception("%s could not be followed", self._state.shown)
                self._reader = None
                await asyncio.sleep(PATIENCE)

    async def _look(self) -> None:
        state = self._state
        path = state.shown
        if path is None or path == state.running:
            self._reader = None
            if path is not None:
                await self._muster(path)
            return
        if self._reader is None or self._reader.run.path != path:
            self._reader = Reader(path)
        began = time.monotonic()
        news = await asyncio.to_thread(self._reader.look)
        spent = time.monotonic() - began
        study = state.study
        if news is not None and study is not None and study.path == path != state.running and take(news, study):
            self._changed()
        # A long journal takes long to read: the reading must stay a small part of the time.
        await asyncio.sleep(min(PATIENCE, RESTS * spent) if news is not None else 0)

    async def _muster(self, path: Path) -> None:
        """See who else works on the run that this process works on."""
        study = self._state.studies.get(path)
        if study is None or time.monotonic() - self._mustered < MUSTER:
            return
        self._mustered = time.monotonic()
        crew = await asyncio.to_thread(read_workers, path)
        if self._run is None or self._run.path != path:
            self._run = Run(path)
        under_way = await asyncio.to_thread(self._run.under_way)
        told = crew != study.crew and max(len(crew), len(study.crew)) > 1
        if told or under_way.keys() != study.under_way.keys():
            study.crew, study.under_way = crew, under_way
            self._changed()

    async def _settle(self) -> None:
        for waiting in [*self._state.waiting]:
            answer = await asyncio.to_thread(_answer, waiting)
            if answer is None:
                continue
            text, level, over = answer
            if over:
                self._state.waiting.remove(waiting)
            waiting.complained = True
            self._tell(text, level)
            self._changed()


def take(news: News, study: StudyView) -> bool:
    """Take what is new in a run's folder into its view; returns whether that is more than progress and memory."""
    owners = [[worker.owner for worker in some] for some in (study.workers, study.died)]
    study.workers, study.died = news.workers, news.died
    study.crew = (*news.workers, *news.died)
    if news.study is not None:
        study.wanted, study.base = news.study.wanted, news.study.base or study.base
        study.layers = news.study.layers or study.layers
        study.under_way = news.study.under_way
        for record in news.study.records:
            if record.trial not in study.records:
                study.add(record)
    followed = study.followed = study.followed or Followed()
    for logged in news.logged:
        match logged.event:
            case RunOpened() if len(news.workers) < 2:  # and not one who comes to help
                study.phases = []
            case PhaseFinished(phase=phase) if all(done.phase != phase for done in study.phases):
                study.phases.append(logged.event)
        if (words := told(logged.event)) is not None:
            followed.log.append(LogLine(logged.time, words[1], words[0]))
    if news.workers:
        study.own = False
    _take_live(news.workers, study, followed)
    turned = owners != [[worker.owner for worker in some] for some in (study.workers, study.died)]
    return turned or news.study is not None or bool(news.logged)


def _take_live(workers: tuple[Worker, ...], study: StudyView, followed: Followed) -> None:
    told_by = [worker for worker in workers if worker.live is not None]
    live = told_by[0].live if told_by else None
    study.current = max((one.live.trial for one in told_by if one.live and one.live.trial), default=None)
    if live is None:
        followed.activity, followed.memory = None, ()
        return
    now = time.monotonic()
    followed.activity = Activity(
        "study", now, live.phase, live.detail, live.unit, live.done, live.total, phase_began=now - live.spent
    )
    followed.memory = live.memory
    if now - followed.gauged >= GAUGE:
        followed.gauged = now
        for reading in live.memory:
            followed.history.setdefault(reading.device, deque(maxlen=HISTORY)).append(reading.fraction)


def _answer(waiting: Waiting) -> tuple[str, Level, bool] | None:
    """What is to be told of a request, how grave it is, and whether it is over; None while there is nothing to tell."""
    asked = waiting.asked
    name, trials = f"P{asked.worker.place.removeprefix('p')}", asked.request.trials
    if asked.taken:
        if asked.request.kind == "trials" and asked.worker_now() is None:
            return (
                f"{name} has ended meanwhile; the study is to have {trials} trials, p goes on to them.",
                "warning",
                True,
            )
        does = {
            "pause": "pauses the study",
            "end": f"ends the study with {trials} trials, the one under way being the last",
            "trials": f"goes on to {trials} trials",
        }
        return f"{name} has answered: it {does[asked.request.kind]}.", "information", True
    now = asked.worker_now()
    if now is None:
        asked.withdraw()
        return f"{name} is gone, and nobody answers.", "warning", True
    if time.monotonic() - waiting.since > ANSWER and not waiting.complained:
        heard = duration(max(0.0, time.time() - now.heard))
        return (
            f"Nobody has answered for {ANSWER:.0f} s. {name} is there, and was last heard of {heard} ago; it finds "
            "the request when it comes to it.",
            "warning",
            False,
        )
    return None


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
