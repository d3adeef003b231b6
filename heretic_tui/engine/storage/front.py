"""The Pareto front of a study, and one trial on it to begin with."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from heretic_tui.engine.records import Score, TrialRecord


class Objective(Protocol):
    """A score that the search optimizes."""

    @property
    def name(self) -> str:
        """The score's name."""
        ...

    @property
    def label(self) -> str:
        """The score's name for people."""
        ...

    @property
    def optimization(self) -> str:
        """`minimize` or `maximize`."""
        ...


def point(record: TrialRecord, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """A trial's scores, turned so that less is better."""
    return point_of(record.scores, objectives)


def point_of(scores: Mapping[str, Score], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Scores, turned so that less is better."""
    return tuple(
        scores[objective.name].value * (-1 if objective.optimization == "maximize" else 1) for objective in objectives
    )


def pareto_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """The trials that no other beats in every objective, best first objective first; of equals the earliest.

    A trial one of whose scores is not a number, as after an overflow, is not on the front unless all are like that. One
    that ended early is not on it and beats no other: its scores are bounds.
    """
    records = [record for record in records if not record.ended_early]
    points = {record.trial: point(record, objectives) for record in records}
    scored = [record for record in records if not any(math.isnan(value) for value in points[record.trial])]
    scored = scored or list(records)
    # In lexicographic order a trial can only be beaten by one before it, and by one that is on the front itself.
    front: list[TrialRecord] = []
    for record in sorted(scored, key=lambda record: (points[record.trial], record.trial)):
        own = points[record.trial]
        if not any(all(a <= b for a, b in zip(points[other.trial], own, strict=True)) for other in front):
            front.append(record)
    return front


def hypervolume(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], reference: tuple[float, float]
) -> float:
    """Area that the trials dominate up to a reference point, for two objectives: more is better.

    The reference lies where `point` puts trials, less being better, and is worse than what is to count: a trial that
    does not beat it in both adds nothing. Exact, by a sweep over the front. Raises `ValueError` for other than two.
    """
    if len(objectives) != 2:
        raise ValueError(f"the hypervolume of {len(objectives)} objectives is not computed, only that of two")
    right, top = reference
    area = 0.0
    points = [point(record, objectives) for record in records]
    for x, y in sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)):
        if x < right and y < top:
            area += (right - x) * (top - y)
            top = y  # what lies above is counted: from here on only the strip below is new
    return area


def best_compromise(front: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord:
    """The trial of the front that lies nearest to the best of everything.

    A percent of responses weighs as much as a hundredth of a nat of KL divergence. The scale is absolute: on a front
    on which no trial does any harm, the divergence has no say.
    """
    points = {record.trial: point(record, objectives) for record in front}
    best = [min(values) for values in zip(*points.values(), strict=True)]
    return min(front, key=lambda record: math.dist(points[record.trial], best))
