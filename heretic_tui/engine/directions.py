"""Residual directions: from residual vectors of two prompt sets to one unit vector per layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heretic_tui.engine.errors import EngineError, damaged
from heretic_tui.engine.files import write_atomically

SMALLEST_SHARE = 1e-3
"""Of a direction that keeps less than this outside the span of others there is nothing new, only noise."""


@dataclass(frozen=True)
class Directions:
    """Centres of both sets and the directions between them, float32, each `(layers + 1, d_model)`.

    Row 0 belongs to the embeddings, row l + 1 to the stream after decoder layer l. A row of `vectors` is a
    unit vector, or zero where the two centres are the same.
    """

    good: Tensor
    bad: Tensor
    vectors: Tensor

    def at(self, index: float | None, layer: int) -> Tensor:
        """The unit vector `(d_model,)` for decoder layer `layer`: its own, or the global one at float `index`.

        Between two layers the two unit vectors are interpolated linearly and normalized again.
        """
        if index is None:
            return self.vectors[layer + 1]
        lower = min(int(index), len(self.vectors) - 2)
        share = index - lower
        upper = min(lower + 2, len(self.vectors) - 1)
        return normalize(torch.lerp(self.vectors[lower + 1], self.vectors[upper], share), dim=0)


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


def orthonormal(vectors: Tensor) -> Tensor:
    """Orthonormal rows `(r, d)` with the span of the rows of `(k, d)`, in their order (QR by Gram and Schmidt).

    A row of which less than `SMALLEST_SHARE` lies outside the span of those before it is left out.
    """
    if len(vectors) == 1:
        return normalize(vectors, dim=1)
    kept: list[Tensor] = []
    for vector in normalize(vectors.double(), dim=1):
        rest = vector
        for _ in range(2):  # once leaves rounding behind, which grows where little is left
            for other in kept:
                rest = rest - (other @ rest) * other
        if float(rest.norm()) >= SMALLEST_SHARE:
            kept.append(normalize(rest, dim=0))
    return torch.stack(kept).to(vectors.dtype) if kept else vectors[:0]


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

    tensors = {"good": directions.good, "bad": directions.bad, "vectors": directions.vectors}
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary))


def load_directions(path: Path) -> Directions:
    """Read what `save_directions` wrote. Raises `EngineError` where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return Directions(**load_file(path))
    except (SafetensorError, TypeError) as error:
        raise damaged(path, error) from error
