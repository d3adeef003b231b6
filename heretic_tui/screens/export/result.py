"""What the export screen says of an export: how far it is, or how it ended."""

import time
from typing import Any

from textual.content import Content

from heretic_tui import exports
from heretic_tui.exports import EXPORT, ExportView
from heretic_tui.formats import duration, one_line
from heretic_tui.state import State
from heretic_tui.widgets.status_line import bar

DIM = "$foreground-muted"
DONE = ("✓ ", "$success")


def result(view: ExportView | None, state: State, current: str | None) -> Content:
    """The whole of it; `current` is the title of the engine's job."""
    if view is None:
        return Content.assemble(("x writes the trial to its place.", DIM))
    parts = [*_done(view, state), *(_under_way(view, state, current) if view.underway else _end(view, state))]
    return Content.assemble(*parts)


def _done(view: ExportView, state: State) -> list[Any]:
    parts: list[Any] = []
    if view.exported is not None:
        path = one_line(str(view.exported.to))
        parts += [DONE, exports.written(view.exported, view.seconds), (f" {path}\n", "bold")]
    if view.verified is not None:
        parts += [DONE, exports.verification(view.verified), "\n"]
    study = state.studies.get(view.run)
    record = study.records.get(view.order.trial) if study else None
    if view.evaluated is not None and record is not None:
        parts += [DONE, exports.measured(view.evaluated, record.scores), "\n"]
    return parts


def _under_way(view: ExportView, state: State, current: str | None) -> list[Any]:
    if view.stopping:
        return [("stopping …", "$warning")]
    if view.began is None:
        return [f"Waits for the engine{f' ({one_line(current)})' if current and current != EXPORT else ''} …"]
    parts: list[Any] = [("● ", "$success"), f"trial {view.order.trial} to {one_line(str(view.order.to))}\n"]
    activity = state.activity
    if activity is not None and activity.phase:
        meter = f"▕{bar(activity.fraction, 20)}▏ " if activity.fraction is not None else ""
        parts.append(f"{meter}{one_line(activity.phase)} {activity.amount}")
    else:
        parts.append("the model is loaded first …" if state.model is None else "begins …")
    return [*parts, (f"  {duration(time.monotonic() - view.began)}  esc stops", DIM)]


def _end(view: ExportView, state: State) -> list[Any]:
    failure = view.failure
    if failure is not None:
        told = state.failure is failure  # the line at the foot tells it in full
        words = "The export failed." if told else f"{one_line(failure.cause)} {one_line(failure.remedy)}"
        return [("✗ ", "$error"), words, ("  x tries again", DIM)]
    if view.exported is None:
        return [("The export was stopped; nothing was written.", "$warning")]
    python = "\n".join(one_line(line) for line in exports.in_python(view.exported).split("\n"))
    return [(python, "$secondary")]
