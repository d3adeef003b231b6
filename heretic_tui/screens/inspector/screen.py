"""The residual inspector: layers with their metrics at the left, one view of the stream at the right."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from textual import events as textual_events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from heretic_tui.control import MEASURE
from heretic_tui.engine.events import Event
from heretic_tui.formats import plain
from heretic_tui.inspections import Reading, layer_name, name_of
from heretic_tui.screens.dialogs import Text
from heretic_tui.screens.inspector.desk import InspectorDesk, the
from heretic_tui.screens.inspector.part import InspectorPart
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Column, Rows
from heretic_tui.widgets.text import data, put
from heretic_tui.widgets.wide_rows import WideRows
from heretic_tui.worker import JobEnded, JobStarted

if TYPE_CHECKING:
    from heretic_tui.screens.inspector.table import Order

VIEWS = {
    "curves": ("c", "CurvesPart"),
    "similarity": ("s", "SimilarityPart"),
    "projection": ("p", "ProjectionPart"),
    "tokens": ("t", "TokensPart"),
    "difference": ("d", "DifferencePart"),
    "sensitivity": ("v", "SensitivityPart"),
}
"""The views by name, which is that of their module: key and class; each is imported and mounted when first chosen."""
REDRAW = 0.25
"""Seconds between two looks at how far things have come."""
ROOMY, WIDE = 100, 150
"""Columns of the terminal from which the table beside a view has more columns, and both sides' figures."""
LAYER_TABLES = {"table", "full", "differences"}
"""The tables with a row a layer, whose cursors are one."""
NO_RUN = """\
No run is open, so there is nothing to look at yet.

1  choose a model, or open a run of earlier days
m  measure the model that is loaded: it becomes a run without trials, which a study can go on with
"""


