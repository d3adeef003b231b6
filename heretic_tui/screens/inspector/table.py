"""The geometry table as rows: a few columns beside a view, or all of them over the whole width."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from heretic_tui.engine.inspection.geometry import COLUMNS, Geometry, LayerGeometry, as_csv, as_json
from heretic_tui.formats import json_line
from heretic_tui.inspections import Inspection, Reading, layer_name
from heretic_tui.screens.inspector.part import OwnFile, suffix
from heretic_tui.widgets.rows import Column, Row

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.geometry import Column as Figure

PICKED = "★"
BRIEF = (("cos_g_b", 6, 0), ("silhouette", 6, 1), ("norm_r", 6, 2))
"""The columns beside a view: key, width, and which go first where room is short; the last one is `leak` or `write`."""
NARROW = 7
"""Cells of a figure in the full table."""
SLOW = {"silhouette", *(column.key for column in COLUMNS if "*" in column.symbol)}
"""What takes a while to compute."""
Order = tuple[str, bool]
"""A column's key, and whether the largest figures come first."""


def figure(value: float | None) -> str:
    """A figure in at most six cells; a dash where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size and (size < 0.0005 or size >= 99999.5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    digits = 3 if size < 9.9995 else 2 if size < 99.995 else 1 if size < 999.95 else 0
    text = f"{value:.{digits}f}"
    return f"{value:.2f}" if len(text) > 6 else text


def cell(reading: Reading, row: LayerGeometry, key: str) -> str:
    """A figure of the table, or an ellipsis while it is being computed."""
    value = getattr(row, key)
    if value is not None and "cos" in key and 0.95 <= value < 0.99995:
        return f"{value:.4f}"  # where all means are alike, the differences stand in the last digits
    if value is None and key in SLOW and reading.geometry is not None and not reading.geometry.whole:
        return "…"
    return figure(value)


def _brief(inspection: Inspection, comparing: bool) -> list[tuple[str, int, int]]:
    """What leaks is measured on the original model; of a trial it is known what it still writes."""
    return [*BRIEF, ("write" if comparing or inspection.number else "leak", 6, 3)]


def brief_columns(inspection: Inspection, comparing: bool) -> tuple[Column, ...]:
    """The columns beside a view; with a trial that is compared, its figures stand behind the original model's."""
    columns = [Column("layer", 5, "right")]
    for key, width, drop in _brief(inspection, comparing):
        columns.append(Column(symbol(key), width, "right", drop=drop))
        if comparing:
            columns.append(Column("trial", width, "right", drop=drop + 4))
    return tuple(columns)


def brief_rows(inspection: Inspection, comparing: bool) -> list[Row]:
    """A row a layer; without vectors the layers alone."""
    shown = inspection.readings.get(0, Reading(0)) if comparing else inspection.shown
    trial = inspection.readings.get(inspection.trial or 0, Reading(0))
    rows = []
    for index in range(inspection.rows):
        cells = [mark(shown, index)]
        for key, _, _ in _brief(inspection, comparing):
            for reading in (shown, trial) if comparing else (shown,):
                known = line(reading.geometry, index)
                cells.append(cell(reading, known, key) if known else "")
        rows.append(Row(index, tuple(cells), "rows--mark" if is_picked(shown, index) else ""))
    return rows


def full_columns(order: Order | None) -> tuple[Column, ...]:
    """All columns; the one that sorts has an arrow."""
    columns = [Column("layer", 5, "right")]
    for one in COLUMNS:
        arrow = "" if order is None or order[0] != one.key else "▼" if order[1] else "▲"
        columns.append(Column(f"{arrow}{one.symbol}", max(NARROW, len(one.symbol) + 1), "right"))
    return tuple(columns)


def full_rows(reading: Reading, order: Order | None) -> list[Row]:
    """A row a layer with all figures, in the order asked for; what has no figure comes last."""
    geometry = reading.geometry
    if geometry is None:
        return []
    lines = list(geometry.rows)
    if order is not None:
        key, falling = order
        known = [one for one in lines if getattr(one, key) is not None]
        unknown = [one for one in lines if getattr(one, key) is None]
        lines = [*sorted(known, key=lambda one: float(getattr(one, key)), reverse=falling), *unknown]
    return [
        Row(
            one.row,
            (mark(reading, one.row), *(cell(reading, one, column.key) for column in COLUMNS)),
            "rows--mark" if is_picked(reading, one.row) else "",
        )
        for one in lines
    ]


def line(geometry: Geometry | None, row: int) -> LayerGeometry | None:
    """The figures of a row, where they are known."""
    return geometry.rows[row] if geometry is not None and row < len(geometry.rows) else None


def is_picked(reading: Reading, row: int) -> bool:
    """Whether the rule picks this row."""
    return reading.picks is not None and row in reading.picks.rows


def mark(reading: Reading, row: int) -> str:
    """The layer's name, with a star where the rule picks it."""
    return f"{PICKED if is_picked(reading, row) else ''}{layer_name(row)}"


def symbol(key: str) -> str:
    """A column's head."""
    return meaning_of(key).symbol


def meaning_of(key: str) -> "Figure":
    """What a column is."""
    return next(one for one in COLUMNS if one.key == key)


def legend(notes: Sequence[str], rule: str) -> str:
    """What the columns and marks mean, and what is to be said of this table."""
    width = max(len(one.symbol) for one in COLUMNS)
    columns = "\n".join(f"{one.symbol:<{width}}  {one.meaning}" for one in COLUMNS)
    what = (
        "g is the mean of the good prompts' residual vectors, b of the bad ones', r = b - g; a star beside a letter is "
        "the geometric median in place of the mean, S the cosine.\n\n"
        "Layers are decoder layers, counted from 0: the row shows the stream after that layer. The row `in` is the "
        "stream into layer 0. In exported pictures and files `row` counts from 0 for the embeddings, so that row 1 is "
        "the stream after layer 0."
    )
    said = "\n".join(f"- {note}" for note in notes)
    return "\n\n".join(part for part in (columns, what, f"{PICKED} {rule}" if rule else "", said) if part)


def geometry_files(inspection: Inspection) -> list[OwnFile]:
    """The geometry table as CSV and JSON, of both sides where both are known."""
    files = []
    for reading in inspection.readings.values():
        if (geometry := reading.geometry) is not None:
            name = f"geometry{suffix(reading.trial)}"
            files += [
                OwnFile(f"{name}.csv", "the geometry table, a row a layer", partial(as_csv, geometry)),
                OwnFile(f"{name}.json", "the same with the columns' meanings", partial(_json, geometry)),
            ]
    return files


def _json(geometry: Geometry) -> str:
    return json_line(as_json(geometry))
