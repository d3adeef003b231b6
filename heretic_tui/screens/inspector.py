"""The residual inspector: layers with their metrics at the left, one view of the stream at the right."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from textual import events as textual_events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from heretic_tui import candidates
from heretic_tui.control import MEASURE
from heretic_tui.engine import events
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.geometry import COLUMNS, Geometry
from heretic_tui.formats import plain
from heretic_tui.inspections import (
    Inspection,
    Reading,
    layer_name,
    name_of,
    read_comparison,
    read_inspection,
    whole_geometry,
)
from heretic_tui.screens import inspector_table as geometry_table
from heretic_tui.screens.dialogs import Confirm, Pick, Text
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.inspector_part import Beside, InspectorPart, may_ask
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.text import data
from heretic_tui.widgets.wide_rows import WideRows
from heretic_tui.worker import JobEnded, JobStarted

VIEWS = {
    "curves": ("c", "inspector_curves", "CurvesPart"),
    "similarity": ("s", "inspector_similarity", "SimilarityPart"),
    "projection": ("p", "inspector_projection", "ProjectionPart"),
    "tokens": ("t", "inspector_tokens", "TokensPart"),
    "difference": ("d", "inspector_difference", "DifferencePart"),
    "sensitivity": ("v", "inspector_sensitivity", "SensitivityPart"),
}
"""The views by name: key, module and class; each is imported and mounted when it is first chosen."""
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


class InspectorScreen(FrameScreen):
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
            for name, (key, _, _) in VIEWS.items()
        ),
        Binding("g", "table", "Table", id="inspector.table", tooltip="The whole geometry table, or back to the view"),
        Binding("b", "side", "Before/after", id="inspector.side", tooltip="Original model or the compared trial"),
        Binding("T", "trial", "Trial", id="inspector.trial", tooltip="Choose the trial to compare"),
        Binding("m", "measure", "Measure", id="inspector.measure", tooltip="Measure the residual vectors"),
        Binding("l", "legend", "Legend", id="inspector.legend", tooltip="What the columns and marks mean"),
        Binding("e", "export", "Export", id="inspector.export", tooltip="Write what is shown to files"),
        Binding("S", "steer", "Steer", id="inspector.steer", tooltip="Take the direction to the chat"),
        Binding("w", "alone", "Wide", show=False, id="inspector.wide", tooltip="The view over the whole width, or not"),
        Binding("x", "stop", "Stop", show=False, id="inspector.stop", tooltip="Stop what is being computed"),
        Binding(
            "M", "measure_model", show=False, id="inspector.measure-model", tooltip="Measure the loaded model anew"
        ),
        Binding("left,left_square_bracket", "layer(-1)", "Layer before", show=False, id="inspector.left"),
        Binding("right,right_square_bracket", "layer(1)", "Layer after", show=False, id="inspector.right"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = "curves"
        self.whole = False
        """Whether the whole geometry table stands in place of the view."""
        self.order: geometry_table.Order | None = None
        self.problem: EngineError | None = None
        """Why the run cannot be read."""
        self._reading: Path | None = None
        self._completing: Beside[Geometry] | None = None
        self._declined: set[tuple[Path, int]] = set()
        """What was stopped by the person, and is not begun again by itself."""

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
        """Read the run that is shown, and again where a job has measured something of it."""
        inspection = self.inspection
        for event in events_:
            if isinstance(event, events.Measured):
                self._measured(event)
        waiting = inspection is not None and inspection.readings[0].missing
        if inspection is None or (waiting and any(_may_have_measured(event) for event in events_)):
            self._read()
        if not events_:
            self._show_all()
        elif any(isinstance(event, JobStarted | JobEnded) for event in events_):
            self._show_front()
        if (part := self.part) is not None and not self.whole:
            part.engine_changed(events_)

    def _measured(self, event: events.Measured) -> None:
        inspection = self.inspection
        if self.state.shown is None:
            self.run_worker(partial(self._adopt, event.path), thread=True, group="adopt", exit_on_error=False)
        elif inspection is not None and event.path == inspection.path:
            self._declined.discard((event.path, event.trial))
            inspection.measured |= {event.trial}
            if event.trial:
                self._compare(event.trial)
            else:
                self._read()

    def _adopt(self, path: Path) -> None:
        from heretic_tui.profile.problems import ProfileError
        from heretic_tui.state import read_study

        try:
            study = read_study(path)
        except (EngineError, ProfileError) as error:
            self.call_later(self.notify, plain(str(error)), severity="error", markup=False)
            return
        self.call_later(self._adopted, study)

    def _adopted(self, study: Any) -> None:
        if self.state.shown is None:
            self.control.show(study)
            self._read()

    def _read(self) -> None:
        path = self.state.shown
        if path is not None and path != self._reading:
            self._reading = path
            self.run_worker(
                partial(self._read_now, path, self._wanted_trial), thread=True, group="read", exit_on_error=False
            )

    @property
    def _wanted_trial(self) -> int | None:
        """The trial to compare: the one that was compared, else the one that is selected on the other screens."""
        inspection = self.inspection
        return inspection.trial if inspection is not None else self.control.trial

    def _read_now(self, path: Path, trial: int | None) -> None:
        from heretic_tui.profile.problems import ProfileError

        try:
            found = read_inspection(path, trial)
        except EngineError as error:
            self.call_later(self._unread, path, error)
        except ProfileError as error:
            self.call_later(self._unread, path, EngineError(str(error)))
        else:
            self.call_later(self._opened, found)

    def _opened(self, inspection: Inspection) -> None:
        self._reading = None
        self.problem = None
        if inspection.path != self.state.shown:
            self._read()
            return
        before = self.inspection
        found_more = before is not None and before.readings[0].missing and not inspection.readings[0].missing
        if before is not None and before.rows == inspection.rows and not found_more:
            inspection.row, inspection.side = before.row, before.side
        self.state.inspection = inspection
        self._complete_tables()
        self._show_all()

    def _unread(self, path: Path, error: EngineError) -> None:
        self._reading = None
        if path == self.state.shown:
            self.problem = error
            self._show_all()

    def _compare(self, trial: int) -> None:
        inspection = self.inspection
        if inspection is not None:
            self.run_worker(
                partial(self._compare_now, inspection, trial), thread=True, group="compare", exclusive=True,
                exit_on_error=False,
            )  # fmt: skip

    def _compare_now(self, inspection: Inspection, trial: int) -> None:
        reading, change = read_comparison(inspection.path, trial, inspection.original)
        self.call_later(self._compared, inspection, reading, change)

    def _compared(self, inspection: Inspection, reading: Reading, change: Any) -> None:
        if inspection is self.inspection:
            inspection.compare(reading, change)
            inspection.side = "trial"
            self._complete_tables()
            self._show_all()

    # Medians and silhouettes, which take a while

    def _complete_tables(self) -> None:
        """Compute what the tables lack, one after the other."""
        inspection = self.inspection
        if inspection is None or (self._completing is not None and not self._completing.over):
            return
        for reading in inspection.readings.values():
            known = reading.geometry
            declined = (inspection.path, reading.trial) in self._declined
            if known is not None and not known.whole and reading.unfinished is None and not declined:
                self._completing = Beside(
                    self,
                    f"geometry of the {name_of(reading.trial)}"
                    if not reading.trial
                    else f"geometry of trial {reading.trial}",
                    partial(whole_geometry, inspection.path, reading),
                    partial(self._completed, reading),
                    partial(self._incomplete, reading),
                )
                return

    def _completed(self, reading: Reading, geometry: Geometry) -> None:
        reading.geometry = geometry
        self._complete_tables()
        self._show_all()

    def _incomplete(self, reading: Reading, error: EngineError) -> None:
        reading.unfinished = error
        self.notify(plain(str(error)), severity="warning", markup=False, timeout=8)
        self._complete_tables()

    def _look(self) -> None:
        if self.app.screen_stack[0] is not self:
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

    def _show_all(self) -> None:
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
        """What the chosen column means, and how many stand out of sight."""
        full = self.query_one(WideRows)
        column = COLUMNS[full.column - 1]
        return f"{column.symbol}: {column.meaning}"

    def _show_front(self) -> None:
        """Let the view in front show what is selected, or say why it cannot."""
        inspection = self.inspection
        if self.whole and inspection is not None and inspection.shown.missing:
            self.whole = False
            self._show_table()
        kind = self._kind()
        words = self._nothing(kind)
        self.set_class(bool(words), "-nothing")
        self.query_one("#nothing", Static).update(plain(words))
        self._show_names()
        if words or inspection is None or self.whole:
            for one in self.query(InspectorPart):
                one.display = False
            return
        part = self.part
        if part is None:
            part = kind()
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
        _, module, name = VIEWS[self.view]
        kind: type[InspectorPart] = getattr(import_module(f"heretic_tui.screens.{module}"), name)
        return kind

    def _nothing(self, kind: type[InspectorPart]) -> str:
        """What stands in the view's place: what is wrong or missing, and what to press; empty where nothing is."""
        inspection = self.inspection
        if self.state.shown is None:
            return NO_RUN
        if self.problem is not None:
            return f"{self.problem.cause}\n\n{self.problem.remedy}"
        if inspection is None:
            return "Reading the run's folder …"
        if not kind.NEEDS_VECTORS or not inspection.shown.missing:
            return ""
        if self.control.worker.current == MEASURE:
            return f"The {name_of(inspection.number)} is being measured. x stops it."
        problem = inspection.shown.problem
        return f"{problem.cause}\n\n{problem.remedy}" if problem else "Reading …"

    def _show_names(self) -> None:
        """The views' names with the one in front marked, and the titles."""
        space = " " if self.size.width >= ROOMY else ""
        names = Content(space).join(self._tab(key, name, space) for name, (key, _, _) in self._tabs())
        self.query_one("#views", Static).update(names)
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
    def _tabs() -> list[tuple[str, tuple[str, str, str]]]:
        return [("table", ("g", "", "")), *VIEWS.items()]

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
        self._show_all()
        self.call_after_refresh(self._focus_front)

    def action_table(self) -> None:
        """Show the whole geometry table, or go back to the view."""
        inspection = self.inspection
        if inspection is None or inspection.shown.missing:
            self.notify("There is no geometry to show yet.", markup=False)
            return
        self.whole = not self.whole
        self._show_all()
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
        key = COLUMNS[self.query_one(WideRows).column - 1].key
        self.order = {(key, True): (key, False), (key, False): None}.get(self.order or ("", False), (key, True))
        self._show_table()

    def _focus_front(self) -> None:
        """The view's own keys work at once: the focus goes to its first part that takes it."""
        part = self.part
        inside = None
        if part is not None and part.display and not self.whole and not self.has_class("-nothing"):
            inside = next((one for one in part.query("*") if one.focusable), None)
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
        inspection = self.inspection
        shown = inspection.shown if inspection is not None else Reading(0)
        notes = shown.geometry.notes if shown.geometry is not None else ()
        rule = shown.picks.rule if shown.picks is not None else ""
        self.app.push_screen(Text("Legend", geometry_table.legend(notes, rule)))

    # Before and after

    def action_side(self) -> None:
        """Change between the original model and the compared trial."""
        inspection = self.inspection
        if inspection is None:
            self.notify("There is no run to compare a trial of. Press 1 to open one.", markup=False)
        elif inspection.trial is None:
            if self.control.trial:
                self._compare(self.control.trial)
            else:
                self.action_trial()
        else:
            inspection.side = "original" if inspection.side == "trial" else "trial"
            self._show_all()

    def action_trial(self) -> None:
        """Choose the trial to compare, from the front or all others."""
        inspection, study = self.inspection, self.state.study
        if inspection is None or study is None or not study.records:
            self.notify("This run has no trials yet: 3 shows the study, which makes some.", markup=False)
            return
        choices = candidates.trials(study)
        columns = [Column("trial", least=12), *(Column(title, 9, "right") for title in candidates.titles(study))]
        columns.append(Column("", 9))
        rows = [
            Row(
                one.key.trial,
                (*one.cells, "measured" if one.key.trial in inspection.measured else ""),
                "rows--mark" if one.best else "",
            )
            for one in choices
        ]
        self.app.push_screen(
            Pick("Compare which trial with the original model?", columns, rows, key=inspection.trial), self._chosen
        )

    def _chosen(self, trial: int | None) -> None:
        if trial is not None:
            self._compare(trial)

    # Measuring

    def action_measure(self) -> None:
        """Measure what is shown: the original model or a trial, or without a run the model that is loaded."""
        inspection, part = self.inspection, self.part
        if self.state.shown is None:
            self.action_measure_model()
            return
        if inspection is None or (part is not None and part.display and part.measure_own()):
            return
        number = inspection.number
        if inspection.shown.missing:
            self._measure(inspection.path, number)
            return
        self.app.push_screen(
            Confirm(
                f"Measure the {name_of(number)} again?" if not number else f"Measure trial {number} again?",
                "Its residual vectors are in the run's folder already. Measuring replaces them.",
                "Measure",
            ),
            lambda yes: self._measure(inspection.path, number) if yes else None,
        )

    def action_measure_model(self) -> None:
        """Measure the loaded model in a new run, without trials."""
        if self.control.model_name is None:
            self.notify("No model is loaded. Press 1 to choose one.", markup=False)
        else:
            self._measure(None, 0)

    def _measure(self, path: Path | None, trial: int) -> None:
        if self.control.worker.current == MEASURE:
            self.notify("Something is being measured already. x stops it.", markup=False)
            return
        if not may_ask(self):
            return
        self.control.measure(path, trial)
        self._show_front()

    def action_stop(self) -> None:
        """Stop measuring, or what is computed beside the engine."""
        if self.control.worker.current in {MEASURE, "sensitivity"}:
            self.control.stop()
            return
        inspection = self.inspection
        if self._completing is not None and not self._completing.over and inspection is not None:
            self._declined |= {(inspection.path, trial) for trial in inspection.readings}
            self._completing.stop()
        if (part := self.part) is not None:
            part.stop_all()

    def action_steer(self) -> None:
        """Let the direction that is looked at steer the model in the chat."""
        from heretic_tui.screens.inspector_steering import steer

        steer(self)

    def action_export(self) -> None:
        """Write what is in front to files."""
        inspection, part = self.inspection, self.part
        if self.whole and inspection is not None:
            from heretic_tui.screens.inspector_export import export_files

            export_files(self, inspection, geometry_table.geometry_files(inspection))
        elif part is not None and part.inspection is not None and not self.has_class("-nothing"):
            part.export()
        else:
            self.notify("There is nothing here yet that could be written to a file.", markup=False)


def _may_have_measured(event: Event) -> bool:
    return isinstance(event, JobEnded | events.PhaseFinished | events.RunOpened)
