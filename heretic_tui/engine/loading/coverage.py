"""The leak probe at load: does anything write into the residual stream that no known writer accounts for?

One direction is taken out of every known writer; what is then still written along it came through a weight that is
not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.updates import fully_ablated, update_shares
from heretic_tui.engine.model.language_model import Encoded, LanguageModel
from heretic_tui.engine.model.writers import Writer

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
    rows = _random_direction(model.facts.width).expand(len(model.layers) + 1, -1)
    directions = Directions(rows, rows, rows)
    write, _ = _shares(model, directions)
    with fully_ablated(held, directions, gain_aware=gain_aware):
        leak, rounding = _shares(model, directions)
    return Coverage(write, leak, rounding)


def _random_direction(width: int) -> Tensor:
    """A fixed vector of no meaning: what a model reads in a direction of its own does not matter to what is missed."""
    return normalize(torch.randn(width, generator=torch.Generator().manual_seed(0)), dim=0)


def _shares(model: LanguageModel, directions: Directions) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares of all layers and what rounding makes of them, means over the positions of all prompts."""
    rows = [model.encode([model.template(prompt)]).ids[0] for prompt in PROMPTS]
    tokens = min(TOKENS, *map(len, rows))  # of one length, so that nothing is padded
    ids = torch.stack([row[-tokens:] for row in rows])
    shares, off = update_shares(model, Encoded(ids, torch.ones_like(ids)), directions, tokens, cleaned=True)
    rounding = ROUNDINGS * torch.finfo(model.dtype).eps + STEPS * torch.finfo(torch.float32).eps
    return _means(shares), _means(rounding * off)


def _means(shares: Tensor) -> tuple[float, ...]:
    return tuple(shares.mean(dim=(1, 2)).tolist())
