"""What one trial tries: which direction is ablated, and how strongly in each layer.

The names are those of the reference tool's journals, so that each side reads the other's studies.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ATTENTION = "attn.o_proj"
MLP = "mlp.down_proj"
EMBEDDINGS = "embed_tokens"
"""The components: what a kernel is named after, in journals too."""
BEFORE_LAYERS = -1
"""Where the embeddings stand among the layers."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Ablation weight over the layers: a peak that falls linearly to a minimum, and nothing beyond it.

    `max_weight_position` and `min_weight_distance` are in layers; `min_weight` is absolute.
    """

    max_weight: float
    max_weight_position: float
    min_weight: float
    min_weight_distance: float

    def weight(self, layer: int) -> float:
        """Ablation weight of decoder layer `layer` (counted from 0)."""
        distance = abs(layer - self.max_weight_position)
        if distance > self.min_weight_distance:
            return 0.0
        return self.max_weight + (distance / self.min_weight_distance) * (self.min_weight - self.max_weight)

    @staticmethod
    def of_embeddings(weight: float) -> "Kernel":
        """The kernel that has a weight at the embeddings, and none in any layer."""
        return Kernel(weight, float(BEFORE_LAYERS), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class AblationParameters:
    """One point of the search space.

    `direction_index` is a float between two layers for one global direction, or None where every layer
    is ablated along its own; `kernels` maps a component such as `attn.o_proj` to its kernel. With more
    `subspace_dimensions` than one, directions of the best layers are ablated beside that one.
    """

    direction_index: float | None
    kernels: Mapping[str, Kernel]
    subspace_dimensions: int = 1

    def as_json(self) -> dict[str, dict[str, float]]:
        """The kernels as plain dictionaries, in the form of the journal's `parameters` attribute."""
        return {component: asdict(kernel) for component, kernel in self.kernels.items()}

    @staticmethod
    def from_json(
        direction_index: float | None, kernels: Mapping[str, Mapping[str, Any]], subspace_dimensions: int = 1
    ) -> "AblationParameters":
        """Rebuild parameters from the journal's attributes; the reference tool's have no `subspace_dimensions`.

        Raises AttributeError, TypeError or ValueError for what are none.
        """
        found = {
            str(name): Kernel(**{field: number_of(value) for field, value in fields.items()})
            for name, fields in kernels.items()
        }
        index = None if direction_index is None else number_of(direction_index)
        return AblationParameters(index, found, subspace_dimensions)


def number_of(value: Any) -> float:
    """A number from a file, as it is. Raises TypeError for anything else, ValueError for one past all floats."""
    if type(value) not in {int, float}:
        raise TypeError(f"{value!r:.40} is no number")
    if type(value) is int and abs(value) > 10**300:
        raise ValueError("a number is too large")
    return value  # type: ignore[no-any-return]
