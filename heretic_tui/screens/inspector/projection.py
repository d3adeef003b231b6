"""The view of projections: every layer's residual vectors as points that flow from layer to layer."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.formats import duration
from heretic_tui.inspections import Inspection, name_of
from heretic_tui.screens.inspector.part import InspectorPart
from heretic_tui.screens.inspector.pictures import DRAWING, export_pictures
from heretic_tui.widgets.projection_plot import BAD, BOTH, GLYPHS, GOOD, Flow, ProjectionPlot, corners_of

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.projection import Projection

COMPUTING, READING = "projection", "saved projection"
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)
REST = 0.6
"""Seconds that a layer stands still at speed 1 while the layers play."""
WIDE = 72
"""Columns from which both states stand side by side."""
SIDES = ("original", "trial")

Key = tuple[Path, int]
"""A run's folder, and the trial that is projected together with its original; 0 for none."""


class ProjectionPart(InspectorPart, can_focus=True):
    """The points of the selected layer; with a trial, those of both states on the same axes."""

    NAME: ClassVar[str] = "projection"
    HELP: ClassVar[str] = """
    Each point is a prompt's residual vector after the selected layer, laid out by PaCMAP so that what is near in the
    stream is near here. Circles are good prompts, triangles bad ones, and they are fuller where several share a cell;
    a diamond stands where both kinds do. The picture is turned so that good prompts lie left and bad ones right.

    Left and right choose the layer and the points flow there; space plays all layers, + and - change the speed. With a
    trial, both states are laid out together, so that their places can be compared: side by side, or b where there is no
    room. Directions, sizes of groups and distances between far groups mean little: what is together and what is apart
    does. e writes a picture a layer and an animation.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "compute", "Compute", show=False, id="projection.compute", tooltip="Compute the projection"),
        Binding("space", "play", "Play", id="projection.play", tooltip="Play through the layers, or stop"),
        Binding(
            "plus,equals_sign", "speed(1)", "Faster", show=False, key_display="+", id="projection.faster",
            tooltip="Play faster",
        ),
        Binding("minus", "speed(-1)", "Slower", show=False, key_display="-", id="projection.slower",
                tooltip="Play slower"),
        Binding("escape", "stop", "Stop", show=False, id="projection.stop", tooltip="Stop computing or playing"),
    ]  # fmt: skip
    DEFAULT_CSS = """
    ProjectionPart #words { height: auto; color: $text-muted; padding: 1 1; display: none; }
    ProjectionPart #legend { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    ProjectionPart .state { height: 1; color: $text-muted; text-align: center; display: none; }
    ProjectionPart .side { width: 1fr; height: 1fr; }
    ProjectionPart #of-trial { border-left: solid $border-blurred; }
    ProjectionPart.-empty #words { display: block; }
    ProjectionPart.-empty #plots { display: none; }
    ProjectionPart.-empty #legend { display: none; }
    ProjectionPart.-both .state { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.speed = SPEEDS.index(1.0)
        self.playing = False
        self._rest: Timer | None = None
        self._known: dict[Key, Projection | None] = {}
        """What was read or computed; None where a folder keeps none."""
        self._flows: tuple[Projection, tuple[Flow, ...]] | None = None

    def compose(self) -> ComposeResult:
        """Words where there are no points, else a plot of each state and the legend."""
        yield Static("", id="words", markup=False)
        with Horizontal(id="plots"):
            for side in SIDES:
                with Vertical(classes="side", id=f"of-{side}"):
                    yield Static("", classes="state", markup=False)
                    yield ProjectionPlot(id=f"plot-{side}")
        yield Static("", id="legend", markup=False)

    # What is known

    @property
    def key(self) -> Key | None:
        """What is to be shown: the run's original model, or it together with the trial that is compared."""
        inspection = self.inspection
        if inspection is None:
            return None
        return inspection.path, inspection.trial if inspection.trial and inspection.of_trial is not None else 0

    @property
    def projection(self) -> "Projection | None":
        """The points, where they are known."""
        key = self.key
        return self._known.get(key) if key is not None else None

    @property
    def whose(self) -> str:
        """Both states where they stand side by side, else the one in front."""
        return "" if self.has_class("-both") else super().whose

    @property
    def title(self) -> str:
        """How the points were laid out, and whether they play."""
        if self.playing:
            return f"playing {SPEEDS[self.speed]:g}x"
        return self.projection.method if self.projection is not None else ""

    def show(self, inspection: Inspection) -> None:
        """Let the points flow to the selected layer; read them from the run's folder where they are not known."""
        super().show(inspection)
        key = self.key
        assert key is not None
        if key not in self._known:
            self.compute(READING, partial(_kept, key), partial(self._read, key), self._unread)
        self._show()

    def forget(self) -> None:
        """Take what the folder keeps anew: the vectors were measured again."""
        self._known.clear()

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Vectors that were measured again have other points."""
        from heretic_tui.engine.events import Measured

        if any(isinstance(event, Measured) for event in events):
            self.forget()

    def _read(self, key: Key, projection: "Projection | None") -> None:
        self._known[key] = projection
        self._show()
        self.say_title()

    def _unread(self, error: EngineError) -> None:
        if (key := self.key) is not None:
            self._known[key] = None
        self._complain(error)
        self._show()

    # Showing

    def _show(self) -> None:
        inspection, projection = self.inspection, self.projection
        if inspection is None:
            return
        self.set_class(projection is None, "-empty")
        words = self.query_one("#words", Static)
        if projection is None:
            words.update(self._words(inspection))
            self.remove_class("-both")
            return
        flows = self._flows_of(projection)
        both = len(flows) == 2 and self.size.width >= WIDE
        self.set_class(both, "-both")
        for index, side in enumerate(SIDES):
            seen = index < len(flows) and (both or len(flows) == 1 or side == inspection.side)
            self.query_one(f"#of-{side}").display = seen
            self.query_one(f"#of-{side}").set_class(not both, "-alone")
            if seen:
                number = (inspection.trial or 0) if index else 0
                self.query_one(f"#of-{side} .state", Static).update(name_of(number))
                plot = self.query_one(f"#plot-{side}", ProjectionPlot)
                plot.speed = SPEEDS[self.speed]
                plot.show(flows[index], inspection.row - 1)
        self.query_one("#legend", Static).update(self._legend(inspection, projection))

    def _flows_of(self, projection: "Projection") -> tuple[Flow, ...]:
        if self._flows is None or self._flows[0] is not projection:
            corners = corners_of(projection.all)
            found = [Flow(projection.good, projection.bad, corners)]
            if projection.good_after is not None and projection.bad_after is not None:
                found.append(Flow(projection.good_after, projection.bad_after, corners))
            self._flows = projection, tuple(found)
        return self._flows[1]

    def _words(self, inspection: Inspection) -> str:
        from heretic_tui.engine.inspection.projection import seconds_needed

        key, activity = self.key, self.control.state.beside.get(COMPUTING)
        if key not in self._known:
            return "Reading …"
        if activity is not None:
            far = f": {activity.amount}" if activity.done else ". PaCMAP is being made ready, which takes seconds"
            return f"The projection is being computed{far}.\n\nesc  stops it"
        sets = [one for one in (inspection.original, inspection.of_trial) if one is not None]
        if inspection.original is None:
            return "The original model's vectors are missing: b goes to it, m measures them."
        if key is not None and not key[1]:
            sets = sets[:1]
        needed = seconds_needed(inspection.rows - 1, sum(len(one.good) + len(one.bad) for one in sets))
        both = " Both states are laid out together, so that their points can be compared." if len(sets) > 1 else ""
        return (
            "Each layer's residual vectors as points on a plane, good and bad prompts: see where the model tells "
            f"them apart.{both}\n\nenter  compute it (about {duration(needed)}); it is kept in the run's folder"
        )

    def _legend(self, inspection: Inspection, projection: "Projection") -> Content:
        sign = {GOOD: ("good", "$secondary"), BAD: ("bad", "$accent"), BOTH: ("both", "$foreground")}
        counts = {GOOD: f" {projection.good.shape[1]}", BAD: f" {projection.bad.shape[1]}", BOTH: ""}
        parts = []
        for kind, (name, style) in sign.items():
            glyphs = GLYPHS[kind] if kind != BOTH else GLYPHS[kind][:1]
            parts.append(Content.assemble((glyphs, style), f"{counts[kind]} {name}"))
        silhouette = _silhouette(inspection)
        if silhouette:
            parts.append(Content(f"silhouette {silhouette}"))
        if not inspection.row:
            parts.append(Content("shown: layer 0; the stream into it is not projected"))
        return Content("  ").join(parts)

    def on_resize(self) -> None:
        """Both states side by side where there is room."""
        if self.ready:
            self._show()
            self.say_title()  # whose points they are is said only where one state stands alone

    # Computing

    def action_compute(self) -> None:
        """Compute the points, and keep them in the run's folder."""
        key, inspection = self.key, self.inspection
        if key is None or inspection is None or inspection.original is None or self._known.get(key, self) is not None:
            raise SkipAction
        if COMPUTING not in self.control.state.beside:
            self.compute(COMPUTING, partial(_computed, key), partial(self._read, key), self._unread, self._heard)
            self._show()

    def _heard(self, _: Event) -> None:
        if self.projection is None and self.inspection is not None:
            self.query_one("#words", Static).update(self._words(self.inspection))

    def action_stop(self) -> None:
        """Stop playing, or computing; else escape is the screen's."""
        if self.playing:
            self.action_play()
        elif COMPUTING in self._jobs and not self._jobs[COMPUTING].over:
            self.stop_computing(COMPUTING)
            self._show()
        elif DRAWING in self._jobs and not self._jobs[DRAWING].over:
            self.stop_computing(DRAWING)
            self.notify("The pictures were not written.", markup=False)
        else:
            raise SkipAction

    def stop_all(self) -> None:
        """Stop what is being computed, and say so."""
        super().stop_all()
        if self.query("#words"):  # else the view is on its way out
            self._show()

    # Playing

    def action_play(self) -> None:
        """Go through the layers by itself, or stop."""
        if self.projection is None:
            return
        self.playing = not self.playing
        self.say_title()
        if self.playing:
            self._next()
        elif self._rest is not None:
            self._rest.stop()

    def action_speed(self, by: int) -> None:
        """Play faster or slower."""
        self.speed = max(0, min(self.speed + by, len(SPEEDS) - 1))
        for plot in self.query(ProjectionPlot):
            plot.speed = SPEEDS[self.speed]
        self.say_title()
        if not self.playing:
            self.notify(f"Speed {SPEEDS[self.speed]:g}x: space plays.", timeout=2, markup=False)

    def on_projection_plot_arrived(self) -> None:
        """Rest a moment at a layer, then go on."""
        if self.playing:
            if self._rest is not None:
                self._rest.stop()
            self._rest = self.set_timer(REST / SPEEDS[self.speed], self._next)

    def _next(self) -> None:
        inspection = self.inspection
        if not self.playing or inspection is None or self.projection is None:
            return
        if not (self.display and self.screen.is_active) or inspection.rows < 3:
            self.playing = False
            self.say_title()
            return
        self.choose_row(inspection.row + 1 if 0 < inspection.row < inspection.rows - 1 else 1)

    # Files

    def export(self) -> None:
        """Ask where pictures and animation go."""
        key = self.key
        if key is None or self.inspection is None or self.inspection.original is None:
            self.notify("There are no vectors yet to draw.", markup=False)
            return
        export_pictures(self, *key, partial(self._drawn, key))

    def _drawn(self, key: Key) -> None:
        """What was computed for the pictures is in the run's folder now."""
        if self._known.get(key) is None:
            self._known.pop(key, None)
            if self.inspection is not None and self.display:
                self.show(self.inspection)


def _kept(key: Key) -> "Job[Projection | None]":
    from heretic_tui.engine.inspection.projection import kept_projection
    from heretic_tui.engine.runs.run import Run

    return in_background(lambda _: kept_projection(Run(key[0]), key[1]))


def _computed(key: Key) -> "Job[Projection]":
    from heretic_tui.engine.inspection.projection import project_run
    from heretic_tui.engine.runs.run import Run

    return project_run(Run(key[0]), key[1])


def _silhouette(inspection: Inspection) -> str:
    geometry = inspection.shown.geometry
    row = geometry.rows[inspection.row] if geometry is not None and inspection.row < len(geometry.rows) else None
    return "" if row is None or row.silhouette is None else f"{row.silhouette:.2f}"
