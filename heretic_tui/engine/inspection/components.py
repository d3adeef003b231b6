"""Principal components of the residual vectors of a layer: the directions along which prompts differ most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import Direction, direction, layer_name
from heretic_tui.engine.inspection.residual_sets import ResidualSets, Vectors

MOST = 32
"""How many components are kept; what follows explains next to nothing."""


@dataclass(frozen=True, eq=False)
class Components:
    """Orthonormal `vectors` `(k, d_model)`, float32, and the `shares` `(k,)` of the variance that each explains."""

    vectors: Vectors
    shares: NDArray[np.float64]


def principal_components(vectors: NDArray[Any], most: int = MOST) -> Components:
    """Components of `(n, d_model)` after the mean is taken off, most variance first, computed in float64.

    Raises `EngineError` where there is no variance to explain.
    """
    if len(vectors) < 2:
        raise EngineError("One residual vector has no principal components.", "Measure more prompts.")
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    variance = np.square(centred).sum()
    if not np.isfinite(variance):
        raise EngineError(
            "The residual vectors are not all finite numbers.",
            'The dtype overflows on this model: measure again with dtypes = ["bfloat16", "float32"].',
        )
    if variance == 0:
        raise EngineError("All residual vectors of this layer are the same, so there is nothing to tell apart.")
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    # Centring costs one rank; a component without variance points anywhere.
    kept = min(most, int((singular > singular[0] * 1e-7).sum()))
    return Components(right[:kept].astype(np.float32), (np.square(singular) / variance)[:kept])


def components_of(sets: ResidualSets, row: int, most: int = MOST) -> Components:
    """Components of both sets together at one row; each points to where the bad prompts' mean lies."""
    found = principal_components(np.concatenate((sets.good[:, row], sets.bad[:, row])), most)
    towards = found.vectors @ sets.differences[row]
    return Components(found.vectors * np.where(towards < 0, -1, 1).astype(np.float32)[:, None], found.shares)


def component(found: Components, row: int, number: int, *, model: str = "", run: str = "") -> Direction:
    """Component `number`, counted from 1. Raises `EngineError` where there is none."""
    if not 1 <= number <= len(found.shares):
        raise EngineError(
            f"There is no component {number} of layer {layer_name(row)}.",
            f"Its components are numbered 1 to {len(found.shares)}.",
        )
    share = found.shares[number - 1]
    return direction(
        f"component {number} of layer {layer_name(row)}",
        found.vectors[number - 1],
        made=f"principal component {number} of both prompt sets' residual vectors after layer {layer_name(row)}, "
        f"centred; explains {share:.1%} of the variance",
        row=row,
        model=model,
        run=run,
    )
