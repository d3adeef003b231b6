"""A study's trials as the widgets take them: rows, points, layer weights, words."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from heretic_tui.engine.ablation.style import PLAIN, AblationStyle
from heretic_tui.engine.parameters import BEFORE_LAYERS, EMBEDDINGS, Kernel
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.ownership import process_of
from heretic_tui.engine.storage.front import Objective, point
from heretic_tui.formats import duration, heading, one_line
from heretic_tui.state import StudyView
from heretic_tui.widgets.layer_weights import BARS, Weights
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.widgets.scatter import Cloud, Kind, Point

Order = Literal["front", "newest"] | int
"""What trials are sorted by: front first, newest first, or the objective of that number."""


def columns(study: StudyView) -> tuple[Column, ...]:
    """The columns of the table of trials."""
    objectives = [Column(heading(one.name), 8, "right") for one in study.objectives]
    others = [Column(heading(name), 9, "right", drop=3) for name in other_scores(study)]
    return (
        Column("#", 5, "right"),
        *objectives,
        *others,
        Column("scope", 6, "right", drop=1),
        Column("time", 7, "right", drop=2),
        Column("", 1),
        *([Column("by", 7, "right", drop=5)] if study.shared else []),
        *(Column(re.split(r"[._]", component)[0], 9, "right", drop=4) for component in components(study)),
    )


def other_scores(study: StudyView) -> list[str]:
    """Names of the scores that are measured and not optimized."""
    optimized = {one.name for one in study.objectives}
    record = next(iter(study.records.values()), None)
    return [name for name in (record.scores if record else study.base) if name not in optimized]


def components(study: StudyView) -> list[str]:
    """The components that the study's trials ablate."""
    record = next(iter(study.records.values()), None)
    return list(record.parameters.kernels) if record else []


def ordered(study: StudyView, order: Order, *, front_only: bool) -> list[TrialRecord]:
    """The trials in the order asked for."""
    if front_only:
        return list(study.front)
    newest = sorted(study.records.values(), key=lambda record: record.trial, reverse=True)
    if order == "newest":
        return newest
    if order == "front":
        on_front = study.on_front
        return [*study.front, *(record for record in newest if record.trial not in on_front)]
    objective = study.objectives[order]
    return sorted(newest, key=lambda record: point(record, [objective]))


def rows(study: StudyView, order: Order = "front", *, front_only: bool = False) -> list[Row]:
    """The table of trials, with the original model last."""
    on_front = study.on_front
    names = [*(one.name for one in study.objectives), *other_scores(study)]
    trials = ordered(study, order, front_only=front_only)
    by = study.shared
    found = [_row(record, names, record.trial in on_front, by=by) for record in trials]
    if study.base:
        empty = ("" for _ in [*range(3 + by), *components(study)])
        found.append(Row(0, ("orig", *_texts(study.base, names), *empty), "rows--dim"))
    return found


def _row(record: TrialRecord, names: Sequence[str], on_front: bool, *, by: bool) -> Row:
    cells = (
        f"{'★' if on_front else ''}{record.trial}",
        *_texts(record.scores, names),
        scope(record),
        duration(record.seconds),
        "⋯" if record.ended_early else "",
        *([one_line(process_of(record.worker))] if by else []),
        *(_peak(component, kernel) for component, kernel in record.parameters.kernels.items()),
    )
    return Row(record.trial, cells, "rows--mark" if on_front else "rows--dim" if record.ended_early else "")


def _peak(component: str, kernel: Kernel) -> str:
    where = "" if component == EMBEDDINGS else f"@{kernel.max_weight_position:.1f}"
    return f"{kernel.max_weight:.2f}{where}"


def _texts(scores: Mapping[str, Score], names: Sequence[str]) -> list[str]:
    return [scores[name].text if name in scores else "-" for name in names]


def scope(record: TrialRecord) -> str:
    """Where the trial's direction comes from: a layer, or every layer its own; and how many join it, if any."""
    index, more = record.parameters.direction_index, record.parameters.subspace_dimensions - 1
    return f"{'each' if index is None else f'{index:.1f}'}{f'+{more}' if more else ''}"


def order_name(study: StudyView, order: Order) -> str:
    """The order in words."""
    if isinstance(order, int):
        return f"by {heading(study.objectives[order].name)}"
    return {"front": "front first", "newest": "newest first"}[order]


