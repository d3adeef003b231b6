"""How alike the layers' directions are, and a verdict in words with its evidence: one direction, or a subspace.

Directions are compared without their sign: taking a direction out does not ask which way it points.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["one", "subspace", "none", "unknown"]

ALIKE = 0.8
"""Cosine with a block's own axis from which a layer's direction belongs to the block."""
TO_THE_END, ANYWHERE = 0.4, 0.6
"""Share of the layers that a block must hold for the verdict of one direction: if it lasts to the end, and if not."""
HELD = 0.9
"""Share of the common part of the spectrum that a subspace holds."""
COMMON = 0.5
"""Share of the whole spectrum that must be common for there to be a subspace at all."""
FEWEST = 4
"""Layers below which nothing can be said."""
LAST = 2
"""Layers at the end that may turn away without the block ending there: the last ones turn to the vocabulary."""


@dataclass(frozen=True)
class Similarity:
    """Cosines of the layers' directions `(rows, rows)`, NaN for a row without one, and what they amount to.

    `spectrum` holds each singular value's share of the summed squares over the decoder layers' unit directions, the
    largest first. `block` is the longest stretch of decoder layers with one direction, both ends included.
    """

    cosines: Array
    spectrum: tuple[float, ...]
    kind: Kind
    verdict: str
    evidence: tuple[str, ...]
    block: tuple[int, int] | None = None
    dimension: int | None = None

    @property
    def first_share(self) -> float | None:
        """Share of the summed squares that the first singular value holds: near 1 for one direction."""
        return self.spectrum[0] if self.spectrum else None

    @property
    def effective_dimension(self) -> float | None:
        """Participation ratio of the spectrum: 1 for one direction, n for n orthogonal ones of the same weight."""
        return 1.0 / float(np.square(self.spectrum).sum()) if self.spectrum else None


def measure_similarity(directions: Array) -> Similarity:
    """Compare directions `(layers + 1, d_model)` of any length; row 0, the embeddings', counts in the cosines only."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.where(lengths > 0, directions / lengths, np.nan)
    cosines = np.clip(units @ units.T, -1.0, 1.0)
    layers = np.flatnonzero(lengths[1:, 0] > 0)
    known = units[1:][layers]
    if len(known) < FEWEST:
        have = "no layer has a direction" if not len(known) else f"only {len(known)} layers have a direction"
        return Similarity(cosines, _shares(known), "unknown", f"too few layers to tell: {have}", ())
    spectrum = _shares(known)
    block = _longest_block(known)
    dimension, common = _dimension(np.array(spectrum) * len(known), known.shape[1])
    participation = 1.0 / float(np.square(spectrum).sum())
    evidence = [
        f"The first singular value holds {spectrum[0]:.0%} of the summed squares over {len(known)} layers; "
        f"the effective dimension is {participation:.1f}.",
    ]
    if block is not None:
        evidence.append(_about_block(known, block, layers))
    kind: Kind
    if block is not None and block.size >= max(3, len(known) * (TO_THE_END if block.lasts(known) else ANYWHERE)):
        kind, dimension, verdict = "one", 1, f"one direction, {_where(block, known, layers)}"
    elif dimension > len(known) // 2 or common < COMMON:
        kind, verdict = "none", "no common direction: every layer has its own"
        evidence.append(f"Only {common:.0%} of the summed squares stand out from what unrelated directions leave.")
    else:
        evidence.append(f"The first {dimension} singular values together hold {sum(spectrum[:dimension]):.0%}.")
        kind = "subspace" if dimension > 1 else "one"
        verdict = f"a subspace of about {dimension}" if dimension > 1 else "one direction, in scattered layers"
    return Similarity(
        cosines,
        spectrum,
        kind,
        verdict,
        tuple(evidence),
        None if block is None else (int(layers[block.first]), int(layers[block.last])),
        None if kind == "none" else dimension,
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive rows with one direction; the least cosine of any of them with their axis."""

    first: int
    last: int
    agreement: float

    @property
    def size(self) -> int:
        """How many rows it has."""
        return self.last - self.first + 1

    def lasts(self, units: Array) -> bool:
        """Whether it lasts to the end of the model."""
        return self.last >= len(units) - 1 - LAST


def _longest_block(units: Array) -> _Block | None:
    """The longest stretch of rows with one direction, the latest of equals."""
    gram = units @ units.T
    for size in range(len(units), 1, -1):
        for first in range(len(units) - size, -1, -1):
            inside = slice(first, first + size)
            agreement = _agreement(gram[inside, inside], units.shape[1])
            if agreement is not None:
                return _Block(first, first + size - 1, agreement)
    return None


def _agreement(gram: Array, width: int) -> float | None:
    """The least cosine of rows with the axis they share most of; None where they do not have one direction.

    Each must lie within `ALIKE` of the axis, and the axis must hold `HELD` of what is not each row's own noise:
    directions that turn steadily from one to another are not one.
    """
    if np.abs(gram).min() < 2 * ALIKE**2 - 1:  # two that are further apart cannot both be near any axis
        return None
    values, vectors = np.linalg.eigh(gram)
    least = float(np.abs(vectors[:, -1]).min() * np.sqrt(values[-1]))
    noise = _noise(values[::-1], width)
    held = (values[-1] - noise) / (values.sum() - noise * len(values)) if noise < 1 else 0.0
    return least if least >= ALIKE and held >= HELD else None


def _about_block(units: Array, block: _Block, layers: NDArray[np.intp]) -> str:
    inside = units[block.first : block.last + 1]
    text = (
        f"The longest stretch with one direction is layers {layers[block.first]} to {layers[block.last]}: "
        f"each has a cosine of {block.agreement:.2f} or more with their common axis"
    )
    outside = np.delete(units, np.s_[block.first : block.last + 1], axis=0)
    if len(outside):
        axis = np.linalg.svd(inside, full_matrices=False)[2][0]
        text += f", the other layers {np.abs(outside @ axis).mean():.2f} on average"
    return f"{text}."


def _where(block: _Block, units: Array, layers: NDArray[np.intp]) -> str:
    if block.size == len(layers):
        return "the same at every layer"
    if block.lasts(units):
        return f"stable from layer {layers[block.first]} on"
    return f"in layers {layers[block.first]} to {layers[block.last]}"


def _shares(units: Array) -> tuple[float, ...]:
    if not len(units):
        return ()
    squares = np.square(np.linalg.svd(units, compute_uv=False))
    return tuple(float(share) for share in squares / squares.sum())


def _dimension(squares: Array, width: int) -> tuple[int, float]:
    """How many dimensions the layers have in common, and which share of the summed squares is common to them.

    `squares` are the squared singular values, the largest first.
    """
    floor = _noise(squares, width) * _unrelated(len(squares), width)[0]
    common = np.clip(squares - floor, 0.0, None)
    total = float(common.sum())
    if not total:
        return len(squares), 0.0
    return int(np.searchsorted(np.cumsum(common) / total, HELD) + 1), total / float(squares.sum())


def _noise(squares: Array, width: int) -> float:
    """Share of each row that is its own noise, read off the lower half of the squared singular values.

    Rows that each carry noise of their own leave a floor under the spectrum, of the shape that unrelated ones have.
    """
    half = len(squares) // 2
    return float(np.median(squares[half:] / _unrelated(len(squares), width)[half:]))


@lru_cache(maxsize=256)
def _unrelated(rows: int, width: int) -> Array:
    """Squared singular values of as many unrelated unit vectors, the largest first: means over a few random draws."""
    draws = np.random.default_rng(0)
    found = []
    for _ in range(8):
        vectors = draws.normal(size=(rows, width))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append(np.linalg.eigvalsh(vectors @ vectors.T)[::-1])
    mean: Array = np.mean(found, axis=0).clip(1e-12)
    return mean
