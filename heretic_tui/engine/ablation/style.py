"""How a trial is written into a model: what its parameters leave open and its profile says. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import EMBEDDINGS, AblationParameters
from heretic_tui.engine.records import ModelFacts
from heretic_tui.layer_ranges import layers_of, shown_layers

if TYPE_CHECKING:
    from heretic_tui.profile.schema import Profile

RowNormalization = Literal["none", "pre", "full", "columns"]


@dataclass(frozen=True, slots=True)
class AblationStyle:
    """What keeps its length in an edited weight, whether norms after a writer turn its direction, and what is edited.

    `components` and `layers` (counted from 0) are those that are edited, None where all are; the embeddings are no
    layer, and edited only where `embeddings` says so.
    """

    row_normalization: RowNormalization = "none"
    gain_aware: bool = True
    components: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    embeddings: bool = False

    def sampled(self, components: Iterable[str]) -> list[str]:
        """The components that a trial has kernels for, of those that a model has."""
        wanted = [name for name in components if self.components is None or name in self.components]
        return [*wanted, EMBEDDINGS] if self.embeddings else wanted

    def weight(self, parameters: AblationParameters, component: str, layer: int) -> float:
        """A trial's ablation weight of one component in one layer; 0 for what is not edited."""
        kernel = parameters.kernels.get(component)
        return kernel.weight(layer) if kernel is not None and self._edits(component, layer) else 0.0

    def _edits(self, component: str, layer: int) -> bool:
        if component == EMBEDDINGS:
            return self.embeddings
        wanted = self.components is None or component in self.components
        return wanted and (self.layers is None or layer in self.layers)

    def check(self, facts: ModelFacts) -> None:
        """Raise `EngineError` for components and layers that a model does not have."""
        unknown = [name for name in self.components or () if name not in facts.writers]
        if unknown:
            known = " and ".join(facts.writers)
            hint = " The embeddings have a setting of their own, ablate_embeddings." if EMBEDDINGS in unknown else ""
            raise EngineError(
                f"ablated_components names {unknown[0]}, and {facts.name} has {known}.", f"Choose among these.{hint}"
            )
        beyond = [layer for layer in self.layers or () if layer >= facts.layers]
        if beyond:
            raise EngineError(
                f"ablated_layers names layer {beyond[0]}, and {facts.name} has {facts.layers} layers.",
                f"Layers are counted from 0, so the last one is {facts.layers - 1}.",
            )

    @property
    def words(self) -> str:
        """What is left out, and what comes in; empty where every writer in every layer is edited and nothing else."""
        return ", ".join(
            part
            for part in (
                f"only {' and '.join(self.components)}" if self.components else "",
                f"only layers {shown_layers(self.layers)}" if self.layers else "",
                "embeddings too" if self.embeddings else "",
            )
            if part
        )


PLAIN = AblationStyle()
"""The plain edit, of every writer in every layer."""


def style_of(profile: "Profile") -> AblationStyle:
    """How a profile's trials are written."""
    return AblationStyle(
        profile.row_normalization,
        profile.gain_aware,
        None if profile.ablated_components is None else tuple(dict.fromkeys(profile.ablated_components)),
        None if profile.ablated_layers is None else layers_of(", ".join(profile.ablated_layers)),
        profile.ablate_embeddings,
    )
