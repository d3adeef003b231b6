"""An edit held at a module's output and input, where its weight cannot be edited in place.

Every edit of a weight is an operator on what the module puts out, with vectors s, p, q and a scaling d of its input:
`y' = s * (y(d * x) - p (q . y(d * x)))`. That is exact for every row normalization, where an adapter's two factors are
exact for two of them only, and what it takes is found in a few passes over the weight, where theirs need an SVD.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class OutputEdit:
    """What becomes of an output y without its bias: `scale * (y - (y @ reads.T) @ writes) + bias`.

    y is the output for the module's input times `inputs`. `reads` and `writes` are `(k, out)`, `scale` and the edited
    `bias` `(out,)`, `inputs` `(in,)`, all float32 on the module's device; None leaves a step out.
    """

    reads: Tensor
    writes: Tensor
    scale: Tensor | None = None
    inputs: Tensor | None = None
    bias: Tensor | None = None

    def of_output(self, output: Tensor) -> Tensor:
        """The edited output, computed in float32 and rounded once."""
        y = output.float()
        y = y - (y @ self.reads.T) @ self.writes
        if self.scale is not None:
            y = y * self.scale
        if self.bias is not None:
            y = y + self.bias
        return y.to(output.dtype)


@contextmanager
def at_output(module: nn.Module, edit: OutputEdit) -> Iterator[None]:
    """Hold an edit on a module; on leaving, however that happens, no hook is left and its bias is what it was."""
    inputs, bias = edit.inputs, module.bias if isinstance(module.bias, Tensor) else None

    def before(_: nn.Module, args: tuple[Any, ...]) -> Any:
        with torch.no_grad():
            return ((args[0].float() * inputs).to(args[0].dtype), *args[1:])

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        with torch.no_grad():
            return edit.of_output(output)

    with ExitStack() as held:
        if bias is not None:
            # The edit's own bias takes its place; what is taken out would count it in, and multiply its rounding.
            held.callback(_write, bias, bias.detach().clone())
            _write(bias, torch.zeros_like(bias))
        if inputs is not None:
            held.callback(module.register_forward_pre_hook(before).remove)
        held.callback(module.register_forward_hook(after).remove)
        yield


def _write(parameter: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
