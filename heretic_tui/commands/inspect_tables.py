"""Tables of what the inspector measures, for the command line."""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from heretic_tui.engine.inspection.geometry import COLUMNS, Geometry, LayerGeometry, cosine
from heretic_tui.engine.inspection.layer_rule import Picks
from heretic_tui.formats import plain

FIRST = (
    "cos_g_b",
    "norm_r",
    "silhouette",
    "good_mean_variance",
    "bad_mean_variance",
    "write",
    "leak",
    "cos_gm_bm",
    "norm_rm",
    "good_max_variance",
    "bad_max_variance",
    "norm_g",
    "norm_b",
)
"""Columns in the order in which a narrow terminal has room for them; all of them are in the files."""
CELL = 9
"""Characters that a column takes, with its margin."""


def geometry_table(title: str, geometry: Geometry, picks: Picks, width: int | None = None) -> Table:
    """The geometry table with as many columns as fit `width`, the picked layers marked with a star."""
    room = ((width or Console().width) - 8) // CELL
    order = [*FIRST, *(column.key for column in COLUMNS if column.key not in FIRST)]
    chosen = {key for key in order[: max(1, room)] if any(getattr(row, key) is not None for row in geometry.rows)}
    columns = [column for column in COLUMNS if column.key in chosen]
    table = Table(title=Text(plain(title)), title_justify="left", box=None, header_style="bold")
    table.add_column("layer", justify="right")
    for column in columns:
        table.add_column(column.symbol, justify="right", no_wrap=True)
    for row in geometry.rows:
        picked = row.row in picks.rows
        cells = [figure_text(column.key, getattr(row, column.key)) for column in columns]
        table.add_row(f"{'*' if picked else ''}{row.name}", *cells, style="bold" if picked else None)
    return table


def change_table(
    before: Geometry, after: Geometry, directions: NDArray[np.float64], turned: NDArray[np.float64]
) -> Table:
    """The original model beside a trial; how far the directions have turned is the cosine of the two."""
    table = Table(title="before and after", title_justify="left", box=None, header_style="bold")
    table.add_column("layer", justify="right")
    keys = ("cos_g_b", "norm_r", "silhouette", "write")
    symbols = {column.key: column.symbol for column in COLUMNS}
    for key in keys:
        table.add_column(symbols[key], justify="right", no_wrap=True)
    table.add_column("S(r,r')", justify="right")
    for first, second in zip(before.rows, after.rows, strict=True):
        cells = [f"{_of(first, key)} > {_of(second, key)}" for key in keys]
        same = cosine(directions[first.row], turned[first.row])
        table.add_row(first.name, *cells, figure_text("cos", same))
    return table


def _of(row: LayerGeometry, key: str) -> str:
    return figure_text(key, getattr(row, key))


def figure_text(key: str, figure: float | None) -> str:
    """A figure as the table shows it: three decimals for what lies between -1 and 1, three digits for the rest."""
    if figure is None:
        return "-"
    if key in {"silhouette", "write", "leak"} or "cos" in key:
        return f"{figure:.3f}"
    return f"{figure:.3g}"


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    Console(highlight=False).print(table)


def print_text(text: str) -> None:
    """Print a line, on a terminal broken between words and indented as it begins."""
    console = Console(highlight=False)
    inner = text.lstrip(" ")
    if console.is_terminal:
        console.print(Padding(Text(plain(inner)), (0, 0, 0, len(text) - len(inner)), expand=False))
    else:
        console.print(Text(plain(text)), soft_wrap=True)
