"""The workers of a study as the screen shows them: who, where, how many trials, how fast, when last heard of."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heretic_tui.engine.runs.ownership import place_of
from heretic_tui.formats import duration
from heretic_tui.state import RECENT_TRIALS, StudyView

if TYPE_CHECKING:
    from heretic_tui.engine.runs.live import Worker

HEADING = ("process", "on", "trials", "each", "heard of")
MOST = 8
"""Workers that are listed; of more, the first ones are, and how many more there are."""


def lines(study: StudyView, now: float | None = None) -> list[str]:
    """A heading and a line for each worker, the living first; nothing for a study that one process worked on alone."""
    if not study.shared:
        return []
    names = workers(study)
    there = {worker.owner.name: worker for worker in study.crew}
    now = time.time() if now is None else now
    alive = {name for name, worker in there.items() if worker.claim.alive} | (study.under_way.keys() - there)
    ordered = sorted(names, key=lambda name: name not in alive)
    rows = [HEADING, *(_row(study, name, there.get(name), now) for name in ordered[:MOST])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING))]
    found = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return found + ([f"and {len(names) - MOST} more"] if len(names) > MOST else [])


def workers(study: StudyView) -> list[str]:
    """The names of all that work on a study or have, in the order in which they came."""
    ran = (record.worker for record in study.records.values() if record.worker)
    return list(dict.fromkeys([*(worker.owner.name for worker in study.crew), *ran, *study.under_way]))


def _row(study: StudyView, name: str, worker: "Worker | None", now: float) -> Sequence[str]:
    own = [record for record in study.records.values() if record.worker == name]
    last = own[-RECENT_TRIALS:]
    speed = duration(sum(record.seconds for record in last) / len(last)) if last else ""
    device = worker.device if worker and worker.device else next((one.device for one in own), "")
    return (place_of(name), device, str(len(own)), speed, _seen(worker, study.under_way.get(name), now))


def _seen(worker: "Worker | None", trial: int | None, now: float) -> str:
    if worker is None:  # gone, or on a machine that does not share the run's folder
        return "has left" if trial is None else f"● at #{trial}"
    silent = max(0.0, now - worker.heard)
    return f"● {silent:.0f} s ago" if worker.claim.alive else f"✗ died, {duration(silent)} ago"
