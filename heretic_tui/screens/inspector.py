"""The residual inspector: layers with their metrics at the left, one view of the stream at the right."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from heretic_tui.engine import events
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.formats import plain
from heretic_tui.inspections import Inspection, layer_name, name_of
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.inspector_part import InspectorPart
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.text import data
from heretic_tui.worker import JobEnded

VIEWS = {
    "curves": ("c", "inspector_curves", "CurvesPart"),
    "similarity": ("s", "inspector_similarity", "SimilarityPart"),
    "projection": ("p", "inspector_projection", "ProjectionPart"),
    "tokens": ("t", "inspector_tokens", "TokensPart"),
    "sensitivity": ("v", "inspector_sensitivity", "SensitivityPart"),
}
"""The views by name: key, module and class; each is imported and mounted when it is first chosen."""
REDRAW = 0.25
"""Seconds between two looks at how far things have come."""


class InspectorScreen(FrameScreen):
    """Shows the residual stream of the run that the app is about, layer by layer."""

    MODE: ClassVar[str] = "inspector"
    CSS_PATH = "inspector.tcss"
    HELP: ClassVar[str] = """
    The residual stream of the run that the app shows, layer by layer: where the model tells good prompts from bad ones,
    and whether a trial still does.

    Left and right (or [ and ]) go through the layers in every view.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                key, f"view('{name}')", name.capitalize(), show=False, id=f"inspector.{name}", tooltip=f"View: {name}"
            )
            for name, (key, _, _) in VIEWS.items()
        ),
        Binding("left,left_square_bracket", "layer(-1)", "Layer before", show=False, id="inspector.left"),
        Binding("right,right_square_bracket", "layer(1)", "Layer after", show=False, id="inspector.right"),
        Binding("e", "export", "Export", id="inspector.export", tooltip="Write what is shown to files"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = "curves"
        self.reading: Path | None = None
        """The run that is being read."""
        self.problem: EngineError | None = None

    def body(self) -> ComposeResult:
        """The views' names, the layers, the view in front, and how far things have come."""
        yield Static("", id="views", markup=False)
        with Horizontal(id="inspector"):
            with Vertical(id="layers", classes="panel"):
                yield Rows(Column("layer", 5, "right"), id="table")
            with Vertical(id="front", classes="panel"):
                yield Static("", id="nothing", markup=False)
        yield ProgressLine(id="inspecting")

    def on_mount(self) -> None:
        """Name the panels and begin to look."""
        self.query_one("#layers").border_title = "Layers"
        self.set_interval(REDRAW, self._look)

    @property
    def inspection(self) -> Inspection | None:
        """What was read of the run that is shown."""
        found = self.state.inspection
        return found if found is not None and found.path == self.state.shown else None

    @property
    def part(self) -> InspectorPart | None:
        """The view in front, once it is mounted."""
        return next(iter(self.query(f"#{self.view}").results(InspectorPart)), None)

    # Following the engine, and reading

    def engine_changed(self, events_: Sequence[Event]) -> None:
        """Read the run that is shown, and again where a job may have measured what was missing."""
        inspection = self.inspection
        if inspection is None or (inspection.original is None and any(_may_have_measured(event) for event in events_)):
            self._read()
        if not events_:
            self._show_all()
        if (part := self.part) is not None:
            part.engine_changed(events_)

    def _look(self) -> None:
        if self.app.screen_stack[0] is not self:
            return
        activity = self.state.activity or next(iter(self.state.beside.values()), None)
        line = self.query_one(ProgressLine)
        line.set_class(activity is not None, "-shown")
        if activity is not None or line.activity is not None:
            line.show(activity)

    def _read(self) -> None:
        path = self.state.shown
        if path is not None and path != self.reading:
            self.reading = path
            self.run_worker(partial(self._read_now, path), thread=True, group="read", exit_on_error=False)

    def _read_now(self, path: Path) -> None:
        from heretic_tui.inspections import read_inspection
        from heretic_tui.profile.problems import ProfileError

        try:
            found = read_inspection(path)
        except EngineError as error:
            self.call_later(self._unread, path, error)
        except ProfileError as error:
            self.call_later(self._unread, path, EngineError(str(error)))
        else:
            self.call_later(self._opened, found)

    def _opened(self, inspection: Inspection) -> None:
        self.reading = None
        self.problem = None
        if inspection.path == self.state.shown:
            self.state.inspection = inspection
        self._show_all()

    def _unread(self, path: Path, error: EngineError) -> None:
        self.reading = None
        if path == self.state.shown:
            self.problem = error
            self._show_all()

    # Showing

    def _show_all(self) -> None:
        inspection = self.inspection
        self.set_class(inspection is None or inspection.rows == 0, "-empty")
        self._show_table()
        self._show_front()

    def _show_table(self) -> None:
        inspection = self.inspection
        rows = [Row(row, (layer_name(row),)) for row in range(inspection.rows if inspection else 0)]
        self.query_one("#table", Rows).show(rows, key=inspection.row if inspection else None)

    def _show_front(self) -> None:
        """Let the view in front show what is selected, or say why it cannot."""
        inspection = self.inspection
        _, module, name = VIEWS[self.view]
        try:
            kind: type[InspectorPart] = getattr(import_module(f"heretic_tui.screens.{module}"), name)
        except ModuleNotFoundError:
            kind = InspectorPart
        words = self._nothing(kind)
        self.set_class(bool(words), "-nothing")
        self.query_one("#nothing", Static).update(plain(words))
        if words or inspection is None:
            self._show_names()
            return
        part = self.part
        if part is None:
            part = kind()
            self.query_one("#front").mount(part)
            self.call_after_refresh(self._show_front)
            return
        for one in self.query(InspectorPart):
            one.display = one is part
        part.show(inspection)
        self._show_names()

    def _nothing(self, kind: type[InspectorPart]) -> str:
        """What stands in the view's place: what is wrong or missing, and what to press; empty where nothing is."""
        inspection = self.inspection
        if self.state.shown is None:
            return "No run is open.\n\n1  choose a model, or open a run of earlier days"
        if self.problem is not None:
            return str(self.problem)
        if inspection is None:
            return "Reading the run's folder …"
        if kind.NEEDS_VECTORS and inspection.shown.missing:
            problem = inspection.shown.problem
            return f"{problem.cause}\n\n{problem.remedy}" if problem else "Reading …"
        return ""

    def _show_names(self) -> None:
        """The views' names with the one in front marked, and the titles."""
        names = Content("  ").join(
            Content.assemble((f" {key} {name} ", "bold $block-cursor-foreground on $block-cursor-background"))
            if name == self.view
            else Content.from_markup(f"[@click=screen.view('{name}')] $text [/]", text=f"{key} {name}")
            for name, (key, _, _) in VIEWS.items()
        )
        self.query_one("#views", Static).update(names)
        inspection, part = self.inspection, self.part
        front = self.query_one("#front")
        if inspection is None:
            front.border_title = self.view
            return
        parts = [
            self.view,
            name_of(inspection.number),
            f"layer {layer_name(inspection.row)}" if inspection.rows else "",
        ]
        front.border_title = data(" · ".join(one for one in (*parts, part.title if part else "") if one))

    # What can be done

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The table's cursor chooses the layer."""
        inspection = self.inspection
        if event.rows.id == "table" and inspection is not None and inspection.go(event.key):
            self._show_front()

    def action_layer(self, by: int) -> None:
        """Go to another layer."""
        inspection = self.inspection
        if inspection is not None and inspection.move(by):
            self.query_one("#table", Rows).select(inspection.row)
            self._show_front()

    def action_view(self, name: str) -> None:
        """Bring a view in front."""
        self.view = name
        self._show_front()
        self.call_after_refresh(self._focus_front)

    def _focus_front(self) -> None:
        """The view's own keys work at once: the focus goes to its first part that takes it."""
        part = self.part
        inside = next((one for one in part.query("*") if one.focusable), None) if part is not None else None
        (inside or self.query_one("#table", Rows)).focus()

    def action_export(self) -> None:
        """Write what is in front to files."""
        if (part := self.part) is not None and not self.has_class("-nothing"):
            part.export()
        else:
            self.notify("There is nothing here yet that could be written to a file.", markup=False)

    def go_back(self) -> None:
        """Escape goes back to the layers."""
        self.query_one("#table", Rows).focus()


def _may_have_measured(event: Event) -> bool:
    return isinstance(event, JobEnded | events.PhaseFinished | events.RunOpened)
