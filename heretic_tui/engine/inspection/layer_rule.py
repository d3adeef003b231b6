"""The layers that a stated rule would pick to take a direction from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heretic_tui.engine.inspection.geometry import Geometry, LayerGeometry

WEIGHTS = (4, 2, 1)
"""Of the cosine, the mean and the largest variance: each counts for more than those after it together."""
FLAT = 0.005
"""Cosines that differ by less from layer to layer tell no layer from another."""
PICKS = 3
RULE = (
    "A good layer has a low cosine of the two means, then a low mean variance, then a low largest variance. Each is "
    "scaled over the layers from 0 (lowest) to 1 (highest), the variances on a logarithmic scale since they grow from "
    "layer to layer; they count 4 : 2 : 1, and the layers with the lowest sums are picked."
)
COSINES_ONLY = "With a single prompt in a set there are no variances: the layers with the lowest cosines are picked."


@dataclass(frozen=True, slots=True)
class Picks:
    """Rows of the geometry table, best first, the rule that picked them, and every row's sum (None outside the rule).

    `reason` says why no layer is picked; empty where some are.
    """

    rows: tuple[int, ...]
    rule: str
    scores: tuple[float | None, ...]
    reason: str = ""

    @property
    def layers(self) -> tuple[int, ...]:
        """The picked decoder layers, counted from 0, best first."""
        return tuple(row - 1 for row in self.rows)


def pick_layers(geometry: Geometry) -> Picks:
    """Pick up to three layers, or a fourth of the layers of a small model; never the embeddings."""
    layers = _ranked(geometry.rows)
    scores: list[float | None] = [None] * len(geometry.rows)
    if not layers:
        return Picks((), RULE, tuple(scores), "The two sets do not differ at any layer.")
    cosines = _cosines(layers)
    if len(layers) > 1 and max(cosines) - min(cosines) < FLAT:
        reason = f"The cosine of the means is {cosines[0]:.3f} at every layer: none is better than the others."
        return Picks((), RULE, tuple(scores), reason)
    sums, with_variances = _sums(layers)
    for row, total in zip(layers, sums, strict=True):
        scores[row.row] = total
    count = max(1, min(PICKS, len(layers) // 4))
    rule = RULE if with_variances else f"{RULE} {COSINES_ONLY}"
    return Picks(tuple(row.row for row in _by_sum(layers, sums)[:count]), rule, tuple(scores))


def rank_layers(rows: Sequence[LayerGeometry]) -> list[int]:
    """All decoder layers at which the two sets differ, counted from 0 and best first by the rule."""
    layers = _ranked(rows)
    return [row.row - 1 for row in _by_sum(layers, _sums(layers)[0])] if layers else []


def _ranked(rows: Sequence[LayerGeometry]) -> list[LayerGeometry]:
    return [row for row in rows if row.row and row.cos_g_b is not None and row.norm_r]


def _cosines(layers: Sequence[LayerGeometry]) -> list[float]:
    return [float(row.cos_g_b or 0.0) for row in layers]


def _sums(layers: Sequence[LayerGeometry]) -> tuple[list[float], bool]:
    """The rule's sum for each layer, and whether the variances are in it."""
    parts = [_scaled(_cosines(layers))]
    means = _logarithms(layers, "mean_variance")
    largest = _logarithms(layers, "max_variance")
    if means is not None and largest is not None:
        parts += [_scaled(means), _scaled(largest)]
    sums = [sum(weight * part for weight, part in zip(WEIGHTS, row, strict=False)) for row in zip(*parts, strict=True)]
    return sums, len(parts) > 1


def _by_sum(layers: Sequence[LayerGeometry], sums: Sequence[float]) -> list[LayerGeometry]:
    return [row for _, row in sorted(zip(sums, layers, strict=True), key=lambda found: found[0])]


def _logarithms(layers: Sequence[LayerGeometry], kind: str) -> list[float] | None:
    """Logarithms of a variance, the larger one of the two sets; None where it is unknown or zero somewhere."""
    logarithms = []
    for row in layers:
        variances = [getattr(row, f"{name}_{kind}") for name in ("good", "bad")]
        if any(not variance for variance in variances):
            return None
        logarithms.append(math.log(max(variances)))
    return logarithms


def _scaled(values: Sequence[float]) -> list[float]:
    """Values from 0 for the lowest to 1 for the highest; all 0 where they are the same."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
