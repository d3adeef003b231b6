"""How much the directions depend on how the residual vectors are taken: cosines with the run's own, layer by layer."""

import csv
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.sensitivity import Sensitivity, Variant, sensitivity_json
from heretic_tui.formats import json_line, one_line, plain
from heretic_tui.inspections import Inspection, layer_name, read_sensitivity
from heretic_tui.screens.inspector.part import InspectorPart, OwnFile, may_ask
from heretic_tui.widgets.curves import Chart, Curves, Line
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.worker import JobEnded, JobStarted

if TYPE_CHECKING:
    from heretic_tui.engine.background import Job
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.loading.loader import Loader

SENSITIVITY = "sensitivity"
"""The title of the engine's job."""
GLYPHS = ("●", "○", "▲", "△", "◆", "◇", "■", "□")
LOOKS = ("plain", "good", "bad")
LONGEST = 14
"""Cells of a line's name at its end."""
NOTHING = """\
How much do the directions depend on how they are taken? This was not measured for this run yet.

m  measures it with the model: prompts one at a time, other positions of the template's end, without a system prompt,
without any template; some 64 prompts of each set
"""


class SensitivityPart(InspectorPart):
    """Cosines of the run's own directions with those from other ways to take the vectors."""

    NAME: ClassVar[str] = "sensitivity"
    HELP: ClassVar[str] = """
    Each line is another way to take the residual vectors: the cosine of its direction with the run's own, layer by
    layer. Near 1 the way makes no difference. `as measured` is the run's own way with fewer prompts: what lies below
    it is more than chance. Up and down change between the ways of reading and the positions before the last.
    """
    NEEDS_VECTORS: ClassVar[bool] = False
    DEFAULT_CSS = """
    SensitivityPart #ways { height: auto; max-height: 45%; margin-top: 1; }
    SensitivityPart #unmeasured { height: auto; padding: 1; color: $text-muted; }
    SensitivityPart.-empty Curves { display: none; }
    SensitivityPart.-empty #ways { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Sensitivity | None = None
        self.problem: EngineError | None = None
        self._read: Path | None = None
        """The run that was read, or is being read."""

    def compose(self) -> ComposeResult:
        """What is to be done, or the curves and the ways by name."""
        yield Static("", id="unmeasured", markup=False)
        yield Curves(id="ways-curves")
        yield Rows(
            Column("", 1), Column("way", least=16), Column("here", 7, "right"), Column("lowest", 7, "right"), id="ways"
        )

    @property
    def whose(self) -> str:
        """It is about the original model."""
        return "original model"

    def show(self, inspection: Inspection) -> None:
        """Show what the run's folder keeps."""
        super().show(inspection)
        if self._read != inspection.path:
            self._read_again()
        self._show()

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Read what was measured."""
        for event in events:
            if isinstance(event, JobEnded) and event.title == SENSITIVITY:
                self._read_again()
            elif isinstance(event, JobStarted):
                self._show()

    def _read_again(self) -> None:
        if self.inspection is not None:
            path = self._read = self.inspection.path
            self.found = self.problem = None
            self.run_worker(partial(self._read_now, path), thread=True, group="read", exit_on_error=False)

    def _read_now(self, path: Path) -> None:
        try:
            found, problem = read_sensitivity(path), None
        except EngineError as error:
            found, problem = None, error
        self.call_later(self._known, path, found, problem)

    def _known(self, path: Path, found: Sensitivity | None, problem: EngineError | None) -> None:
        if path == self._read:
            self.found, self.problem = found, problem
            self._show()

    def _show(self) -> None:
        inspection, found = self.inspection, self.found
        self.set_class(found is None, "-empty")
        words = self.query_one("#unmeasured", Static)
        words.display = found is None
        if inspection is None:
            return
        if found is None:
            if self.control.worker.current == SENSITIVITY:
                words.update("The model reads the prompts in other ways. x stops it.")
            else:
                words.update(plain(f"{self.problem.cause}\n\n{self.problem.remedy}" if self.problem else NOTHING))
            return
        names = tuple(layer_name(row) for row in range(len(found.variants[0].cosines) if found.variants else 0))
        self.query_one(Curves).show(charts(found), names, inspection.row, frozenset())
        self._show_ways()

    def _show_ways(self) -> None:
        """The ways of the chosen chart, each with its cosine at this layer and its lowest one."""
        inspection, found = self.inspection, self.found
        if inspection is None or found is None:
            return
        rows = []
        for kind in groups(found):
            for index, one in enumerate(kind):
                here = one.cosines[inspection.row] if inspection.row < len(one.cosines) else math.nan
                rows.append(
                    Row(one.name, (glyph(index), f"{one.name}: {one.meaning}", _figure(here), _figure(one.lowest)))
                )
        self.query_one("#ways", Rows).show(rows)

    def on_curves_pointed(self, event: Curves.Pointed) -> None:
        """A click chooses the layer."""
        self.choose_row(event.row)

    def measure_own(self) -> bool:
        """Take the vectors in other ways, as a job of the engine."""
        inspection = self.inspection
        if inspection is None or not may_ask(self):
            return True

        def job(subject: "Subject", load: "Loader") -> "Job[Sensitivity]":
            from heretic_tui.engine.inspection.sensitivity_measuring import measure_sensitivity
            from heretic_tui.engine.runs.run import Run

            return measure_sensitivity(Run(inspection.path), load=load)

        self.control.inspect(SENSITIVITY, inspection.path, job)
        return True

    def files(self) -> list[OwnFile]:
        """The cosines as CSV and JSON."""
        if self.found is None:
            return []
        return [
            OwnFile("sensitivity.csv", "cosines with the run's own directions", partial(as_csv, self.found)),
            OwnFile("sensitivity.json", "the same with what each way is", partial(_as_json, self.found)),
        ]


def groups(found: Sensitivity) -> tuple[list[Variant], list[Variant]]:
    """The ways of reading, and the positions before the last."""
    positions = [one for one in found.variants if one.name.startswith("position")]
    return [one for one in found.variants if one not in positions], positions


def charts(found: Sensitivity) -> tuple[Chart, ...]:
    """A chart of each kind of ways that was tried."""
    titles = (
        f"cosine with the run's own directions, {found.prompts} prompts of each set",
        "the same, at other positions of the template's end",
    )
    return tuple(
        Chart(title, tuple(_line(index, one) for index, one in enumerate(kind)))
        for title, kind in zip(titles, groups(found), strict=True)
        if kind
    )


def _line(index: int, one: Variant) -> Line:
    name = one_line(one.name).removeprefix("position ")
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    values = tuple(None if math.isnan(cosine) else cosine for cosine in one.cosines)
    return Line(name, values, glyph(index), LOOKS[index % len(LOOKS)])


def glyph(index: int) -> str:
    """The mark of the line of that number."""
    return GLYPHS[index % len(GLYPHS)]


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"


def as_csv(found: Sensitivity) -> str:
    """A row a layer, a column a way."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", *(one.name for one in found.variants)])
    for row in range(len(found.variants[0].cosines) if found.variants else 0):
        cosines = [one.cosines[row] for one in found.variants]
        writer.writerow([layer_name(row), *("" if math.isnan(cosine) else repr(cosine) for cosine in cosines)])
    return text.getvalue()


def _as_json(found: Sensitivity) -> str:
    return json_line(sensitivity_json(found))
