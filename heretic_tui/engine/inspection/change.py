"""What a trial has changed: whether the refusal direction is really gone, layer by layer, and whether another came.

Along the original model's direction of a layer, the two sets' means lie so far apart before and after; what is left of
that distance tells more than the cosine of the means, which hardly moves where the means themselves are long.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.residual_sets import ResidualSets

Array = NDArray[np.float64]

GONE, WEAKENED = 0.1, 0.5
"""Shares of the distance along the old direction: below the first it is gone, below the second it is weakened."""
NEW = 0.5
"""Share of the old distance from which a distance along something else is worth a word."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A row of the stream before and after; None where the original model has no direction there.

    `left` is the sets' distance along the old direction as a share of what it was (negative: turned round), `length`
    their whole distance likewise, `cosine` that of the old and the new direction.
    """

    row: int
    left: float | None = None
    length: float | None = None
    cosine: float | None = None

    @property
    def other(self) -> float | None:
        """The sets' distance along everything but the old direction, as a share of the old distance."""
        if self.left is None or self.length is None:
            return None
        return math.sqrt(max(0.0, self.length**2 - self.left**2))


@dataclass(frozen=True, slots=True)
class Change:
    """Every row's change, and what it amounts to in words."""

    rows: tuple[LayerChange, ...]
    verdict: str
    evidence: tuple[str, ...]


def measure_change(before: ResidualSets, after: ResidualSets) -> Change:
    """Compare the vectors of a trial with those of the original model. Raises `EngineError` where they do not fit."""
    if (before.rows, before.width) != (after.rows, after.width):
        raise EngineError(
            f"The trial's residual vectors do not fit the original model's: {after.rows - 1} layers of width "
            f"{after.width} against {before.rows - 1} of width {before.width}.",
            "Measure the trial again (m): the model has changed in between.",
        )
    old, new = before.differences, after.differences
    lengths = np.linalg.norm(old, axis=1)
    known, found = (np.linalg.norm(sets.directions, axis=1) > 0 for sets in (before, after))
    rows = []
    for row in range(before.rows):
        if not known[row]:
            rows.append(LayerChange(row))
            continue
        along = float(old[row] @ new[row] / lengths[row])
        length = float(np.linalg.norm(new[row]))
        # A difference that is rounding alone points nowhere.
        cosine = along / length if found[row] else None
        rows.append(LayerChange(row, along / float(lengths[row]), length / float(lengths[row]), cosine))
    return Change(tuple(rows), *_words(rows[1:]))


def _words(layers: list[LayerChange]) -> tuple[str, tuple[str, ...]]:
    """The verdict and its evidence, from the layers that have a direction."""
    left = [(one.row - 1, abs(one.left)) for one in layers if one.left is not None]
    if not left:
        return "there was no direction to begin with", ()
    gone = [layer for layer, share in left if share < GONE]
    weakened = [layer for layer, share in left if GONE <= share < WEAKENED]
    median = float(np.median([share for _, share in left]))
    evidence = [f"Along the old direction {median:.0%} of the two sets' distance is left in the median layer."]
    others = [(one.row - 1, one.other) for one in layers if one.other is not None and one.other > NEW]
    grown = [(layer, share) for layer, share in others if share > 1]
    if gone:
        evidence.append(f"Less than {GONE:.0%} is left {spans(gone)}.")
    if weakened:
        evidence.append(f"{GONE:.0%} to {WEAKENED:.0%} is left {spans(weakened)}.")
    if grown:
        evidence.append(
            f"The sets lie further apart than before along other directions {spans([layer for layer, _ in grown])}: "
            "look at the projection and the tokens there."
        )
    elif others:
        evidence.append(f"They still differ along other directions {spans([layer for layer, _ in others])}.")
    if len(gone) == len(left):
        verdict = "the direction is gone from every layer"
    elif gone:
        verdict = f"the direction is gone {spans(gone)}, and left elsewhere"
    elif weakened:
        verdict = f"the direction is weakened {spans(weakened)}, and gone from no layer"
    else:
        verdict = "the direction is still there"
    return verdict, tuple(evidence)


def spans(layers: list[int]) -> str:
    """Layers in words: `in layers 3 to 7, 12`."""
    found: list[list[int]] = []
    for layer in layers:
        if found and layer == found[-1][-1] + 1:
            found[-1].append(layer)
        else:
            found.append([layer])
    words = [f"{one[0]} to {one[-1]}" if len(one) > 1 else str(one[0]) for one in found]
    return f"in layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"
