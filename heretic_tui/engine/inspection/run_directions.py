"""A run's directions without torch: both sets' centres, and the unit vectors between them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import damaged
from heretic_tui.engine.inspection.residual_sets import Vectors


@dataclass(frozen=True, eq=False)
class RunDirections:
    """Centres of both sets and the directions between them, each `(layers + 1, d_model)`, as a run's folder has them.

    Row 0 belongs to the embeddings, row l + 1 to the stream after decoder layer l; a direction may be zero.
    """

    good: Vectors
    bad: Vectors
    vectors: Vectors

    @property
    def distances(self) -> NDArray[np.float64]:
        """How far the two centres are apart at each row."""
        return _lengths(self.bad.astype(np.float64) - self.good)

    @property
    def lengths(self) -> NDArray[np.float64]:
        """How long the good centre is at each row."""
        return _lengths(self.good)

    @property
    def cosines(self) -> NDArray[np.float64]:
        """Cosine of the two centres at each row; 0 where one of them is zero."""
        return cosines(self.good, self.bad)


def load_run_directions(path: Path) -> RunDirections:
    """Read `directions.safetensors`. Raises `EngineError` where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        good, bad, vectors = (arrays[name] for name in ("good", "bad", "vectors"))
        if vectors.ndim != 2 or {good.shape, bad.shape} != {vectors.shape}:
            raise ValueError("its parts do not fit together")
        return RunDirections(good, bad, vectors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error


def cosines(some: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each row with the row of the same number, both `(rows, d_model)`; 0 where one of them is zero."""
    products = np.einsum("rd,rd->r", some.astype(np.float64), others.astype(np.float64))
    lengths = _lengths(some) * _lengths(others)
    found: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return found


def _lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths
