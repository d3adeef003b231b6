"""Residual directions: from residual vectors of two prompt sets to one unit vector per layer."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heretic_tui.engine.errors import EngineError, damaged
from heretic_tui.engine.files import bytes_of, write_atomically

NEARLY_WITHIN = 0.05
"""A direction of which less than this share lies outside the span of others (within 3 degrees) adds nothing to them."""
ROUNDING = 1e-6
"""A vector of which less than this share lies outside the span of others lies in it, but for rounding."""
LEAST_LEFT = 1e-3
"""Two centres that another pass leaves closer than this share of their first distance are the same."""


@dataclass(frozen=True)
class Directions:
    """Centres of both sets and the directions between them, float32, each `(layers + 1, d_model)`.

    Row 0 belongs to the embeddings, row l + 1 to the stream after decoder layer l. A row of `vectors` is a
    unit vector, or zero where the two centres are the same. `further` `(passes, layers + 1, d_model)` are what later
    passes found, orthogonal to what was found before. `order` are the decoder layers that subspaces take more
    directions from, best first; None where none were asked for.
    """

    good: Tensor
    bad: Tensor
    vectors: Tensor
    further: Tensor | None = None
    order: Tensor | None = None

    def at(self, index: float | None, layer: int) -> Tensor:
        """The unit vector `(d_model,)` for decoder layer `layer`: its own, or the global one at float `index`.

        Between two layers the two unit vectors are interpolated linearly and normalized again.
        """
        return _between(self.vectors, index, layer)

    def basis(self, index: float | None, layer: int, dimensions: int = 1) -> Tensor:
        """What is ablated in decoder layer `layer`, as orthonormal rows `(k, d_model)`.

        The direction `at` it, what further passes found there, and `dimensions - 1` directions of the best layers;
        those that lie nearly within the span of the others are passed over for the next best. Raises `EngineError`
        where the best layers are not known.
        """
        first = self.at(index, layer)[None]
        if dimensions == 1 and self.further is None:
            return first
        if dimensions > 1 and self.order is None:
            raise EngineError(
                "The run's directions were measured for ablating one of them, not a subspace.",
                "Begin a new run with this profile.",
            )
        passes = [] if self.further is None else [_between(more, index, layer)[None] for more in self.further]
        own = orthonormal(torch.cat([first, *passes]), NEARLY_WITHIN)
        best = self.vectors[:0] if self.order is None else self.vectors[self.order + 1]
        return orthonormal(torch.cat([own, best]), NEARLY_WITHIN, most=len(own) + dimensions - 1)


def _between(vectors: Tensor, index: float | None, layer: int) -> Tensor:
    if index is None:
        return vectors[layer + 1]
    lower = min(int(index), len(vectors) - 2)
    share = index - lower
    upper = min(lower + 2, len(vectors) - 1)
    return normalize(torch.lerp(vectors[lower + 1], vectors[upper], share), dim=0)


def measure_directions(good: Tensor, bad: Tensor, *, projected: bool) -> Directions:
    """Difference of the two centres per layer, normalized; centres are `(layers + 1, d_model)`.

    `projected` removes from each direction its component along the good centre, so that the ablation does not
    touch what harmless prompts share. Computed in float64. Raises `EngineError` where the sets do not differ.
    """
    good64, bad64 = good.double(), bad.double()
    vectors = normalize(bad64 - good64, dim=1)
    if projected:
        axis = normalize(good64, dim=1)
        vectors = normalize(vectors - (vectors * axis).sum(dim=1, keepdim=True) * axis, dim=1)
    if not torch.isfinite(vectors).all():
        raise EngineError(
            "The residual vectors are not finite numbers, so no direction can be computed.",
            'The dtype overflows on this model: try dtypes = ["bfloat16", "float32"].',
        )
    if not vectors[1:].any():
        raise EngineError(
            "The two prompt sets leave the same residual vectors, so there is no direction between them.",
            "Check good_prompts and bad_prompts: they must be different prompts.",
        )
    return Directions(good.float(), bad.float(), vectors.float())


def orthonormal(vectors: Tensor, least: float = ROUNDING, most: int | None = None) -> Tensor:
    """Orthonormal rows `(r, d)` with the span of the rows of `(k, d)`, in their order (QR by Gram and Schmidt).

    A row of which less than the share `least` lies outside the span of those before it is left out; after `most` rows
    no more are taken.
    """
    if len(vectors) == 1:
        return normalize(vectors, dim=1)
    return _orthonormal(vectors, least, most)[0]


def independent(vectors: Tensor) -> list[int]:
    """The rows of `(k, d)` that do not lie nearly within the span of those before them."""
    return _orthonormal(vectors, NEARLY_WITHIN, None)[1]


def _orthonormal(vectors: Tensor, least: float, most: int | None) -> tuple[Tensor, list[int]]:
    kept: list[Tensor] = []
    rows: list[int] = []
    for row, vector in enumerate(normalize(vectors.double(), dim=1)):
        if len(kept) == most:
            break
        rest = _outside(vector, kept)
        if float(rest.norm()) >= least:
            kept.append(normalize(rest, dim=0))
            rows.append(row)
    return (torch.stack(kept).to(vectors.dtype) if kept else vectors[:0]), rows


def _outside(vector: Tensor, basis: Iterable[Tensor]) -> Tensor:
    """The part of a vector outside the span of orthonormal ones."""
    basis = list(basis)
    for _ in range(2):  # once leaves rounding behind, which grows where little is left
        for other in basis:
            vector = vector - (other @ vector) * other
    return vector


def next_directions(known: Directions, good: Tensor, bad: Tensor, *, projected: bool) -> Tensor:
    """What still sets two centres apart in a model ablated along the `known` directions: `(layers + 1, d_model)`.

    Unit vectors, orthogonal to what is known at their row; zero where nothing new is left. Computed in float64.
    """
    first = (known.bad.double() - known.good.double()).norm(dim=1)
    found = torch.zeros_like(good, dtype=torch.float64)
    for row, (difference, axis) in enumerate(zip(bad.double() - good.double(), good.double(), strict=True)):
        if float(difference.norm()) <= LEAST_LEFT * float(first[row]):
            continue
        passes = [] if known.further is None else [more[row].double() for more in known.further]
        before = [vector for vector in (known.vectors[row].double(), *passes) if vector.any()]
        # Along the good centre too, but for what of it lies along the known directions, which are taken out already.
        aside = _outside(axis, before)
        basis = [*before, normalize(aside, dim=0)] if projected and aside.any() else before
        rest = _outside(difference, basis)
        if float(rest.norm()) > max(LEAST_LEFT * float(first[row]), NEARLY_WITHIN * float(difference.norm())):
            found[row] = normalize(rest, dim=0)
    return found.float()


def geometric_medians(residuals: Tensor) -> Tensor:
    """Geometric median over prompts of `(prompts, layers + 1, d_model)`, as `(layers + 1, d_model)` (Weiszfeld)."""
    from geom_median.torch import compute_geometric_median

    return torch.stack([compute_geometric_median(layer).median for layer in residuals.double().unbind(1)])


def centre(residuals: Tensor, estimator: Literal["mean", "geometric_median"]) -> Tensor:
    """Middle over prompts of `(prompts, layers + 1, d_model)`, as `(layers + 1, d_model)` in float64."""
    return residuals.double().mean(dim=0) if estimator == "mean" else geometric_medians(residuals)


def save_directions(path: Path, directions: Directions) -> None:
    """Keep directions as safetensors, written atomically."""
    from safetensors.torch import save_file

    tensors = {field.name: getattr(directions, field.name) for field in fields(directions)}
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    needed = bytes_of(contiguous.values())
    write_atomically(path, lambda temporary: save_file(contiguous, temporary), needed=needed, inside=path.parent)


def load_directions(path: Path) -> Directions:
    """Read what `save_directions` wrote. Raises `EngineError` where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = Directions(**load_file(path))
        if found.vectors.ndim != 2 or {found.good.shape, found.bad.shape} != {found.vectors.shape}:
            raise ValueError("its parts do not fit together")
        return found
    except (SafetensorError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
