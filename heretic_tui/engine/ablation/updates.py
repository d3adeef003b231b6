"""What every decoder layer adds to the residual stream along a direction: the measure of any leak.

A layer's update is its output less its input. With every writer of the layer ablated for a unit vector v, and v taken
out of what enters the layer, the update has no component along v: what is left came through a weight that was not
found, in whatever architecture. The input is cleaned because some models rescale the whole stream in a layer
(Gemma 4), which is no writing.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.residuals import batch_residuals, stream_of
from heretic_tui.engine.ablation.stream_edits import removing
from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.model.language_model import Encoded, LanguageModel
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel


@contextmanager
def fully_ablated(model: LanguageModel, directions: Directions, *, gain_aware: bool = True) -> Iterator[None]:
    """Hold every writer ablated at weight 1 for its layer's own direction; on leaving, every weight is put back."""
    full = Kernel(1.0, 0.0, 1.0, float(len(model.layers)))
    everywhere = AblationParameters(None, {ATTENTION: full, MLP: full})
    with ablated(model, directions, everywhere, AblationStyle(gain_aware=gain_aware)):
        yield


def update_shares(
    model: LanguageModel, batch: Encoded, directions: Directions, last: int, *, cleaned: bool
) -> tuple[Tensor, Tensor]:
    """Share `|update . v| / |update|` of every layer's update along its direction v, in one pass over a batch.

    Beside it stands what is added to the share where each value is off by as much as it is large: times the relative
    rounding it is what rounding may make of the share. Both `(layers, prompts, positions)` of the `last` positions,
    float64 on the host. `cleaned` takes v out of what enters each layer, at all positions. Raises
    `EngineError` where the layers carry more than one stream.
    """
    found: list[Tensor] = []
    with ExitStack() as hooks:
        for layer, vector in zip(model.layers, directions.vectors[1:], strict=True):
            hooks.enter_context(_watched(layer, vector, last, cleaned, found))
        batch_residuals(model, batch)
    shares, roundings = torch.stack(found, dim=1)
    return shares, roundings


@contextmanager
def _watched(layer: nn.Module, vector: Tensor, last: int, cleaned: bool, found: list[Tensor]) -> Iterator[None]:
    """Add a layer's shares and roundings `(2, prompts, positions)` to `found` in the passes made meanwhile."""
    v, clean = vector.cpu().double(), removing(vector, 1.0)
    entered: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        stream = stream_of(args, options)
        if stream.ndim != 3:  # as in Gemma 3n, (stream, prompt, position, d_model)
            raise EngineError(
                f"The layers of this model carry {len(stream)} residual streams at once, not one.",
                "Such an architecture is not supported yet; nothing was changed.",
            )
        if cleaned:
            stream = clean(stream.float()).to(stream.dtype)
        entered.append(_tail(stream, last))
        return ((stream, *args[1:]), options) if args else (args, {**options, "hidden_states": stream})

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        stream, left = entered.pop(), _tail(output[0] if isinstance(output, tuple) else output, last)
        update = left - stream
        length = torch.linalg.vector_norm(update, dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
        off = ((stream.abs() + left.abs() + update.abs()).square() @ v.square()).sqrt()
        found.append(torch.stack([(update @ v).abs(), off]) / length)

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tail(stream: Tensor, last: int) -> Tensor:
    # A copy, since some layers work in place; float32 holds what a model computes in.
    return stream[:, -last:].detach().to("cpu", torch.float32, copy=True).double()
