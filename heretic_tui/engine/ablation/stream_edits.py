"""Changes of the residual stream while a model runs, by hooks that are always removed; no weight is touched.

Activation addition follows Turner et al. 2023 ("Steering Language Models With Activation Engineering"), removal
Arditi et al. 2024 ("Refusal in Language Models Is Mediated by a Single Direction"), rotation Vu and Nguyen 2025
("Angular Steering: Behavior Control via Rotation in Activation Space").
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from heretic_tui.engine.errors import EngineError

Change: TypeAlias = Callable[[Tensor], Tensor]
"""From a stream `(..., d_model)`, float32, to the changed one."""

SMALLEST_SINE = 1e-3
"""Two directions at a smaller angle than this sine are taken for parallel: they span no plane worth the name."""


def adding(vector: Tensor) -> Change:
    """Add a vector `(d_model,)` at every position."""
    placed = _on_every_device(vector)
    return lambda stream: stream + placed(stream)


def adding_relative(direction: Tensor, strength: float) -> Change:
    """Add the unit vector `direction` `(d_model,)`, `strength` times as long as the stream is at each position."""
    placed = _on_every_device(strength * direction)
    return lambda stream: stream + torch.linalg.vector_norm(stream, dim=-1, keepdim=True) * placed(stream)


def removing(direction: Tensor, strength: float) -> Change:
    """Take `strength` times the component along the unit vector `direction` `(d_model,)` out at every position."""
    placed = _on_every_device(direction)

    def change(stream: Tensor) -> Tensor:
        unit = placed(stream)
        return stream - strength * (stream @ unit)[..., None] * unit

    return change


def rotating(first: Tensor, second: Tensor, degrees: float) -> Change:
    """Rotate the component in the plane of `first` and `second` `(d_model,)` by an angle, from `first` to `second`.

    The component's length stays, and so does all that is outside of the plane. Raises `EngineError` for parallel
    directions.
    """
    placed = _on_every_device(plane(first, second).float())
    angle = math.radians(math.remainder(degrees, 360.0))
    turn = torch.tensor([[math.cos(angle) - 1.0, math.sin(angle)], [-math.sin(angle), math.cos(angle) - 1.0]])
    turned = _on_every_device(turn)

    def change(stream: Tensor) -> Tensor:
        axes = placed(stream)
        return stream + (stream @ axes.T) @ turned(stream) @ axes

    return change


def plane(first: Tensor, second: Tensor) -> Tensor:
    """Two orthonormal rows `(2, d_model)`, float64: along `first`, and in the plane of both towards `second`."""
    one = torch.nn.functional.normalize(first.double(), dim=0)
    other = torch.nn.functional.normalize(second.double(), dim=0)
    across = other - (other @ one) * one
    if float(torch.linalg.vector_norm(across)) < SMALLEST_SINE:
        raise EngineError(
            "The two directions are parallel, so there is no plane to rotate in.", "Choose another second direction."
        )
    across = torch.nn.functional.normalize(across, dim=0)
    # Once more: what the first subtraction has rounded away counts where the angle is small.
    return torch.stack([one, torch.nn.functional.normalize(across - (across @ one) * one, dim=0)])


def _on_every_device(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """The tensor, float32, where a stream lives; copied to each device once."""
    copies: dict[torch.device, Tensor] = {}

    def placed(stream: Tensor) -> Tensor:
        if stream.device not in copies:
            copies[stream.device] = tensor.to(stream.device, torch.float32)
        return copies[stream.device]

    return placed


@contextmanager
def changed(layers: Sequence[nn.Module], change: Change, at: Iterable[int] | None = None) -> Iterator[None]:
    """Hold the stream changed after the decoder layers `at`; None is everywhere, the stream into layer 0 too.

    Computed in float32 and rounded once to the stream's dtype. On leaving, however that happens, no hook is left.
    """

    def of(stream: Tensor) -> Tensor:
        with torch.no_grad():
            return change(stream.float()).to(stream.dtype)

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if args:
            return (of(args[0]), *args[1:]), options
        return args, {**options, "hidden_states": of(options["hidden_states"])}

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return (of(output[0]), *output[1:]) if isinstance(output, tuple) else of(output)

    with ExitStack() as hooks:
        if at is None:
            hooks.callback(layers[0].register_forward_pre_hook(before, with_kwargs=True).remove)
        for layer in range(len(layers)) if at is None else at:
            hooks.callback(layers[layer].register_forward_hook(after).remove)
        yield
