"""Residual vectors: the residual stream at the last position, after every decoder layer.

Hooks take the layers' own outputs. The library's `hidden_states` will not do: their last entry is taken after
the final norm, so it lies in another space than the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.background import Job
from heretic_tui.engine.batching import in_batches
from heretic_tui.engine.events import Progress
from heretic_tui.engine.language_model import Encoded, LanguageModel, positions
from heretic_tui.engine.products import Products


@contextmanager
def captured(layers: Sequence[nn.Module], mids: Sequence[nn.Module] = ()) -> Iterator[list[Tensor]]:
    """Collect, at every forward pass, the last position of the stream into layer 0 and after each layer.

    `mids` may name a module in every layer whose input is the stream between attention and MLP. Yields a list that a
    pass fills, in the order of the stream, with `layers + 1` tensors `(batch, d_model)`, or `2 * layers + 1` with
    `mids`; float32 on the host.
    """
    vectors: list[Tensor] = []

    def keep(stream: Tensor) -> None:
        # A copy: a view would keep the whole sequence's stream in memory.
        vectors.append(stream[:, -1].detach().to("cpu", torch.float32, copy=True))

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        keep(stream_of(args, options))

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in (layers[0], *mids)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield vectors
    finally:
        for handle in handles:
            handle.remove()


def stream_of(args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """The stream among a module's arguments: the first of them, or the one that is named so."""
    stream: Tensor = args[0] if args else options["hidden_states"]
    return stream


def batch_residuals(model: LanguageModel, batch: Encoded, mids: Sequence[nn.Module] = ()) -> Tensor:
    """Residual vectors `(prompts, layers + 1, d_model)` of one batch, float32; no logits are computed.

    With `mids` the vectors between attention and MLP stand among them, as `captured` tells.
    """
    options: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if "position_ids" in model.forward_names:
        options["position_ids"] = positions(batch.mask)
    products = Products(model.network, 0)
    with torch.inference_mode(), products.used(), captured(model.layers, mids) as vectors:
        model.network.base_model(**options)
    return torch.stack(vectors, dim=1)


def residuals(
    model: LanguageModel, texts: Sequence[str], phase: str, winsorization_quantile: float = 1.0
) -> Job[Tensor]:
    """Residual vectors `(prompts, layers + 1, d_model)` of templated texts, in the order given."""

    def compute(batch: Sequence[str], done: int) -> Job[list[Tensor]]:
        vectors = winsorized(batch_residuals(model, model.encode(batch)), winsorization_quantile)
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return list(vectors)

    return torch.stack((yield from in_batches(model, texts, compute)))


def residual_mean(
    model: LanguageModel, texts: Sequence[str], phase: str, winsorization_quantile: float = 1.0
) -> Job[Tensor]:
    """Mean residual vectors `(layers + 1, d_model)`, summed in float64; memory does not grow with the prompts."""
    total = torch.zeros(len(model.layers) + 1, model.facts.width, dtype=torch.float64)

    def compute(batch: Sequence[str], done: int) -> Job[list[None]]:
        vectors = winsorized(batch_residuals(model, model.encode(batch)), winsorization_quantile)
        total.add_(vectors.double().sum(dim=0))
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return [None] * len(batch)

    yield from in_batches(model, texts, compute)
    return total / len(texts)


def winsorized(vectors: Tensor, quantile: float) -> Tensor:
    """Clamp each vector's magnitudes at the given quantile of its own magnitudes; 1.0 changes nothing."""
    if quantile >= 1.0:
        return vectors
    # Prompt by prompt: older versions of torch refuse the quantile of more than 2**24 numbers at once.
    limits = torch.stack([torch.quantile(layers.abs(), quantile, dim=-1, keepdim=True) for layers in vectors])
    return vectors.clamp(-limits, limits)
