"""What the view of tokens shows of a reading: values, scale, words and files; computed at once, in NumPy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from textual.content import Content

from heretic_tui.engine.inspection.direction import Direction
from heretic_tui.engine.inspection.token_files import tokens_as_csv, tokens_as_json
from heretic_tui.engine.inspection.token_view import Measure, Scale, TokenReading, figure, scale_of, signed
from heretic_tui.formats import json_line, one_line
from heretic_tui.screens.inspector.part import OwnFile
from heretic_tui.token_desk import TOKENS, TokenDesk
from heretic_tui.widgets.token_text import Token, token

KEYS = """\
i  type a prompt
o  take one from the run's prompt sets

The model is loaded if it is not in memory; then one pass reads all layers.
"""


@dataclass(frozen=True, eq=False)
class Painted:
    """What is on the screen, for the number under the cursor and for files."""

    reading: TokenReading
    direction: Direction
    row: int
    measure: Measure
    values: NDArray[np.float32]
    scale: Scale
    other: NDArray[np.float32] | None = None
    """The values of the state of the model that is not shown, where it was read too."""

    @property
    def shares(self) -> list[float]:
        """How much colour each token has: -1 to 1."""
        if self.scale.limit <= 0:
            return [0.0] * len(self.values)
        shares: list[float] = np.clip(self.values / self.scale.limit, -1, 1).tolist()
        return shares


def paint(desk: TokenDesk, trial: int, direction: Direction, row: int, measure: Measure) -> Painted | None:
    """A trial's tokens along a direction; None where they or that row were not read.

    Raises `EngineError` where the direction has another width. The scale is common to both states of the model.
    """
    reading = desk.readings.get(trial)
    if reading is None or row >= reading.rows:
        return None
    values = reading.values(direction, row, measure)
    others = [one for one in desk.readings.values() if one is not reading]
    other = others[0].values(direction, row, measure) if others else None
    both = [values] if other is None else [values, other]
    giant = measure != "cosine" and reading.giant(row)
    return Painted(reading, direction, row, measure, values, scale_of(*both, without_first=giant), other)


def shown_tokens(reading: TokenReading) -> tuple[Token, ...]:
    """The tokens of a reading as they are drawn."""
    return tuple(
        token(one.text, "special" if one.special else "" if one.own else "template", one.part, one.parts)
        for one in reading.pieces
    )


def shaded_by(painted: Painted) -> Content:
    """Two lines: the direction, then the measure and its scale."""
    note = (painted.direction.note or painted.direction.made).removeprefix("mix: ")
    limit = figure(painted.scale.limit)
    return Content.assemble(
        (one_line(painted.direction.name), "bold $foreground"),
        f"  {one_line(note)}\n",
        f"{painted.measure} ",
        (f"■ −{limit}", "$secondary"),
        " to ",
        (f"■ +{limit}", "$error"),
        f" · {words}" if (words := painted.scale.about) else "",
    )


def under_cursor(painted: Painted, place: int, shown: Token, other: str) -> Content:
    """The number of the token at a place; `other` names the state of the model that is not shown."""
    piece = painted.reading.pieces[place]
    value = float(painted.values[place])
    parts: list[Any] = [
        f"{place + 1}/{len(painted.values)} ",
        (f"“{shown.text}” ", "bold"),
        (signed(value), f"bold {'$error' if value > 0 else '$secondary'}"),
    ]
    if painted.other is not None:
        parts.append(f"  {other} {signed(float(painted.other[place]))}")
    if piece.parts > 1:
        parts.append(f"  part {piece.part} of {piece.parts} of a character")
    parts.append((f"  token {piece.token}{' · special' if piece.special else ''}", "$foreground-muted"))
    return Content.assemble(*parts)


def unread(desk: TokenDesk, current: str | None, phase: str) -> str:
    """What stands where no prompt was read; `current` is the engine's job, `phase` how far it has come."""
    if TOKENS not in desk.waiting:
        return f"{'The prompt was not read.' if desk.prompt else 'No prompt was read yet.'}\n\n{KEYS}"
    if desk.waiting[TOKENS] or current is None:
        return f"Reading the prompt{f': {phase}' if phase else ''} …\n\nx stops it."
    return f"The prompt is read when the engine is free; it works on this: {current}."


def files_of(painted: Painted | None, desk: TokenDesk | None) -> Sequence[OwnFile]:
    """The tokens with their values, and what a direction was found to be about."""
    files = []
    if painted is not None:
        of = (painted.reading, painted.direction, painted.row, painted.values)
        files += [
            OwnFile("tokens.csv", "a token a line, with its value", partial(tokens_as_csv, *of)),
            OwnFile("tokens.json", "the same with the direction", partial(tokens_as_json, *of, painted.measure)),
        ]
    if desk is not None and (contexts := desk.contexts) is not None:
        files.append(OwnFile("contexts.json", "tokens in context", lambda: json_line(contexts.as_json())))
    if desk is not None and (vocabulary := desk.vocabulary) is not None:
        files.append(OwnFile("vocabulary.json", "promoted and suppressed", lambda: json_line(vocabulary.as_json())))
    return files
