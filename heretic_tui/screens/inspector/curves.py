"""Curves over the layers: cosines, variances, lengths, silhouette and leak, with the layers that the rule picks."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from heretic_tui.engine.inspection.geometry import Geometry
from heretic_tui.formats import one_line
from heretic_tui.inspections import Inspection, Reading, layer_name, name_of
from heretic_tui.screens.inspector.part import InspectorPart, OwnFile
from heretic_tui.screens.inspector.table import PICKED, figure, geometry_files
from heretic_tui.widgets.curves import Chart, Curves, Line

Spec = tuple[str, str, str, str]
"""A line: its name, the column that it shows, its glyph, and its look."""
SUBJECTS: tuple[tuple[str, bool, tuple[Spec, ...]], ...] = (
    (
        "cosine of the means",
        False,
        (
            ("S(g,b)", "cos_g_b", "●", "plain"),
            ("medians", "cos_gm_bm", "◆", "good"),
            ("mid", "mid_cos_g_b", "△", "bad"),
        ),
    ),
    ("silhouette", False, (("silh", "silhouette", "●", "plain"),)),
    (
        "mean variance",
        True,
        (
            ("good", "good_mean_variance", "○", "good"),
            ("bad", "bad_mean_variance", "▲", "bad"),
            ("good mid", "mid_good_mean_variance", "◦", "good"),
            ("bad mid", "mid_bad_mean_variance", "△", "bad"),
        ),
    ),
    (
        "largest variance",
        True,
        (
            ("good", "good_max_variance", "○", "good"),
            ("bad", "bad_max_variance", "▲", "bad"),
            ("good mid", "mid_good_max_variance", "◦", "good"),
            ("bad mid", "mid_bad_max_variance", "△", "bad"),
        ),
    ),
    (
        "length of means and direction",
        True,
        (("|g|", "norm_g", "○", "good"), ("|b|", "norm_b", "▲", "bad"), ("|r|", "norm_r", "●", "plain")),
    ),
    (
        "share written along the direction",
        False,
        (("write", "write", "○", "good"), ("leak", "leak", "▲", "bad")),
    ),
)
"""The charts: title, whether a logarithmic scale may be used, and the lines."""
EMPTY = {
    "silhouette": "being computed …",
    "share written along the direction": "not measured: m measures it with the model",
}
MARK = "′"
"""Behind the name of a line of the side that is not shown."""


class CurvesPart(InspectorPart):
    """What is measured of every layer, as curves; with a trial that is compared, both sides in one picture."""

    NAME: ClassVar[str] = "curves"
    HELP: ClassVar[str] = """
    Up and down choose the chart, left and right the layer; below stand the figures of all its lines there. Lines are
    told apart by their marks and the names at their ends: ○ good prompts, ▲ bad ones, small marks the stream between
    attention and MLP. With a trial that is compared, the other side is dotted and its names end in ′. The stars on the
    axis are the layers that the rule picks.
    """
    DEFAULT_CSS = """
    CurvesPart #figures { height: auto; max-height: 3; }
    CurvesPart #rule { height: auto; max-height: 5; color: $text-muted; }
    CurvesPart.-low #rule { max-height: 1; }
    """

    def compose(self) -> ComposeResult:
        """The charts, the figures at the cursor, and the rule."""
        yield Curves(id="charts")
        yield Static("", id="figures", markup=False)
        yield Static("", id="rule", markup=False)

    def show(self, inspection: Inspection) -> None:
        """Draw the charts of this side, and of the other one dotted."""
        super().show(inspection)
        reading, other = inspection.shown, inspection.other
        names = tuple(layer_name(row) for row in range(inspection.rows))
        picked = frozenset(reading.picks.rows if reading.picks is not None else ())
        self.query_one(Curves).show(charts(reading, other), names, inspection.row, picked)
        self._say()

    @property
    def title(self) -> str:
        """What the dotted lines are."""
        other = self.inspection.other if self.inspection is not None else None
        return "" if other is None else f"{MARK} {name_of(other.trial)}"

    def files(self) -> list[OwnFile]:
        """The figures behind the curves: the geometry table."""
        return geometry_files(self.inspection) if self.inspection is not None else []

    def on_resize(self) -> None:
        """The rule in full where there is room."""
        self.set_class(self.size.height < 20, "-low")
        self._say()

    def on_curves_chosen(self) -> None:
        """Say the figures of the chart that was chosen."""
        self._say()

    def on_curves_pointed(self, event: Curves.Pointed) -> None:
        """A click chooses the layer."""
        self.choose_row(event.row)

    def _say(self) -> None:
        inspection, curves = self.inspection, self.query_one(Curves)
        chart = curves.chart
        if inspection is None or chart is None:
            return
        own = Content.assemble((f"layer {layer_name(inspection.row)}", "bold"))
        words = [_figures(own, [line for line in chart.lines if not line.dotted], inspection.row)]
        if inspection.other is not None:
            whose = Content.assemble((f"{MARK} {name_of(inspection.other.trial)}", "$foreground-muted"))
            words.append(_figures(whose, [line for line in chart.lines if line.dotted], inspection.row))
        self.query_one("#figures", Static).update(Content("\n").join(words))
        self.query_one("#rule", Static).update(_rule(inspection.shown, brief=self.has_class("-low")))


def _figures(head: Content, lines: Sequence[Line], row: int) -> Content:
    """The figures of lines at a row, each with its mark."""
    parts = [head]
    for line in lines:
        value = line.values[row] if row < len(line.values) else None
        if value is not None:
            look = {"good": "$secondary", "bad": "$accent"}.get(line.look, "$primary")
            name = line.name.removesuffix(MARK)
            style = "$foreground-muted" if line.dotted else look
            parts.append(Content.assemble((line.glyph, style), f" {name} {figure(value)}"))
    return Content("  ").join(parts)


def _rule(reading: Reading, *, brief: bool) -> str:
    """Which layers are picked and why, in one line or in full."""
    picks = reading.picks
    if picks is None:
        return ""
    if not picks.rows:
        return one_line(f"No layer is picked. {picks.reason}")
    picked = f"{PICKED} {', '.join(str(layer) for layer in picks.layers)}, best first"
    if brief:
        return f"{picked}: low cosine, then low variances; l says more"
    return one_line(f"{picked}. {picks.rule}")


def charts(reading: Reading, other: Reading | None) -> tuple[Chart, ...]:
    """All charts, with the lines of both sides."""
    found = []
    for title, logarithmic, specs in SUBJECTS:
        lines = _lines(reading.geometry, specs)
        if other is not None:
            lines += _lines(other.geometry, specs, dotted=True)
        empty = EMPTY.get(title, "no figures")
        if title == "silhouette" and reading.geometry is not None and reading.geometry.whole:
            empty = "needs two prompts of each set"
        found.append(Chart(title, tuple(lines), logarithmic, empty))
    return tuple(found)


def _lines(geometry: Geometry | None, specs: tuple[Spec, ...], *, dotted: bool = False) -> list[Line]:
    if geometry is None:
        return []
    lines = []
    for name, key, glyph, look in specs:
        values = tuple(getattr(row, key) for row in geometry.rows)
        if any(value is not None for value in values):
            lines.append(Line(f"{name}{MARK}" if dotted else name, values, glyph, look, dotted))
    return lines
