"""The leak probe at load: does anything write into the residual stream that no known writer accounts for?

One direction is taken out of every known writer, and out of what enters each layer; then no layer's update, its output
less its input, may have a component along it. What is left came through a weight that is not known. The input is
cleaned as well because some models rescale the whole stream in a layer (Gemma 4), which is no writing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from heretic_tui.engine.ablation import ablated
from heretic_tui.engine.directions import Directions
from heretic_tui.engine.language_model import Encoded, LanguageModel
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.residuals import batch_residuals, stream_of
from heretic_tui.engine.writers import Writer

PROMPTS = ("Hello", "What is the capital of France?", "Write a short poem about rain.")
TOKENS = 12
"""Tokens of each prompt that are looked at, its last ones: any text does, and a large model takes its time."""
ROUNDINGS, STEPS = 2.0, 8.0
"""How much rounding a leak may be made of: in the weights' dtype, and in the float32 that edits are computed in."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Mean share `|update . v| / |update|` of every decoder layer for a random unit vector v.

    `write` in the model as it is, `leak` with every known writer fully ablated, `rounding` what may be left in the
    weights' dtype where nothing was missed.
    """

    write: tuple[float, ...]
    leak: tuple[float, ...]
    rounding: tuple[float, ...]

    @property
    def leaking(self) -> list[int]:
        """The layers that write through a weight which is not known."""
        return [
            layer
            for layer, (leak, rounding) in enumerate(zip(self.leak, self.rounding, strict=True))
            if not leak <= rounding
        ]

    @property
    def whole(self) -> bool:
        """Whether all that writes is known."""
        return not self.leaking


def probe(model: LanguageModel, writers: Sequence[Writer] | None = None, *, gain_aware: bool = True) -> Coverage:
    """Measure the coverage of the model's writers, or of others, on a few prompts; the weights are put back.

    Takes two passes over three rows of a few tokens.
    """
    held = model if writers is None else replace(model, writers=list(writers))
    vector = _random_direction(model.facts.width)
    rows = vector.expand(len(model.layers) + 1, -1)
    full = Kernel(1.0, 0.0, 1.0, float(len(model.layers)))
    everywhere = AblationParameters(None, {ATTENTION: full, MLP: full})
    write, _ = _shares(model, vector)
    with ablated(held, Directions(rows, rows, rows), everywhere, gain_aware=gain_aware):
        leak, rounding = _shares(model, vector)
    return Coverage(write, leak, rounding)


def _random_direction(width: int) -> Tensor:
    """A fixed vector of no meaning: what a model reads in a direction of its own does not matter to what is missed."""
    return normalize(torch.randn(width, generator=torch.Generator().manual_seed(0)), dim=0)


def _shares(model: LanguageModel, vector: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares of all layers and what rounding makes of them, means over the positions of all prompts."""
    found: list[list[Tensor]] = [[] for _ in model.layers]
    rounding = ROUNDINGS * torch.finfo(model.dtype).eps + STEPS * torch.finfo(torch.float32).eps
    rows = [model.encode([model.template(prompt)]).ids[0] for prompt in PROMPTS]
    tokens = min(TOKENS, *map(len, rows))  # of one length, so that nothing is padded
    ids = torch.stack([row[-tokens:] for row in rows])
    with _cleaned(model.layers, vector, found, rounding):
        batch_residuals(model, Encoded(ids, torch.ones_like(ids)))
    means = [torch.cat(layer, dim=-1).mean(dim=-1).tolist() for layer in found]
    return tuple(share for share, _ in means), tuple(rounding for _, rounding in means)


@contextmanager
def _cleaned(
    layers: Sequence[nn.Module], vector: Tensor, found: list[list[Tensor]], rounding: float
) -> Iterator[None]:  # fmt: skip
    """Take `vector` out of every layer's input; put each layer's shares and roundings `(2, positions)` into `found`."""
    entered: list[Tensor] = [torch.empty(0)] * len(layers)
    handles = []

    def watch(index: int, layer: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
            stream = stream_of(args, options)
            v = vector.to(stream.device)
            wide = stream.float()
            clean = (wide - (wide @ v)[..., None] * v).to(stream.dtype)
            entered[index] = clean.clone()  # some layers work in place
            return ((clean, *args[1:]), options) if args else (args, {**options, "hidden_states": clean})

        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            left = (output[0] if isinstance(output, tuple) else output).double()
            stream, v = entered[index].double(), vector.to(left)
            update = left - stream
            length = torch.linalg.vector_norm(update, dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
            # What a rounding of each value, of a size that the value sets, adds along v.
            rounded = rounding * ((stream.abs() + left.abs() + update.abs()).square() @ v.square()).sqrt()
            shares = torch.stack([(update @ v).abs() / length, rounded / length])
            found[index].append(shares.reshape(2, -1).cpu())

        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.register_forward_hook(after))

    try:
        for index, layer in enumerate(layers):
            watch(index, layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
