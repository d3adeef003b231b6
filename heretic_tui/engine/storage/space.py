"""The search space, and what of a trial's scores the sampler sees."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from heretic_tui.engine.parameters import EMBEDDINGS, MLP, AblationParameters, Kernel
from heretic_tui.engine.records import Score
from heretic_tui.profile.schema import KLDivergenceSpec, Profile, RefusalsSpec
from heretic_tui.profile.values import MOST_DIMENSIONS

if TYPE_CHECKING:
    import optuna

SUBSPACE = "subspace_dimensions"
"""Our own parameter and attribute: in a journal only where a profile asks for subspaces."""


def suggest(
    trial: "optuna.trial.Trial",
    components: Sequence[str],
    last: int,
    dimensions: int | str = 1,
    layers: Sequence[int] | None = None,
) -> AblationParameters:
    """Sample one point of the search space; `last` is the index of the last decoder layer.

    Where only some `layers` are ablated, the peak is sought among them. The direction index is sampled whatever the
    scope, so that a multivariate sampler always sees one space. A weight of exactly 0 is reachable for the MLP and for
    the embeddings: the range begins below 0 and is clamped there. The dimensions of the subspace are part of the space
    only where they are to be searched.
    """
    scope = trial.suggest_categorical("direction_scope", ["global", "per layer"])
    index = trial.suggest_float("direction_index", 0.4 * last, 0.9 * last)
    peaks = (float(min(layers)), float(max(layers))) if layers else (0.6 * last, 1.0 * last)
    kernels = {}
    for component in components:
        low = -0.25 if component in {MLP, EMBEDDINGS} else 0.8
        peak = max(0.0, trial.suggest_float(f"{component}.max_weight", low, 1.5))
        if component == EMBEDDINGS:
            kernels[component] = Kernel.of_embeddings(peak)
            continue
        position = trial.suggest_float(f"{component}.max_weight_position", *peaks)
        fraction = trial.suggest_float(f"{component}.min_weight", 0.0, 1.0)
        distance = trial.suggest_float(f"{component}.min_weight_distance", 1.0, max(1.0, 0.6 * last))
        kernels[component] = Kernel(peak, position, fraction * peak, distance)
    if not isinstance(dimensions, int):
        dimensions = trial.suggest_int(SUBSPACE, 1, MOST_DIMENSIONS)
    return AblationParameters(index if scope == "global" else None, kernels, dimensions)


def objective_values(profile: Profile, scores: Mapping[str, Score], base: Mapping[str, Score]) -> list[float]:
    """What the sampler sees, in the order of the profile's objectives.

    In the 1.4.0 form the refusals count against the original model's, and below the KL target the divergence
    gives way to a figure made of the refusals, so that trials that change nothing are not sought.
    """
    target = profile.sampler_objective
    if target is None:
        return [scores[spec.name].value for spec in profile.objectives]
    refusals = next(spec.name for spec in profile.objectives if isinstance(spec, RefusalsSpec))
    remaining = (scores[refusals].count or 0) / max(1, base[refusals].count or 0)
    values = []
    for spec in profile.objectives:
        if isinstance(spec, KLDivergenceSpec):
            divergence = scores[spec.name].value
            near = divergence < target.target
            values.append((remaining * target.target if near else divergence) / target.scale)
        else:
            values.append(remaining)
    return values
