"""What is shown of a run that other processes work on: who they are, how far they are, when they were heard of."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heretic_tui.formats import ago, brief, clock, duration
from heretic_tui.screens.dialogs import Pick
from heretic_tui.state import LOG_LINES, LogLine, State, StudyView
from heretic_tui.widgets.memory_gauge import Gauge
from heretic_tui.widgets.parts_line import PartsLine
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.widgets.status_line import Status

if TYPE_CHECKING:
    from heretic_tui.engine.runs.live import Running, Worker

SILENT = 15.0
"""Seconds without a sign of life after which that is worth a warning."""


def status(study: StudyView) -> Status:
    """The top line's facts of a run that other processes work on."""
    memory = study.followed.memory if study.followed else ()
    activity = study.followed.activity if study.followed else None
    doing = f"trial {study.current}/{study.wanted}" if study.current else activity.phase if activity else "running"
    seconds = study.seconds_left()
    return Status(
        model=study.model.rstrip("/").rpartition("/")[2],
        where=", ".join(dict.fromkeys(worker.device for worker in study.workers if worker.device)),
        activity=doing,
        mood="watching",
        left=f"{duration(seconds)} left" if seconds is not None else "",
        fraction=memory[0].fraction if memory else None,
    )


def show_workers(line: PartsLine, study: StudyView | None, state: State) -> None:
    """Tell who works on a run, or died at it."""
    now = time.time()
    if study is not None and study.workers:
        heard = max(worker.heard for worker in study.workers)
        style = "$warning" if now - heard > SILENT else "$success"
        asked = [one.asked for one in state.waiting if one.asked.worker.owner in {w.owner for w in study.workers}]
        words = {"pause": "asked to pause …", "end": "asked to end the study …", "trials": "asked for trials …"}
        waiting = [words[one.request.kind] for one in asked[-1:]]
        line.show("◎", style, [*_names(study.workers), *waiting, *_times(study.workers, heard, now)])
    elif study is not None and study.died and not study.finished and not study.own:
        last = max(study.died, key=lambda worker: worker.heard)
        when = clock(last.heard, now)
        line.show("✗", "$error", [f"{last.place} died", f"last heard of {when}", "p goes on from the last trial"])
    else:
        line.show("", "", ())


def choice(running: "Running") -> Pick:
    """Asks which of the runs that other processes work on is to be watched."""
    now = time.time()
    rows = []
    for run, workers in running.items():
        names = ", ".join(worker.place for worker in workers)
        since = min((worker.owner.since for worker in workers), default=now)
        rows.append(Row(run, (run.name, names, clock(since, now))))
    columns = (Column("run", least=20), Column("worked on by", 24, drop=1), Column("since", 13))
    return Pick("Which run is to be watched?", columns, rows)


def _names(workers: Sequence["Worker"]) -> list[str]:
    if len(workers) == 1:
        return [f"{workers[0].place} works on it", workers[0].device]
    return [
        f"{len(workers)} processes work on it",
        ", ".join(worker.place.removeprefix("process ") for worker in workers),
    ]


def _times(workers: Sequence["Worker"], heard: float, now: float) -> list[str]:
    since = min(worker.owner.since for worker in workers)
    return [f"heard of {ago(now - heard)}", f"since {clock(since, now)} ({brief(now - since)})"]


def gauges_of(study: StudyView) -> tuple[Gauge, ...]:
    """The memory of the devices that a followed run is computed on."""
    followed = study.followed
    if followed is None:
        return ()
    return tuple(
        Gauge(one.device, one.used, one.total, tuple(followed.history.get(one.device, ()))) for one in followed.memory
    )


def log_of(study: StudyView | None, state: State) -> Sequence[LogLine]:
    """The session's log, together with the run's own where other processes have written that."""
    if study is None or study.own or study.followed is None:
        return state.log
    return sorted([*study.followed.log, *state.log], key=lambda line: line.time)[-LOG_LINES:]
