"""Tokens of a prompt with the residual stream at each: what it takes to shade them by a direction, in NumPy alone."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.direction import Direction, check_width, layer_name
from heretic_tui.engine.inspection.residual_sets import Vectors

SHARE = 0.98
"""The scale is the largest of this share of the tokens' values, so that an outlier takes the colour from no other."""
GIANT = 4.0
"""The first token is left out of the scale where its vector is this many times longer than the others' median."""


Measure = Literal["dot product", "less the mean", "cosine"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
"""What a token's value is: its dot product with the direction, that less the mean over the prompt, or the cosine."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token stands for in the text, in the text's own characters.

    A token that holds only a part of a character has `part` 2, 3, ... of `parts` and no text of its own; the text
    stands with part 1. Pieces put together are the whole text.
    """

    text: str
    token: int
    special: bool = False
    own: bool = True
    """Whether it belongs to the prompt itself, not to the template around it."""
    part: int = 1
    parts: int = 1


@dataclass(frozen=True, eq=False)
class TokenReading:
    """Pieces of a text and the residual stream at each, `(tokens, layers + 1, d_model)`, float32.

    `trial` is 0 for the original model. Row 0 of the stream is what goes into layer 0.
    """

    prompt: str
    pieces: tuple[Piece, ...]
    streams: Vectors
    trial: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the stream there are."""
        return int(self.streams.shape[1])

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.streams.shape[2])

    def dots(self, direction: Direction, row: int) -> NDArray[np.float32]:
        """Dot product of each token's residual vector with a direction. Raises `EngineError` for another width."""
        check_width(direction, self.width)
        if not 0 <= row < self.rows:
            raise EngineError(f"There is no layer {layer_name(row)} in this reading.")
        values: NDArray[np.float32] = self.streams[:, row] @ direction.vector
        return values

    def values(self, direction: Direction, row: int, measure: Measure = "dot product") -> NDArray[np.float32]:
        """Each token's value by a measure; `less the mean` leaves a first token that dwarfs the others out of it."""
        dots = self.dots(direction, row)
        if measure == "cosine":
            norms = np.linalg.norm(self.streams[:, row], axis=1)
            cosines: NDArray[np.float32] = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
            return cosines
        if measure == "less the mean":
            counted = dots[1:] if self.giant(row) else dots
            return dots - np.float32(counted.mean())
        return dots

    def giant(self, row: int) -> bool:
        """Whether the first token's vector dwarfs the others, as it does in most models past the first layers."""
        norms = np.linalg.norm(self.streams[:, row], axis=1)
        return len(norms) > 2 and bool(norms[0] > GIANT * np.median(norms[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class TokensRead(Event):
    """A prompt went through the model; `number` tells which request this answers."""

    reading: TokenReading
    number: int = 0

    def as_json(self) -> dict[str, Any]:
        """The tokens, without the vectors."""
        reading = self.reading
        return {
            "event": "tokens_read",
            "prompt": reading.prompt,
            "trial": reading.trial,
            "tokens": [piece.text for piece in reading.pieces],
        }


@dataclass(frozen=True, slots=True)
class Scale:
    """The value that has the full colour, on both sides of 0, and what was left out to find it."""

    limit: float
    without_first: bool = False
    beyond: int = 0
    """How many tokens exceed it, and have the full colour too."""

    def share(self, value: float) -> float:
        """How much colour a value has: -1 to 1."""
        return max(-1.0, min(1.0, value / self.limit)) if self.limit > 0 else 0.0

    @property
    def about(self) -> str:
        """What has to be known of the scale: what was left out of it, and how many tokens exceed it."""
        parts = ["first token left out"] if self.without_first else []
        parts += [f"{self.beyond} beyond"] if self.beyond else []
        return ", ".join(parts)

    @property
    def words(self) -> str:
        """The scale in words."""
        return f"full colour at ±{figure(self.limit)}" + (f" ({self.about})" if self.about else "")


def scale_of(*values: NDArray[Any], without_first: bool = False) -> Scale:
    """A scale that is symmetric around 0 and common to all the values given, such as those before and after."""
    counted = [column[1:] if without_first and len(column) > 1 else column for column in values]
    sizes = np.sort(np.abs(np.concatenate([*counted, np.zeros(0)])))
    sizes = sizes[np.isfinite(sizes)]
    if not len(sizes):
        return Scale(0.0)
    limit = float(sizes[min(len(sizes) - 1, round(SHARE * (len(sizes) - 1)))]) or float(sizes[-1])
    return Scale(limit, without_first, int((sizes > limit).sum()))


def figure(value: float) -> str:
    """A value with three digits that count, never in powers of ten where it can be helped: 12.3, 0.0041, 1830."""
    size = abs(value)
    if not np.isfinite(value) or (size and not 1e-4 <= size < 1e6):
        return f"{value:.2e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4 if size else 0
    return f"{value:.{digits}f}"


def signed(value: float) -> str:
    """The same with its sign."""
    return f"+{figure(value)}" if value >= 0 else figure(value).replace("-", "−")