def next_order(study: StudyView, order: Order) -> Order:
    """The order after this one."""
    orders: list[Order] = ["front", "newest", *range(len(study.objectives))]
    return orders[(orders.index(order) + 1) % len(orders)] if order in orders else "front"


def cloud(study: StudyView, logarithmic: bool | None) -> Cloud:
    """The scatter of a study: its second objective over its first, or a single one over the trials' numbers."""
    if not study.objectives or not (study.records or study.base):
        return Cloud()
    up = study.objectives[0]
    across = study.objectives[1] if len(study.objectives) > 1 else None
    on_front = study.on_front
    points = [
        Point(
            record.trial,
            _figure(record.scores[across.name]) if across else float(record.trial),
            _figure(record.scores[up.name]),
            _kind(record, on_front),
        )
        for record in study.records.values()
    ]
    if study.base and all(one is None or one.name in study.base for one in (up, across)):
        x = _figure(study.base[across.name]) if across else 0.0
        points.append(Point(0, x, _figure(study.base[up.name]), "original"))
    points = [point for point in points if not (math.isnan(point.x) or math.isnan(point.y))]
    signs = tuple(1 if one is not None and one.optimization == "maximize" else -1 for one in (across, up))
    titles = (_title(study, across) if across else "trial", _title(study, up))
    return Cloud(tuple(points), *titles, (signs[0], signs[1]), logarithmic)


def _figure(score: Score) -> float:
    return float(score.count) if score.count is not None else score.value


def _title(study: StudyView, objective: Objective) -> str:
    name = heading(objective.name)
    return f"{name}, nats" if name == "KL" else name


def _kind(record: TrialRecord, on_front: set[int]) -> Kind:
    if record.trial in on_front:
        return "front"
    return "early" if record.ended_early else "trial"


def weights(record: TrialRecord, layers: int, style: AblationStyle = PLAIN) -> tuple[Weights, ...]:
    """The ablation weights that a trial gives to every layer, 0 outside the study's layers; one for the embeddings."""
    return tuple(
        Weights(
            component,
            tuple(style.weight(record.parameters, component, layer) for layer in _places(component, layers)),
            _kernel_words(component, kernel),
        )
        for component, kernel in record.parameters.kernels.items()
    )


def _places(component: str, layers: int) -> Iterable[int]:
    return (BEFORE_LAYERS,) if component == EMBEDDINGS else range(layers)


def _kernel_words(component: str, kernel: Kernel) -> str:
    if component == EMBEDDINGS:
        return f"{kernel.max_weight:.2f}"
    return (
        f"{kernel.max_weight:.2f} at {kernel.max_weight_position:.1f}, to {kernel.min_weight:.2f} "
        f"±{kernel.min_weight_distance:.1f}"
    )


def words(study: StudyView, trial: int | None) -> str:
    """What is said of the selected trial in a few words."""
    if trial == 0:
        return "the model as it is, nothing ablated"
    record = study.records.get(trial) if trial else None
    if record is None:
        return ""
    index = record.parameters.direction_index
    where = "every layer its own direction" if index is None else f"one direction, of layer {index:.1f}"
    if record.parameters.subspace_dimensions > 1:
        where += f", and {record.parameters.subspace_dimensions - 1} of the best layers"
    early = ", ended early: its scores are bounds" if record.ended_early else ""
    lost = sum(score.degenerate for score in record.scores.values())
    broken = f", {lost} responses are no language" if lost else ""
    edited = f"; {study.style.words}" if study.style.words else ""
    return f"{where}{early}{broken}{edited}"


def headline(study: StudyView) -> str:
    """The study's best value and hypervolume, for a title line."""
    parts = []
    if study.front:
        first = study.objectives[0]
        parts.append(f"best {heading(first.name)} {study.front[0].scores[first.name].text}")
        if study.volumes:
            parts.append(f"volume {study.volumes[-1]:.3f}")
    return " · ".join(parts)


def volume_history(study: StudyView, width: int) -> str:
    """How the hypervolume grew with the trials, as a row of at most `width` bars."""
    count = len(study.volumes)
    places = sorted({max(1, round(count * (index + 1) / width)) - 1 for index in range(width)}) if count else []
    return "".join(BARS[max(1, min(8, round(study.volumes[place] * 8)))] for place in places)