class InspectorScreen(InspectorDesk):
    """Shows the residual stream of the run that the app is about, layer by layer."""

    MODE: ClassVar[str] = "inspector"
    CSS_PATH = "inspector.tcss"
    HELP: ClassVar[str] = """
    The residual stream of the run that the app shows, layer by layer: where the model tells good prompts from bad ones,
    and whether a trial still does. All of it comes from the run's folder; the model is needed only to measure (m) and
    to read tokens.

    The letters in the line at the top choose a view; up and down in the list, and left and right (or [ and ]) anywhere,
    go through the layers. A star marks the layers that the rule below the curves picks. b changes between the original
    model and a trial, T chooses the trial. S takes the direction that is looked at to the chat, where it steers the
    model while it answers: removed from its stream, added to it, or rotated towards another one.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"view('{name}')", name, show=False, id=f"inspector.{name}", tooltip=f"View: {name}")
            for name, (key, _) in VIEWS.items()
        ),
        Binding("g", "table", "Table", id="inspector.table", tooltip="The whole geometry table, or back to the view"),
        Binding("l", "legend", "Legend", id="inspector.legend", tooltip="What the columns and marks mean"),
        Binding("e", "export", "Export", id="inspector.export", tooltip="Write what is shown to files"),
        Binding("S", "steer", "Steer", id="inspector.steer", tooltip="Take the direction to the chat"),
        Binding("w", "alone", "Wide", show=False, id="inspector.wide", tooltip="The view over the whole width, or not"),
        Binding("left,left_square_bracket", "layer(-1)", "Layer before", show=False, id="inspector.left"),
        Binding("right,right_square_bracket", "layer(1)", "Layer after", show=False, id="inspector.right"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = "curves"
        self.whole = False
        """Whether the whole geometry table stands in place of the view."""
        self.order: Order | None = None

    def body(self) -> ComposeResult:
        """The views' names, the layers, the view in front, and how far things have come."""
        yield Static("", id="views", markup=False)
        with Horizontal(id="inspector"):
            with Vertical(id="layers", classes="panel"):
                yield Rows(Column("layer", 5, "right"), id="table")
                yield WideRows(id="full")
            with Vertical(id="front", classes="panel"):
                yield Static("", id="nothing", markup=False)
        yield ProgressLine(id="inspecting")

    def on_mount(self) -> None:
        """Begin to look at how far things have come."""
        self.query_one("#layers").border_title = "Layers"
        self.set_interval(REDRAW, self._look)
        self.query_one("#table").focus()

    @property
    def part(self) -> InspectorPart | None:
        """The view in front, once it is mounted."""
        return next(iter(self.query(f"#{self.view}").results(InspectorPart)), None)

    def engine_changed(self, events_: Sequence[Event]) -> None:
        """Show what the engine's news are about."""
        super().engine_changed(events_)
        if not events_:
            self.show_all()
        elif any(isinstance(event, JobStarted | JobEnded) for event in events_):
            self._show_front()
        if (part := self.part) is not None and not self.whole:
            part.engine_changed(events_)

    def stop_front(self) -> None:
        """Stop what the view in front computes."""
        if (part := self.part) is not None:
            part.stop_all()

    def measure_front(self) -> bool:
        """Let the view in front measure what it needs beyond the vectors."""
        part = self.part
        return part is not None and bool(part.display) and not self.whole and part.measure_own()

    def _look(self) -> None:
        if not self.in_front:
            return
        activity = self.state.activity or next(iter(self.state.beside.values()), None)
        line = self.query_one(ProgressLine)
        line.set_class(activity is not None, "-shown")
        if activity is not None or line.activity is not None:
            line.show(activity)

    # Showing

    def on_resize(self, event: textual_events.Resize) -> None:
        """The table beside a view takes as much room as is good for both."""
        if self.ready:
            self._show_table()

    def show_all(self) -> None:
        """Show table and view anew."""
        with self.app.batch_update():
            self._show_table()
            self._show_front()

    def _show_table(self) -> None:
        inspection = self.inspection
        hollow = inspection is None or not inspection.rows
        self.set_class(hollow, "-empty")
        self.set_class(self.whole and not hollow, "-whole")
        layers = self.query_one("#layers")
        if inspection is None or hollow:
            return
        from heretic_tui.screens.inspector import table as geometry_table

        if self.whole:
            layers.styles.width = "1fr"
            full = self.query_one(WideRows)
            full.set_columns(*geometry_table.full_columns(self.order))
            full.show(geometry_table.full_rows(inspection.shown, self.order), key=inspection.row)
            layers.border_title = data(f"Geometry · {name_of(inspection.number)} · {self._meaning()}")
        else:
            comparing = self.size.width >= WIDE and inspection.other is not None and not inspection.shown.missing
            columns = geometry_table.brief_columns(inspection, comparing)
            if self.size.width < ROOMY:
                columns = columns[:3]
            table = self.query_one("#table", Rows)
            if columns != table.columns:
                table.set_columns(*columns)
            layers.styles.width = sum(column.width + 1 for column in columns) + 4
            table.show(geometry_table.brief_rows(inspection, comparing), key=inspection.row)
            layers.border_title = "Layers" if comparing else data(name_of(inspection.number).capitalize())
        layers.border_subtitle = "★ picked" if self.size.width >= ROOMY else ""

    def _meaning(self) -> str:
        """What the chosen column means."""
        from heretic_tui.engine.inspection.geometry import COLUMNS

        full = self.query_one(WideRows)
        column = COLUMNS[full.column - 1]
        return f"{column.symbol}: {column.meaning}"

    def _show_front(self) -> None:
        """Let the view in front show what is selected, or say why it cannot."""
        inspection = self.inspection
        if self.whole and inspection is not None and inspection.shown.missing:
            self.whole = False
            self._show_table()
        words = self._nothing()
        self.set_class(bool(words), "-nothing")
        put(self.query_one("#nothing", Static), plain(words))
        self._show_names()
        if words or inspection is None or self.whole:
            for one in self.query(InspectorPart):
                one.display = False
            return
        part = self.part
        if part is None:
            part = self._kind()()
            part.display = False
            self.query_one("#front").mount(part)
        if not part.ready:
            return
        for one in self.query(InspectorPart):
            one.display = one is part
        part.show(inspection)
        self._show_names()

    def on_inspector_part_mounted(self) -> None:
        """Show the view that was chosen, now that it is there."""
        self._show_front()
        if self.focused is None or self.focused.id == "table":
            self._focus_front()

    def _kind(self) -> type[InspectorPart]:
        kind: type[InspectorPart] = getattr(
            import_module(f"heretic_tui.screens.inspector.{self.view}"), VIEWS[self.view][1]
        )
        return kind

    def _nothing(self) -> str:
        """What stands in the view's place: what is wrong or missing, and what to press; empty where nothing is."""
        inspection = self.inspection
        if self.state.shown is None:
            measuring = self.control.worker.current == MEASURE
            return "The model is being measured, in a run of its own. x stops it." if measuring else NO_RUN
        if self.problem is not None:
            return f"{self.problem.cause}\n\n{self.problem.remedy}"
        if inspection is None:
            return "Reading the run's folder …"
        if not self._kind().NEEDS_VECTORS or not inspection.shown.missing:
            return ""
        if self.control.worker.current == MEASURE:
            return f"{the(inspection.number).capitalize()} is being measured. x stops it."
        problem = inspection.shown.problem
        return f"{problem.cause}\n\n{problem.remedy}" if problem else "Reading …"

    def _show_names(self) -> None:
        """The views' names with the one in front marked, and the titles."""
        space = " " if self.size.width >= ROOMY else ""
        names = Content(space).join(self._tab(key, name, space) for name, (key, _) in self._tabs())
        self.query_one("#views", Static).update(names, layout=False)
        inspection, part = self.inspection, self.part
        front = self.query_one("#front")
        if inspection is None:
            front.border_title = self.view
            front.border_subtitle = ""
            return
        layer = f"layer {layer_name(inspection.row)}" if inspection.rows else ""
        known = part is not None and part.inspection is not None
        whose, said = (part.whose, part.title) if part is not None and known else (name_of(inspection.number), "")
        parts = [self.view, whose, layer, said]
        front.border_title = data(" · ".join(one for one in parts if one))
        other = ""
        if inspection.trial is not None:
            other = f"b: {name_of(0 if inspection.side == 'trial' else inspection.trial)}"
        front.border_subtitle = other

    @staticmethod
    def _tabs() -> list[tuple[str, tuple[str, str]]]:
        return [("table", ("g", "")), *VIEWS.items()]

    def _tab(self, key: str, name: str, space: str) -> Content:
        if name == ("table" if self.whole else self.view):
            text = f" {key} {name} "
            return Content.assemble((text, "bold $block-cursor-foreground on $block-cursor-background"))
        action = "table" if name == "table" else f"view('{name}')"
        return Content.from_markup(f"[@click=screen.{action}] [b]$key[/b] $name{space}[/]", key=key, name=name)

    # The layers

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The cursor of a table of layers chooses the layer."""
        if event.rows.id in LAYER_TABLES:
            self.go(event.key)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter in the whole table goes to the view at that layer; beside a view it goes into it."""
        if event.rows.id == "full":
            self.action_table()
        elif event.rows.id == "table":
            self._focus_front()

    def on_inspector_part_row_chosen(self, event: InspectorPart.RowChosen) -> None:
        """A view chooses the layer."""
        self.go(event.row)

    def on_inspector_part_retitled(self) -> None:
        """The title of the view has changed."""
        self._show_names()

    def go(self, row: int) -> None:
        """Select a layer, in every table and in the view."""
        inspection = self.inspection
        if inspection is not None and inspection.go(row):
            for table in self.query(Rows):
                if table.id in LAYER_TABLES:
                    table.select(inspection.row)
            self._show_front()

    def action_layer(self, by: int) -> None:
        """Go to another layer."""
        if self.inspection is not None:
            self.go(self.inspection.row + by)

    # The views

    def action_view(self, name: str) -> None:
        """Bring a view in front."""
        self.view, self.whole = name, False
        self.show_all()
        self.call_after_refresh(self._focus_front)

    def action_table(self) -> None:
        """Show the whole geometry table, or go back to the view."""
        inspection = self.inspection
        if inspection is None or inspection.shown.missing:
            self.notify("There is no geometry to show yet.", markup=False)
            return
        self.whole = not self.whole
        self.show_all()
        if self.whole:
            self.query_one(WideRows).focus()
        else:
            self._focus_front()

    def action_alone(self) -> None:
        """Give the view the whole width, or the table its place back."""
        self.toggle_class("-alone")
        if self.focused is self.query_one("#table"):
            self._focus_front()

    def on_wide_rows_column_moved(self) -> None:
        """Say what the column means."""
        if self.whole:
            self._show_table()

    def on_wide_rows_ordered(self) -> None:
        """Sort by the column, the largest first; again, the smallest first; a third time, by layer."""
        from heretic_tui.engine.inspection.geometry import COLUMNS

        key = COLUMNS[self.query_one(WideRows).column - 1].key
        self.order = {(key, True): (key, False), (key, False): None}.get(self.order or ("", False), (key, True))
        self._show_table()

    def _focus_front(self) -> None:
        """The view's own keys work at once: the focus goes to it, or to its first part that takes it."""
        part = self.part
        inside = None
        if part is not None and part.display and not self.whole and not self.has_class("-nothing"):
            inside = next((one for one in (part, *part.query("*")) if one.focusable), None)
        (inside or self.query_one("#full" if self.whole else "#table")).focus()

    def go_back(self) -> None:
        """Escape goes back from the whole table, then to the layers."""
        if self.whole:
            self.action_table()
        elif self.has_class("-alone"):
            self.action_alone()
        else:
            self.query_one("#table", Rows).focus()

    def action_legend(self) -> None:
        """Say what the columns and marks mean."""
        from heretic_tui.screens.inspector import table as geometry_table

        inspection = self.inspection
        shown = inspection.shown if inspection is not None else Reading(0)
        notes = shown.geometry.notes if shown.geometry is not None else ()
        rule = shown.picks.rule if shown.picks is not None else ""
        self.app.push_screen(Text("Legend", geometry_table.legend(notes, rule)))

    def action_steer(self) -> None:
        """Let the direction that is looked at steer the model in the chat."""
        from heretic_tui.screens.inspector.steering import steer

        steer(self)

    def action_export(self) -> None:
        """Write what is in front to files."""
        inspection, part = self.inspection, self.part
        if self.whole and inspection is not None:
            from heretic_tui.screens.inspector import table as geometry_table
            from heretic_tui.screens.inspector.export import export_files

            export_files(self, inspection, geometry_table.geometry_files(inspection))
        elif part is not None and part.inspection is not None and not self.has_class("-nothing"):
            part.export()
        else:
            self.notify("There is nothing here yet that could be written to a file.", markup=False)
