"""Residual vectors: the residual stream at the last position, or an earlier one, after every decoder layer.

Hooks take the layers' own outputs. The library's `hidden_states` will not do: their last entry is taken after
the final norm, so it lies in another space than the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batching import in_batches
from heretic_tui.engine.decoding.products import Products
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress
from heretic_tui.engine.model.language_model import Encoded, LanguageModel, positions


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and unbiased variance over prompts, float64, each `(layers + 1, d_model)`; one prompt has no variance."""

    mean: Tensor
    variance: Tensor | None


@contextmanager
def captured(
    layers: Sequence[nn.Module], mids: Sequence[nn.Module] = (), places: int | slice = -1
) -> Iterator[list[Tensor]]:
    """Collect, at every forward pass, positions of the stream into layer 0 and after each layer: the last, or others.

    `mids` may name a module in every layer whose input is the stream between attention and MLP. Yields a list that a
    pass fills, in the order of the stream, with `layers + 1` tensors `(batch, d_model)`, or `2 * layers + 1` with
    `mids`; float32 on the host. A slice of `places` gives `(batch, positions, d_model)`.
    """
    vectors: list[Tensor] = []

    def keep(stream: Tensor) -> None:
        # A copy: a view would keep the whole sequence's stream in memory.
        vectors.append(stream[:, places].detach().to("cpu", torch.float32, copy=True))

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


def batch_residuals(model: LanguageModel, batch: Encoded, mids: Sequence[nn.Module] = (), position: int = -1) -> Tensor:
    """Residual vectors `(prompts, layers + 1, d_model)` of one batch, float32; no logits are computed.

    With `mids` the vectors between attention and MLP stand among them, as `captured` tells. Raises `EngineError` where
    a prompt does not reach back to `position`.
    """
    if batch.width < -position or not batch.mask[:, position].all():
        raise EngineError(
            f"A prompt in its template has no token at position {position}.",
            "Use a token_position nearer to -1, the last token.",
        )
    return torch.stack(_pass(model, batch, mids, position), dim=1)


def batch_positions(model: LanguageModel, batch: Encoded, count: int) -> Tensor:
    """The stream of one batch at its last `count` positions `(prompts, count, layers + 1, d_model)`, float32."""
    return torch.stack(_pass(model, batch, (), slice(-count, None)), dim=2)


def _pass(model: LanguageModel, batch: Encoded, mids: Sequence[nn.Module], places: int | slice) -> list[Tensor]:
    options: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if "position_ids" in model.forward_names:
        options["position_ids"] = positions(batch.mask)
    products = Products(model.network, 0)
    with torch.inference_mode(), products.used(), captured(model.layers, mids, places) as vectors:
        model.network.base_model(**options)
    return vectors


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
    """Mean residual vectors `(layers + 1, d_model)` in float64."""
    return (yield from residual_moments(model, texts, phase, winsorization_quantile)).mean


def residual_moments(
    model: LanguageModel, texts: Sequence[str], phase: str, winsorization_quantile: float = 1.0, position: int = -1
) -> Job[Moments]:
    """Mean and variance of residual vectors, summed in float64; memory does not grow with the prompts."""
    total = torch.zeros(len(model.layers) + 1, model.facts.width, dtype=torch.float64)
    squares = torch.zeros_like(total)
    origin: list[Tensor] = []

    def compute(batch: Sequence[str], done: int) -> Job[list[None]]:
        encoded = model.encode(batch)
        vectors = winsorized(batch_residuals(model, encoded, position=position), winsorization_quantile).double()
        if not origin:
            # Squares of what lies far from zero would cancel; around the first vector little is left to cancel.
            origin.append(vectors[0].clone())
        added, squared = vectors.sum(dim=0), torch.zeros_like(squares)
        for vector in vectors:  # one by one: what lies between would take several times the batch's memory
            off = vector - origin[0]
            squared.addcmul_(off, off)
        # From here on no memory is taken, so that a batch is counted once even if it runs out.
        total.add_(added)
        squares.add_(squared)
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return [None] * len(batch)

    yield from in_batches(model, texts, compute)
    mean, count = total / len(texts), len(texts)
    if count < 2:
        return Moments(mean, None)
    return Moments(mean, ((squares - count * (mean - origin[0]).square()) / (count - 1)).clamp_min(0))


def winsorized(vectors: Tensor, quantile: float) -> Tensor:
    """Clamp each vector's magnitudes at the given quantile of its own magnitudes; 1.0 changes nothing."""
    if quantile >= 1.0:
        return vectors
    # Prompt by prompt: older versions of torch refuse the quantile of more than 2**24 numbers at once.
    limits = torch.stack([torch.quantile(layers.abs(), quantile, dim=-1, keepdim=True) for layers in vectors])
    return vectors.clamp(-limits, limits)
