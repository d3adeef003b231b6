"""How alike the layers' directions are: a heatmap of their cosines, the verdict in words, and what it rests on."""

import csv
import io
import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from heretic_tui.engine.inspection.similarity import Similarity
from heretic_tui.formats import json_line, one_line
from heretic_tui.inspections import Inspection, Reading, layer_name, name_of
from heretic_tui.screens.inspector.part import InspectorPart, OwnFile, suffix
from heretic_tui.widgets.heatmap import Heatmap
from heretic_tui.widgets.layer_weights import BARS

LOW = 26
"""Lines below which the words stand beside the heatmap."""
SPECTRUM = 16
"""Singular values whose shares are drawn."""


class SimilarityPart(InspectorPart):
    """The cosine of every layer's direction with every other's."""

    NAME: ClassVar[str] = "similarity"
    HELP: ClassVar[str] = """
    Each cell is the cosine of the directions of two layers: left and right choose the one, up and down the other. One
    block of one colour means one direction in all those layers. The spectrum tells how many directions there really
    are: each bar is a singular value's share of the layers' stacked unit directions.
    """
    DEFAULT_CSS = """
    SimilarityPart Horizontal { height: auto; }
    SimilarityPart Heatmap { width: 1fr; }
    SimilarityPart #other { display: none; margin-left: 2; }
    SimilarityPart.-both #other { display: block; }
    SimilarityPart #verdict { height: 1fr; min-height: 2; scrollbar-size-vertical: 1; }
    SimilarityPart.-beside { layout: horizontal; }
    SimilarityPart.-beside Horizontal { width: auto; height: 1fr; }
    SimilarityPart.-beside Heatmap { height: 1fr; }
    SimilarityPart.-beside #verdict { width: 1fr; height: 1fr; margin-left: 2; }
    SimilarityPart #words { height: auto; }
    """

    def compose(self) -> ComposeResult:
        """The heatmaps of both sides, and the verdict below."""
        with Horizontal():
            yield Heatmap("no direction at any layer", id="own")
            yield Heatmap(id="other")
        yield VerticalScroll(Static("", id="words", markup=False), id="verdict")

    def show(self, inspection: Inspection) -> None:
        """Draw this side, and the other one beside it where there is room."""
        super().show(inspection)
        names = tuple(layer_name(row) for row in range(inspection.rows))
        both = inspection.other is not None and self._roomy
        own, second = self.query_one("#own", Heatmap), self.query_one("#other", Heatmap)
        title = name_of(inspection.number) if both else ""
        _draw(own, inspection.shown, names, inspection.row, title)
        if both and inspection.other is not None:
            second.row = own.row
            _draw(second, inspection.other, names, inspection.row, name_of(inspection.other.trial))
        self._arrange()
        self._say()

    @property
    def _roomy(self) -> bool:
        return self.size.width >= 70

    def on_mount(self) -> None:
        """The cursor begins on the diagonal, at the layer that is selected."""
        if self.inspection is None and (found := self.control.state.inspection) is not None:
            self.query_one("#own", Heatmap).row = found.row

    def on_resize(self) -> None:
        """Both sides where there is room for them."""
        if self.inspection is not None and self.ready:
            self.show(self.inspection)

    def _arrange(self) -> None:
        """The words beside the heatmap where lines are few, else below it."""
        both = self.inspection is not None and self.inspection.other is not None and self._roomy
        self.set_class(both, "-both")
        self.set_class(not both and self.size.height < LOW, "-beside")
        beside = self.has_class("-beside")
        own, second = self.query_one("#own", Heatmap), self.query_one("#other", Heatmap)
        self.query_one(Horizontal).styles.max_height = None if beside else self.size.height - 2
        own.styles.width = own.width_for(self.size.height, self.size.width * 2 // 3) if beside else "1fr"
        second.styles.width = "1fr"

    def on_heatmap_moved(self, event: Heatmap.Moved) -> None:
        """Both heatmaps have one cursor; a click chooses the layer too."""
        for heatmap in self.query(Heatmap):
            if heatmap is not event.heatmap:
                heatmap.put_row(event.heatmap.row)
        if event.column is not None:
            self.choose_row(event.column)
        self._say()

    @property
    def title(self) -> str:
        """The value under the cursor."""
        heatmap = self.query_one("#own", Heatmap)
        value = heatmap.value
        if value is None:
            return ""
        return f"with {layer_name(heatmap.row)}"

    def files(self) -> list[OwnFile]:
        """The cosines as CSV, and the verdict with its evidence as JSON."""
        files = []
        for reading in self.inspection.readings.values() if self.inspection is not None else ():
            if (similarity := reading.similarity) is not None:
                name = f"similarity{suffix(reading.trial)}"
                files += [
                    OwnFile(f"{name}.csv", "cosines, layer by layer", partial(as_csv, similarity.cosines)),
                    OwnFile(f"{name}.json", "the verdict, its evidence, the spectrum", partial(as_json, similarity)),
                ]
        return files

    def _say(self) -> None:
        inspection = self.inspection
        if inspection is None:
            return
        own = self.query_one("#own", Heatmap)
        lines = [self._pointed(inspection, own)]
        readings = [inspection.shown]
        if inspection.other is not None:
            readings.append(inspection.other)
        for reading in readings:
            if reading.similarity is not None:
                lines += _words(reading, named=len(readings) > 1)
        self.query_one("#words", Static).update(Content("\n").join(lines))
        self.say_title()

    @staticmethod
    def _pointed(inspection: Inspection, own: Heatmap) -> Content:
        value = own.value
        if value is None:
            return Content("")
        second = ""
        similarity = inspection.other.similarity if inspection.other is not None else None
        if similarity is not None and inspection.other is not None:
            beside = float(similarity.cosines[own.row, own.column])
            second = f"   {name_of(inspection.other.trial)} {_signed(beside)}"
        where = f"{layer_name(own.column)} with {layer_name(own.row)}"
        return Content.assemble((where, "bold"), f": {_signed(value)}", (second, "$foreground-muted"))


def _draw(heatmap: Heatmap, reading: Reading, names: tuple[str, ...], row: int, title: str) -> None:
    cosines = reading.similarity.cosines if reading.similarity is not None else np.zeros((0, 0))
    heatmap.show(cosines, names[: len(cosines)], min(row, max(0, len(cosines) - 1)), title)


def _words(reading: Reading, *, named: bool) -> list[Content]:
    """Verdict, evidence and spectrum of one side."""
    similarity = reading.similarity
    assert similarity is not None
    whose = f"{name_of(reading.trial)}: " if named else ""
    lines = [Content.assemble((f"{whose}{similarity.verdict}", "bold $primary"))]
    lines += [Content(one_line(sentence)) for sentence in similarity.evidence]
    if similarity.spectrum:
        bars = "".join(
            BARS[max(1, round(share * 8))] if share >= 0.005 else "·" for share in similarity.spectrum[:SPECTRUM]
        )
        shares = " ".join(f"{share:.0%}" for share in similarity.spectrum[:4])
        lines.append(Content.assemble(("spectrum ", "$foreground-muted"), bars, (f"  {shares} …", "$foreground-muted")))
    return lines


def _signed(value: float) -> str:
    return "no direction" if np.isnan(value) else f"{value:+.3f}"


def as_csv(cosines: NDArray[np.float64]) -> str:
    """The cosines with the layers' names at the head of every row and column; empty where there is no direction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", *(layer_name(row) for row in range(len(cosines)))])
    for row, values in enumerate(cosines.tolist()):
        writer.writerow([layer_name(row), *("" if math.isnan(value) else repr(value) for value in values)])
    return text.getvalue()


def as_json(similarity: Similarity) -> str:
    """The verdict and what it rests on."""
    evidence: Sequence[str] = similarity.evidence
    return json_line(
        {
            "verdict": similarity.verdict,
            "kind": similarity.kind,
            "dimension": similarity.dimension,
            "block": None if similarity.block is None else list(similarity.block),
            "evidence": list(evidence),
            "spectrum": list(similarity.spectrum),
        }
    )
