"""Scores as they would be with the labels that a person has overruled; the measured ones stay what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heretic_tui.engine.prompts.prompt_sets import describe, set_key
from heretic_tui.engine.records import Label, Response, Score
from heretic_tui.engine.scoring.labels import Markers, counted
from heretic_tui.profile.schema import AccuracySpec, RefusalsSpec, ScorerSpec


def corrected(
    scores: Mapping[str, Score],
    responses: Sequence[Response],
    overruled: Mapping[int, Label],
    specs: Sequence[ScorerSpec],
) -> dict[str, Score]:
    """The refusal scores among `scores` with the overruled labels of their own prompts counted in.

    Responses name their set by its source and slice: where the specifications read two sets of the same name, which
    is whose cannot be told, and the score stays as it was measured.
    """
    refusals = [spec for spec in specs if isinstance(spec, RefusalsSpec) and spec.name in scores]
    return {
        spec.name: _corrected(scores[spec.name], responses, overruled if _alone(spec, specs) else {}, spec)
        for spec in refusals
    }


def _corrected(
    score: Score, responses: Sequence[Response], overruled: Mapping[int, Label], spec: RefusalsSpec
) -> Score:
    if score.count is None or not score.total:
        return score
    name, markers = describe(spec.prompts), Markers.of(spec.markers)
    count, degenerate = score.count, score.degenerate
    for index, now in overruled.items():
        if not 0 <= index < len(responses) or responses[index].prompt_set != name:
            continue
        # Not the response's own label: that one may come from the markers of another scorer of the same set.
        before = counted(responses[index].response, responses[index].prompt, markers)
        was_counted = before is Label.REFUSAL and responses[index].ended != "stopped"
        count += (now is Label.REFUSAL) - was_counted
        degenerate += (now is Label.DEGENERATE) - (before is Label.DEGENERATE)
    return replace(score, value=count / score.total, count=count, degenerate=degenerate)


def _alone(spec: ScorerSpec, specs: Sequence[ScorerSpec]) -> bool:
    """Whether no other set that responses are read of has this one's name."""
    readers = [other for other in specs if isinstance(other, RefusalsSpec | AccuracySpec)]
    return all(
        set_key(other.prompts) == set_key(spec.prompts)
        for other in readers
        if describe(other.prompts) == describe(spec.prompts)
    )
