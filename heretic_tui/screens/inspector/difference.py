"""Before and after a trial, layer by layer: whether the direction is really gone, and whether another one came."""

import csv
import io
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from heretic_tui.engine.inspection.change import Change
from heretic_tui.formats import one_line
from heretic_tui.inspections import Inspection, Reading, layer_name, name_of
from heretic_tui.screens.inspector.part import InspectorPart, OwnFile, suffix
from heretic_tui.screens.inspector.table import figure, line, mark
from heretic_tui.widgets.rows import Column, Row, Rows

PAIRS = (("cos_g_b", "S(g,b)", 1), ("silhouette", "silh", 2), ("norm_r", "|r|", 3), ("write", "write", 4))
"""The figures that stand for both sides: key, head, and which go first where room is short."""
NOTHING = """\
No trial is compared with the original model.

T  choose one of this run's trials
m  measure it, once it is chosen
"""


class DifferencePart(InspectorPart):
    """The original model beside the compared trial."""

    NAME: ClassVar[str] = "difference"
    HELP: ClassVar[str] = """
    `left` is how far apart the two sets still lie along the original model's direction of that layer, as a share of
    what it was: 0% means that the direction is gone. `else` is how far apart they lie along everything else; above 100%
    something else has come. `turn` is the cosine of the old and the new direction. Behind them stand the table's
    figures before and after (′).
    """
    NEEDS_VECTORS: ClassVar[bool] = False
    DEFAULT_CSS = """
    DifferencePart #change { height: auto; max-height: 8; margin-bottom: 1; }
    """

    def compose(self) -> ComposeResult:
        """The verdict, and a row a layer."""
        yield Static("", id="change", markup=False)
        yield Rows(*columns(), empty=NOTHING, id="differences", classes="layers")

    def show(self, inspection: Inspection) -> None:
        """Show what the compared trial has changed."""
        super().show(inspection)
        table = self.query_one(Rows)
        change = inspection.change
        words = self.query_one("#change", Static)
        words.display = change is not None
        if change is None:
            table.empty = _why_not(inspection)
            table.show(())
            return
        lines = [Content.assemble((change.verdict, "bold $primary"))]
        lines += [Content(one_line(sentence)) for sentence in change.evidence]
        words.update(Content("\n").join(lines))
        table.show(rows(inspection, change), key=inspection.row)

    @property
    def whose(self) -> str:
        """What is compared."""
        trial = self.inspection.trial if self.inspection is not None else None
        return "" if trial is None else f"original model → {name_of(trial)}"

    def files(self) -> list[OwnFile]:
        """The rows as CSV."""
        inspection = self.inspection
        if inspection is None or inspection.change is None or inspection.trial is None:
            return []
        name = f"difference{suffix(inspection.trial)}.csv"
        return [OwnFile(name, "what the trial has changed, a row a layer", partial(as_csv, inspection))]


def _why_not(inspection: Inspection) -> str:
    """What is wrong with one of the two sides, or that there is only one."""
    for number in (0, inspection.trial or 0):
        problem = inspection.readings.get(number, Reading(number)).problem
        if problem is not None:
            return f"{problem.cause}\n\n{problem.remedy}"
    return NOTHING


def columns() -> tuple[Column, ...]:
    """Layer, what is left, what else there is, how far it turned, and the pairs of figures."""
    pairs = [Column(head + dash, 7, "right", drop=drop) for _, head, drop in PAIRS for dash in ("", "′")]
    return (
        Column("layer", 5, "right"),
        Column("left", 6, "right"),
        Column("else", 6, "right"),
        Column("turn", 6, "right"),
        *pairs,
        Column("leak", 6, "right", drop=5),
    )


def rows(inspection: Inspection, change: Change) -> list[Row]:
    """A row a layer; those where the direction is still there in full are marked."""
    before = inspection.readings.get(0, Reading(0))
    after = inspection.readings.get(inspection.trial or 0, Reading(0))
    found = []
    for one in change.rows:
        old, new = line(before.geometry, one.row), line(after.geometry, one.row)
        pairs = [figure(getattr(side, key) if side else None) for key, _, _ in PAIRS for side in (old, new)]
        cells = (
            mark(before, one.row),
            _share(one.left),
            _share(one.other),
            "-" if one.cosine is None else f"{one.cosine:+.2f}",
            *pairs,
            figure(old.leak if old else None),
        )
        odd = one.other is not None and one.other > 1
        found.append(Row(one.row, cells, "rows--warning" if odd and one.row else ""))
    return found


def _share(share: float | None) -> str:
    return "-" if share is None else f"{round(share, 2) + 0.0:.0%}"  # no negative zero


def as_csv(inspection: Inspection) -> str:
    """The rows with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for key, _, _ in PAIRS for head in (key, f"{key}_after")]
    writer.writerow(["layer", "left", "else", "turn", *heads, "leak"])
    before = inspection.readings.get(0, Reading(0))
    after = inspection.readings.get(inspection.trial or 0, Reading(0))
    for one in inspection.change.rows if inspection.change is not None else ():
        old, new = line(before.geometry, one.row), line(after.geometry, one.row)
        pairs = [getattr(side, key) if side else None for key, _, _ in PAIRS for side in (old, new)]
        figures = (one.left, one.other, one.cosine, *pairs, old.leak if old else None)
        writer.writerow([layer_name(one.row), *("" if value is None else repr(value) for value in figures)])
    return text.getvalue()
