"""The directions of a model as a profile wants them: how vectors are taken, how often, and from which layers."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from heretic_tui.engine.ablation.directions import Directions, centre, independent, measure_directions, next_directions
from heretic_tui.engine.ablation.residuals import Moments, residual_moments
from heretic_tui.engine.ablation.updates import fully_ablated
from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.decoding.batching import one_at_a_time
from heretic_tui.engine.events import Note, PhaseFinished
from heretic_tui.engine.inspection.capture import capture_sets
from heretic_tui.engine.inspection.geometry import LayerGeometry, cosine, quick_geometry
from heretic_tui.engine.inspection.layer_rule import rank_layers
from heretic_tui.engine.inspection.residual_sets import ResidualSets, significant
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.prompts.template_tail import template_tail
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.values import MOST_DIMENSIONS

Texts = tuple[Sequence[str], Sequence[str]]
"""The good and the bad prompts as the model sees them."""


@dataclass(frozen=True, slots=True)
class Centres:
    """Both sets' centres, float64 `(layers + 1, d_model)`; where a subspace is wanted, what ranks the layers."""

    good: Tensor
    bad: Tensor
    rows: tuple[LayerGeometry, ...]


def residual_sets(model: LanguageModel, texts: Texts, profile: Profile) -> Job[ResidualSets]:
    """Every prompt's residual vectors, taken as the profile wants it."""
    with taking(model, profile):
        return (yield from capture_sets(model, *texts, profile.winsorization_quantile, profile.token_position))


def find_directions(
    model: LanguageModel, texts: Texts, profile: Profile, sets: ResidualSets | None = None
) -> Job[Directions]:
    """Measure the directions between both sets' centres, in as many passes as the profile asks for.

    `sets` are the vectors, where they have been taken. However a pass ends, the weights are what they were.
    """
    yield from _check_position(model, texts, profile)
    first = yield from _centres(model, texts, profile, sets)
    projected = profile.orthogonalize_direction
    directions = measure_directions(first.good, first.bad, projected=projected)
    if profile.subspace_dimensions != 1:
        directions = yield from _ordered(directions, first.rows, profile.subspace_dimensions)
    for number in range(2, profile.passes + 1):
        began = time.perf_counter()
        with fully_ablated(model, directions, gain_aware=profile.gain_aware):
            again = yield from _centres(model, texts, profile)
        more = next_directions(directions, again.good, again.bad, projected=projected)
        found = int(more[1:].any(dim=1).sum())
        yield PhaseFinished(f"pass {number}", time.perf_counter() - began, f"another direction in {found} layers")
        if not found:
            break
        further = more[None] if directions.further is None else torch.cat([directions.further, more[None]])
        directions = replace(directions, further=further)
    return directions


def taking(model: LanguageModel, profile: Profile) -> AbstractContextManager[None]:
    """Holds the model at the batch size that the profile wants vectors to be taken at."""
    return one_at_a_time(model) if profile.sequential_extraction else nullcontext()


def _check_position(model: LanguageModel, texts: Texts, profile: Profile) -> Job[None]:
    if profile.token_position == -1:
        return
    tail = template_tail(model, [Prompt("", profile.system_prompt)], [*texts[0], *texts[1]])
    if len(tail) < -profile.token_position:
        yield Note(
            f"token_position = {profile.token_position} lies before the template's end ({''.join(tail)!r}, {len(tail)} "
            "tokens): residual vectors are taken at words of the prompts.",
            "warning",
        )


def _centres(model: LanguageModel, texts: Texts, profile: Profile, sets: ResidualSets | None = None) -> Job[Centres]:
    if sets is None and profile.direction_estimator == "geometric_median":
        sets = yield from residual_sets(model, texts, profile)
    if sets is not None:
        return (yield from in_background(partial(_of_sets, sets, profile)))
    options = profile.winsorization_quantile, profile.token_position
    with taking(model, profile):
        good = yield from residual_moments(model, texts[0], "residuals of good prompts", *options)
        bad = yield from residual_moments(model, texts[1], "residuals of bad prompts", *options)
    return Centres(good.mean, bad.mean, tuple(_rows(good, bad)) if profile.subspace_dimensions != 1 else ())


def _of_sets(sets: ResidualSets, profile: Profile, _: object) -> Centres:
    good, bad = (centre(torch.from_numpy(vectors), profile.direction_estimator) for vectors in (sets.good, sets.bad))
    return Centres(good, bad, quick_geometry(sets).rows if profile.subspace_dimensions != 1 else ())


def _rows(good: Moments, bad: Moments) -> Iterable[LayerGeometry]:
    """Of the geometry table what ranks layers, from moments alone."""
    for row, (g, b) in enumerate(zip(good.mean.numpy(), bad.mean.numpy(), strict=True)):
        (good_mean, good_max), (bad_mean, bad_max) = _variances(good, row), _variances(bad, row)
        yield LayerGeometry(
            row,
            cos_g_b=cosine(g, b),
            norm_r=float(np.linalg.norm(significant(g, b))),
            good_mean_variance=good_mean,
            bad_mean_variance=bad_mean,
            good_max_variance=good_max,
            bad_max_variance=bad_max,
        )


def _variances(moments: Moments, row: int) -> tuple[float | None, float | None]:
    """The mean and the largest of the features' variances."""
    if moments.variance is None:
        return None, None
    return float(moments.variance[row].mean()), float(moments.variance[row].max())


def _ordered(directions: Directions, rows: Sequence[LayerGeometry], dimensions: int | str) -> Job[Directions]:
    """Add the layers that subspaces take directions from, and say which they are."""
    ranked = rank_layers(rows)
    kept = [ranked[place] for place in independent(directions.vectors[[layer + 1 for layer in ranked]])]
    wanted = dimensions if isinstance(dimensions, int) else MOST_DIMENSIONS
    best = kept[:wanted]
    passed = [layer for layer in ranked[: ranked.index(best[-1])] if layer not in best] if best else []
    text = f"Subspaces are made of the directions of layers {_listed(best)}, best first."
    if passed:
        text += f" Passed over, since they lie nearly within those of better layers: {_listed(passed)}."
    few = len(kept) < wanted
    if few:
        text += f" There are no more than these {len(kept)}, so no subspace has more dimensions."
    yield Note(text, "warning" if few else "info")
    return replace(directions, order=torch.tensor(kept))


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
