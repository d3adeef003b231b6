"""Tokens with their values as CSV and JSON."""

import csv
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.inspection.direction import Direction, layer_name
from heretic_tui.engine.inspection.token_view import TokenReading


def tokens_as_csv(reading: TokenReading, _: Direction, row: int, values: NDArray[np.float32]) -> str:
    """A token a line: place, layer, its id, text and value."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(("place", "layer", "token", "text", "value"))
    for place, (piece, value) in enumerate(zip(reading.pieces, values.tolist(), strict=True)):
        writer.writerow((place, layer_name(row), piece.token, piece.text, f"{value:.6g}"))
    return lines.getvalue()


def tokens_as_json(
    reading: TokenReading, direction: Direction, row: int, values: NDArray[np.float32], measure: str = "dot product"
) -> str:
    """The same with the prompt, the state of the model, and the direction."""
    return json.dumps(tokens_as_values(reading, direction, row, values, measure), ensure_ascii=False, indent=2) + "\n"


def tokens_as_values(
    reading: TokenReading, direction: Direction, row: int, values: NDArray[np.float32], measure: str
) -> dict[str, Any]:
    """Plain values for JSON; a figure that is no number is null."""
    return {
        "prompt": reading.prompt,
        "trial": reading.trial,
        "layer": layer_name(row),
        "measure": measure,
        "direction": {"name": direction.name, "made": direction.made, "run": direction.run, "model": direction.model},
        "tokens": [
            {
                "text": piece.text,
                "token": piece.token,
                "special": piece.special,
                "part": f"{piece.part}/{piece.parts}" if piece.parts > 1 else "",
                "value": round(value, 6) if np.isfinite(value) else None,
            }
            for piece, value in zip(reading.pieces, values.tolist(), strict=True)
        ],
    }
