"""Residual vectors of every prompt in one pass: after each layer, and between its attention and its MLP.

Where in a layer that is, architectures do not say by any common name. A pass over one text finds it: the first module
whose input x lies apart from the layer's own, such that x plus some module's output (an MLP's, or that of the norm
after it) is the layer's output. Models whose attention and MLP read the same stream have no such place.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.ablation.residuals import batch_residuals, stream_of, winsorized
from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batching import in_batches
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.inspection.residual_sets import ResidualSets
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.formats import size

ROUNDINGS = 8.0
"""Roundings of the layer's output that the sum of its parts may be off by."""


@dataclass(frozen=True, slots=True)
class Captured:
    """Residual vectors of a prompt set, float32: `after` `(prompts, layers + 1, d_model)`, `mid` one row less."""

    after: Tensor
    mid: Tensor | None


def capture_sets(
    model: LanguageModel,
    good: Sequence[str],
    bad: Sequence[str],
    winsorization_quantile: float = 1.0,
    position: int = -1,
) -> Job[ResidualSets]:
    """Residual vectors of both sets of templated texts; the last event tells the memory they take."""
    began = time.perf_counter()
    mids = mid_places(model, min(good, key=len))
    sets = []
    for name, texts in (("good", good), ("bad", bad)):
        phase = f"residuals of {name} prompts"
        sets.append((yield from capture(model, texts, phase, winsorization_quantile, mids, position)))
    found = as_sets(*sets)
    between = f" and {len(mids)} between attention and MLP" if mids else ""
    result = f"{len(good)} + {len(bad)} prompts at {found.rows} places in the stream{between}, {size(found.bytes)}"
    yield PhaseFinished("residuals", time.perf_counter() - began, result)
    return found


def as_sets(good: Captured, bad: Captured) -> ResidualSets:
    """Both sets without torch; the memory is shared, not copied."""
    mids = (None, None) if good.mid is None or bad.mid is None else (good.mid.numpy(), bad.mid.numpy())
    return ResidualSets(good.after.numpy(), bad.after.numpy(), *mids)


def capture(
    model: LanguageModel,
    texts: Sequence[str],
    phase: str,
    winsorization_quantile: float = 1.0,
    mids: Sequence[nn.Module] = (),
    position: int = -1,
) -> Job[Captured]:
    """Residual vectors of templated texts in the order given, in batches of the model's size.

    `mids` are the places that `mid_places` found; without them there are no vectors between attention and MLP.
    """
    layers, width = len(model.layers), model.facts.width
    after = torch.empty(len(texts), layers + 1, width)
    mid = torch.empty(len(texts), layers, width) if mids else None

    def compute(batch: Sequence[str], done: int) -> Job[list[None]]:
        vectors = winsorized(batch_residuals(model, model.encode(batch), mids, position), winsorization_quantile)
        rows = slice(done, done + len(batch))
        if mid is None:
            after[rows] = vectors
        else:
            after[rows], mid[rows] = vectors[:, ::2], vectors[:, 1::2]
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return [None] * len(batch)

    yield from in_batches(model, texts, compute)
    return Captured(after, mid)


@dataclass(frozen=True, slots=True)
class _Call:
    """One module's call in a pass over one text: what it got and what it gave at the last position, float64."""

    module: nn.Module
    took: Tensor | None
    gave: Tensor | None


def mid_places(model: LanguageModel, text: str) -> Sequence[nn.Module]:
    """In every layer, the module whose input is the stream between attention and MLP; empty where one has none."""
    places = []
    for layer, calls in zip(model.layers, _calls(model, text), strict=True):
        place = _place(layer, calls, torch.finfo(model.dtype).eps)
        if place is None:
            return ()
        places.append(place)
    return places


def _place(layer: nn.Module, calls: Sequence[_Call], eps: float) -> nn.Module | None:
    whole = next(call for call in calls if call.module is layer)
    if whole.took is None or whole.gave is None:
        return None
    tolerance = ROUNDINGS * eps * float(whole.gave.norm())
    parts = [call for call in calls if call.module is not layer]
    for call in parts:
        if call.took is None or float((call.took - whole.took).norm()) <= tolerance:
            continue
        update = whole.gave - call.took
        if any(_made_of(update, part.gave, tolerance + float(call.took.norm()) * ROUNDINGS * eps) for part in parts):
            return call.module
    return None


def _made_of(update: Tensor, gave: Tensor | None, tolerance: float) -> bool:
    """Whether an update is what a module gave, or a multiple of it: some models scale what they add."""
    if gave is None or not float(gave.norm()):
        return False
    scale = (update @ gave) / (gave @ gave)
    return float(update.norm()) > tolerance and float((update - scale * gave).norm()) <= tolerance


def _calls(model: LanguageModel, text: str) -> list[list[_Call]]:
    """All calls in every layer during a pass over one text, in the order in which they began."""
    with _watched(model.layers, model.facts.width) as calls:
        batch_residuals(model, model.encode([text]))
    return calls


@contextmanager
def _watched(layers: Sequence[nn.Module], width: int) -> Iterator[list[list[_Call]]]:
    calls: list[list[_Call]] = [[] for _ in layers]
    handles = []

    def watch(place: list[_Call], module: nn.Module) -> None:
        started: list[int] = []

        def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            started.append(len(place))
            took = stream_of(args, options) if args or "hidden_states" in options else None
            place.append(_Call(module, _last(took, width), None))

        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            gave = _last(output[0] if isinstance(output, tuple) and output else output, width)
            index = started.pop()
            place[index] = _Call(module, place[index].took, gave)

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))

    try:
        for place, layer in zip(calls, layers, strict=True):
            for module in layer.modules():
                watch(place, module)
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _last(stream: Any, width: int) -> Tensor | None:
    """The last position of a stream `(1, tokens, d_model)`; None for anything else."""
    if not isinstance(stream, Tensor) or stream.ndim != 3 or stream.shape[0] != 1 or stream.shape[2] != width:
        return None
    return stream[0, -1].detach().double().cpu()
