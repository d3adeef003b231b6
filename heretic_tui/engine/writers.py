"""Residual writers: every weight whose output is added to the residual stream.

Which weights those are is data: one row names a component, the place where architectures keep it inside a
decoder layer, and how its weight lies. A layer in which no row of a component matches is an error, never silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import ATTENTION, MLP

PLACES: dict[str, tuple[str, ...]] = {
    ATTENTION: ("self_attn.o_proj", "self_attn.out_proj", "self_attn.dense", "attn.c_proj", "attention.dense"),
    MLP: ("mlp.down_proj", "mlp.c_proj", "mlp.fc2", "mlp.dense_4h_to_h", "fc2"),
}
"""Where a component's out-projection stands inside a decoder layer."""

POST_NORMS: dict[str, tuple[tuple[str, str], ...]] = {
    ATTENTION: (
        ("post_self_attn_layernorm", "post_mlp_layernorm"),
        ("post_norm1", "post_norm2"),
        ("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    MLP: (
        ("post_mlp_layernorm", "post_mlp_layernorm"),
        ("post_norm2", "post_norm2"),
        ("post_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
}
"""Norms between a writer and the addition: (the norm, a module that must be there too).

GLM 4 and HyperCLOVA X name them apart. In Gemma 2 and 3 and OLMo 2 `post_attention_layernorm` follows the
attention block, but only because the MLP has a post-norm as well; elsewhere it is the norm *before* the MLP.
"""


@dataclass(frozen=True, slots=True)
class Writer:
    """One weight `(out, in)` of a decoder layer, with what follows it before the addition.

    `transposed` weights lie `(in, out)` in memory; `gain` is the post-norm's gain `(d_model,)` or None.
    """

    name: str
    component: str
    layer: int
    weight: nn.Parameter
    bias: nn.Parameter | None
    transposed: bool
    gain: torch.Tensor | None

    @property
    def matrix(self) -> torch.Tensor:
        """The weight as `(out, in)`, a view of the live parameter."""
        data = self.weight.detach()
        return data.T if self.transposed else data


def find_writers(network: nn.Module, layers: Iterable[nn.Module], width: int) -> list[Writer]:
    """All residual writers of `layers`, layer by layer.

    Raises `EngineError` that names the layer and what it holds where a component is not found.
    """
    names = {id(module): name for name, module in network.named_modules()}
    return [
        _writer(names[id(layer)], layer, index, component, width)
        for index, layer in enumerate(layers)
        for component in PLACES
    ]


def _writer(prefix: str, layer: nn.Module, index: int, component: str, width: int) -> Writer:
    modules = dict(layer.named_modules())
    for place in PLACES[component]:
        module = modules.get(place)
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Module) or not isinstance(weight, nn.Parameter) or weight.ndim != 2:
            continue
        transposed = type(module).__name__ == "Conv1D"
        if weight.shape[1 if transposed else 0] != width:
            continue
        bias = getattr(module, "bias", None)
        return Writer(
            name=f"{prefix}.{place}",
            component=component,
            layer=index,
            weight=weight,
            bias=bias if isinstance(bias, nn.Parameter) else None,
            transposed=transposed,
            gain=_gain(modules, component, width),
        )
    linear = [name for name, module in modules.items() if getattr(module, "weight", None) is not None]
    raise EngineError(
        f"No {component} was found in layer {index} of this architecture (looked for {', '.join(PLACES[component])}; "
        f"the layer holds {', '.join(linear)}).",
        "This architecture is not supported yet; nothing was changed.",
    )


def _gain(modules: dict[str, nn.Module], component: str, width: int) -> torch.Tensor | None:
    """The gain of the norm after a writer, read off the norm itself: an RMS norm maps ones to its gain."""
    places = ((name, witness) for name, witness in POST_NORMS[component] if {name, witness} <= modules.keys())
    name, _ = next(places, (None, None))
    if name is None:
        return None
    norm = modules[name]
    weight = next(norm.parameters(), None)
    if weight is None:  # an identity stands where the configuration wants no norm
        return None
    with torch.no_grad():
        gain: torch.Tensor = norm(torch.ones(width, dtype=weight.dtype, device=weight.device))
    return gain.float()
