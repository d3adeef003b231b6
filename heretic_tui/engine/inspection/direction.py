"""A direction of the residual stream: a unit vector, its name, and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.residual_sets import Vectors

SMALLEST_NORM = 1e-12


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector `(d_model,)`, float32; `made` says how it was found, `row` at which row of the stream.

    `norm` is the length that it had before it was made a unit vector.
    """

    name: str
    vector: Vectors
    made: str = ""
    row: int | None = None
    model: str = ""
    run: str = ""
    note: str = ""
    norm: float = 1.0

    @property
    def width(self) -> int:
        """Numbers in the vector."""
        return len(self.vector)


def layer_name(row: int) -> str:
    """What a row of the stream is called: decoder layers count from 0, and `in` is the stream into the first."""
    return "in" if row == 0 else str(row - 1)


def row_of(layer: str, rows: int) -> int:
    """The row of the stream that a layer's name means. Raises `EngineError` where there is none."""
    if layer.strip() == "in":
        return 0
    try:
        row = int(layer) + 1
    except ValueError:
        row = 0
    if not 1 <= row < rows:
        raise EngineError(
            f"There is no layer {layer!r}.",
            f"The layers are numbered 0 to {rows - 2}; the stream into the first is called in.",
        )
    return row


def direction(name: str, vector: NDArray[Any], **origin: Any) -> Direction:
    """A direction along any vector; raises `EngineError` where it has none, or is not made of finite numbers."""
    values = np.asarray(vector, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise EngineError(f"{name} has the shape {values.shape}.", "A direction is one row of numbers.")
    if not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        raise EngineError(f"{name} is not all finite numbers: first at place {place} of {len(values)}.")
    norm = float(np.linalg.norm(values))
    if norm < SMALLEST_NORM:
        raise EngineError(f"{name} is zero everywhere, so it points nowhere.")
    return Direction(name, (values / norm).astype(np.float32), norm=norm, **origin)


def check_width(found: Direction, width: int, what: str = "the model") -> None:
    """Raise `EngineError` where a direction does not fit a stream, with both widths."""
    if found.width != width:
        raise EngineError(
            f"The direction {found.name} has {found.width} numbers, the residual stream of {what} has {width}.",
            "Choose a direction that was made with a model of the same width.",
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A direction in a mix, and how much of it."""

    direction: Direction
    weight: float


def mixed(parts: Sequence[Part]) -> Direction:
    """The sum of weighted directions, normalized.

    Raises `EngineError` where the widths differ, or the sum is zero.
    """
    counted = [part for part in parts if part.weight]
    if not counted:
        raise EngineError("All weights of the mix are 0.", "Give one direction a weight at least.")
    first = counted[0].direction
    for part in counted[1:]:
        if part.direction.width != first.width:
            raise EngineError(
                f"{first.name} has {first.width} numbers and {part.direction.name} has {part.direction.width}: they "
                "cannot be mixed.",
                "Mix directions of models of the same width.",
            )
    stacked = np.stack([part.direction.vector.astype(np.float64) for part in counted])
    total = np.array([part.weight for part in counted]) @ stacked
    if np.linalg.norm(total) < 1e-6 * sum(abs(part.weight) for part in counted):
        raise EngineError("The parts of the mix cancel each other out.", "Change one of the weights.")
    made = " ".join(f"{part.weight:+.2f} x {part.direction.name}" for part in counted)
    models, runs, rows = ({getattr(part.direction, key) for part in counted} for key in ("model", "run", "row"))
    return direction(
        "mix",
        total,
        made=f"mix: {made}",
        model=models.pop() if len(models) == 1 else "",
        run=runs.pop() if len(runs) == 1 else "",
        row=rows.pop() if len(rows) == 1 else None,
    )
