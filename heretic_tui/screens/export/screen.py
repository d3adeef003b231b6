"""The export screen: a trial as a model or an adapter on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from heretic_tui import exports
from heretic_tui.candidates import chosen_trial, figures, titles, trials
from heretic_tui.engine.chat.conversation import OfTrial
from heretic_tui.engine.events import Event
from heretic_tui.engine.records import ModelFacts
from heretic_tui.exports import EXPORT, SHARDS, ExportOrder, Place, default_place, look_at, needed
from heretic_tui.formats import one_line, size
from heretic_tui.profile.schema import Profile
from heretic_tui.screens.dialogs import Confirm, Pick
from heretic_tui.screens.export.result import DIM, result
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.status_line import bar

DTYPES = {None: "as loaded", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
WIDE = 110
"""From this width on the result stands beside the form."""
NO_RUN = """\
There is nothing to export yet: a study finds the trials.

Press 1 to open a run or to pick a model (d there runs the demo), then 3 for its study.
"""
NO_TRIAL = "This run has no finished trial yet. Press 3 to see how far it is."
LATER = "Uploading to the Hugging Face Hub comes in a later version; hf upload FOLDER does it until then."


@dataclass(frozen=True, slots=True)
class Facts:
    """What an export of a run needs to know beforehand."""

    model: ModelFacts | None
    shard: str
    rank: int


class ExportScreen(FrameScreen):
    """Write a trial to disk."""

    MODE: ClassVar[str] = "export"
    CSS_PATH = "export.tcss"
    HELP: ClassVar[str] = """
    Write a trial to disk: as a whole model with its tokenizer, or as a small PEFT adapter for the original. Nothing
    is written over before the new files are whole, and every tensor of a merged model is compared with the original
    before it takes its place.

    A folder that is there is replaced only if you say so, and only if it holds a model.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "begin", "Export", id="export.begin", tooltip="Begin the export"),
        Binding("t", "trial", "Trial", id="export.trial", tooltip="Choose the trial"),
        Binding("space,right", "change(1)", "Change", id="export.next", key_display="←→", tooltip="The next choice"),
        Binding("left", "change(-1)", "Change", id="export.previous", show=False, tooltip="The choice before"),
        Binding("p", "place", "Place", id="export.place", tooltip="Change where it goes"),
        Binding("y", "copy", "Copy path", id="export.copy", tooltip="Copy the path of what was written"),
        Binding("Y", "copy_python", "Copy Python", id="export.copy-python", tooltip="Copy how to load it in Python"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.adapter = self.overwrite = self.measure = False
        self.dtype: str | None = None
        self.shard: str | None = None
        self._run: Path | None = None
        self._trial: int | None = None
        """The trial that the form was last drawn for."""
        self._copyable = self._underway = False
        self._told: object = None
        self._own_place = False
        """Whether the person has typed a place."""
        self._place = Place(None, "", usable=False)
        self._facts: dict[Path, Facts] = {}

    def body(self) -> ComposeResult:
        """The form, the place, how it goes, and what is to come."""
        with Vertical(id="sides"):
            with Vertical(id="form"):
                with Vertical(id="order", classes="panel"):
                    yield Rows(Column("", 10), Column(""), id="settings")
                with Vertical(id="place", classes="panel"):
                    yield Input(id="to", compact=True, select_on_focus=False)
                    yield Static("", id="verdict", markup=False)
                    yield Static("", id="space", markup=False)
            with VerticalScroll(id="outcome", classes="panel"):
                yield Static("", id="result", markup=False)
                yield Static(LATER, id="later", markup=False, classes="muted")

    def on_mount(self) -> None:
        """Show what is selected."""
        self.query_one("#order").border_title = "Export"
        self.query_one("#place").border_title = "Place"
        self.query_one("#outcome").border_title = "Result"
        self.set_interval(0.25, self._progress)
        self.query_one(Rows).focus()
        self._show()

    # What is chosen

    @property
    def trial(self) -> int | None:
        """The trial to export: the one that is selected, else the best compromise."""
        study = self.state.study
        chosen = self.control.trial
        return chosen_trial(study, chosen if study and chosen in study.records else None) or None

    def order(self) -> ExportOrder | None:
        """What the form says; None without a trial or a place."""
        if self.trial is None or self._place.path is None:
            return None
        order = ExportOrder(self.trial, self._place.path, self.adapter, self.overwrite and self._place.filled)
        if self.adapter:
            return order
        return replace(order, dtype=self.dtype, max_shard_size=self.shard, measure=self.measure)

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Follow the selection and the export."""
        if not events or self._run != self.state.shown or self.trial != self._trial:
            self._show()
        self._progress()

    # What is shown

    def on_resize(self, event: events.Resize) -> None:
        """Beside each other where there is room."""
        self.query_one("#sides").set_class(event.size.width >= WIDE, "-wide")

    def _show(self) -> None:
        """Draw the form for the run and the trial that are selected."""
        study = self.state.study
        self._trial = self.trial
        if self._run != self.state.shown:
            self._run, self._own_place = self.state.shown, False
            if self._run is not None and self._run not in self._facts:
                self.run_worker(partial(self._read, self._run), thread=True, group="facts", exit_on_error=False)
        rows = self.query_one("#settings", Rows)
        self.query_one("#place").display = self._trial is not None
        if study is None or self._trial is None:
            rows.empty = NO_RUN if study is None else NO_TRIAL
            rows.show(())
            self._progress()
            return
        rows.show(self._rows(self._trial))
        to = self.query_one("#to", Input)
        place = default_place(study.model, self._trial, adapter=self.adapter)
        if not self._own_place and to.value != place:
            with self.prevent(Input.Changed):
                to.value = place
        self._look()
        self._progress()

    def _rows(self, trial: int) -> list[Row]:
        study = self.state.study
        assert study is not None, "there is no trial without a study"
        record = study.records[trial]
        star = "★ " if trial in study.on_front else ""
        names = titles(study)

        def scores(values: Sequence[str]) -> str:
            return "   ".join(f"{name} {value}" for name, value in zip(names, values, strict=True) if value)

        facts = self._facts.get(study.path)
        loaded = f" ({facts.model.dtype})" if facts and facts.model and self.dtype is None else ""
        shard = self.shard or (facts.shard if facts else "")
        rows = [
            Row("trial", ("Trial", f"{star}trial {trial}   {scores(figures(record, study))}")),
            Row("original", ("", f"original   {scores(figures(None, study))}"), "rows--dim"),
            Row("adapter", ("Form", "adapter (PEFT), for the original" if self.adapter else "merged model")),
        ]
        if not self.adapter:
            rows += [
                Row("dtype", ("Data type", f"{DTYPES[self.dtype]}{loaded}")),
                Row("shard", ("Shards", f"files of up to {shard}" if shard else "as the original has them")),
                Row("measure", ("Measure", _tick(self.measure, "load it afresh and score it (needs memory)"))),
            ]
        rows.append(Row("overwrite", ("Replace", _tick(self.overwrite, "a model that is there already"))))
        return rows

    def _read(self, path: Path) -> None:
        """Read what the run's folder tells of its model and its profile."""
        from heretic_tui.engine.runs.run import Run

        run = Run(path)
        known, profile = run.model(), run.profile
        shard = "" if profile.max_shard_size == Profile().max_shard_size else str(profile.max_shard_size)
        found = Facts(known[0] if known else None, shard, profile.adapter_rank)
        self.app.call_from_thread(self._know, path, found)

    def _know(self, path: Path, found: Facts) -> None:
        self._facts[path] = found
        self._show()

    # The place

    def on_input_changed(self) -> None:
        """Look at the place while it is typed."""
        self._own_place = True
        self._look()

    def on_input_submitted(self) -> None:
        """Begin."""
        self.action_begin()

    def _look(self, then: Callable[[], None] | None = None) -> None:
        """Look at the place off the screen's thread, and judge it."""
        text, study = self.query_one("#to", Input).value, self.state.study
        source = study.model if study else ""

        def work() -> None:
            place = look_at(text, source)
            if not get_current_worker().is_cancelled:
                self.app.call_from_thread(self._judge, place, then)

        self.run_worker(work, thread=True, group="look", exclusive=True, exit_on_error=False)

    def _judge(self, place: Place, then: Callable[[], None] | None = None) -> None:
        self._place = place
        problem = self._problem()
        view = self.state.export
        mark, colour = ("✗", "$error") if problem else ("✓", "$success")
        words = problem or (f"{place.words} It is replaced." if place.filled else place.words)
        if problem and place.filled and view and view.exported and view.exported.to == place.path:
            mark, colour, words = "·", "", "This is what was written last. To write it again, tick Replace."
        where = f"  {one_line(str(place.path))}" if place.path else ""
        verdict = Content.assemble((f"{mark} ", colour), one_line(words), (where, DIM))
        self.query_one("#verdict", Static).update(verdict)
        self.query_one("#space", Static).update(self._space())
        if then is not None:
            then()

    def _problem(self) -> str:
        """Why the place cannot be written to; empty where it can."""
        place, wanted = self._place, self._needed()
        if not place.usable:
            return place.words
        if place.filled and not self.overwrite:
            return f"{place.words} Tick Replace, or choose another place."
        if wanted is not None and place.free is not None and wanted > place.free:
            return f"There is no room: {size(wanted)} are needed, {size(place.free)} are free."
        return ""

    def _needed(self) -> int | None:
        facts = self._facts.get(self._run) if self._run else None
        order = self.order()
        return needed(facts.model, order, facts.rank) if facts and facts.model and order else None

    def _space(self) -> Content:
        """Space needed against space free, in words and as a bar."""
        wanted, free = self._needed(), self._place.free
        if wanted is None or free is None:
            return Content("")
        about = "about " if self.adapter else ""
        words = f" needs {about}{size(wanted)} of {size(free)} free"
        return Content.assemble((f"▕{bar(wanted / max(1, free), 12)}▏", "$warning" if wanted > free else ""), words)

    # How it goes

    def _progress(self) -> None:
        """Draw how the export goes, or how it went."""
        if not self.is_current and not isinstance(self.uppermost, Confirm):
            return
        view = self.state.export
        if (view is not None and view.exported is not None) != self._copyable:
            self._copyable = not self._copyable
            self.refresh_bindings()
        if (underway := view is not None and view.underway) != self._underway:
            self._underway = underway
            self._look()
        self.query_one("#outcome").display = self.state.study is not None
        looks = (id(view), view and view.ended, self.state.failure)
        if underway or looks != self._told:
            self._told = looks
            current = self.control.worker.current
            self.query_one("#result", Static).update(result(view, self.state, current))

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What was written can be copied once there is something."""
        return self._copyable if action in {"copy", "copy_python"} else True

    def action_change(self, by: int) -> None:
        """Change the setting under the cursor."""
        self._change(self.query_one("#settings", Rows).key, by)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter changes a setting too; on the trial it opens the list."""
        if event.key == "trial":
            self.action_trial()
        else:
            self._change(event.key, 1)

    def _change(self, key: str | None, by: int) -> None:
        match key:
            case "trial":
                self._walk(by)
            case "adapter" | "overwrite" | "measure":
                setattr(self, key, not getattr(self, key))
            case "dtype":
                self.dtype = _next(list(DTYPES), self.dtype, by)
            case "shard":
                facts = self._facts.get(self._run) if self._run else None
                present = self.shard or (facts.shard if facts else "") or SHARDS[2]
                self.shard = _next(sorted({*SHARDS, present}, key=lambda text: (len(text), text)), present, by)
        self._show()

    def _walk(self, by: int) -> None:
        """Go along the front."""
        study = self.state.study
        if study is None or not study.front:
            return
        front = [record.trial for record in study.front]
        self.control.trial = _next(front, self.trial, by) if self.trial in front else front[0]

    def action_trial(self) -> None:
        """Choose the trial from the front and all others."""
        study = self.state.study
        if study is None or self.trial is None:
            return
        columns = [Column(""), *(Column(title, 10, "right") for title in titles(study))]
        rows = [Row(one.key, one.cells, "rows--mark" if one.best else "") for one in trials(study)]
        self.app.push_screen(Pick("Which trial?", columns, rows, key=OfTrial(self.trial)), self._picked)

    def _picked(self, choice: OfTrial | None) -> None:
        if choice is not None:
            self.control.trial = choice.trial
            self._show()

    def action_place(self) -> None:
        """Go to the place."""
        if self.trial is not None:
            self.query_one("#to", Input).focus()

    def action_begin(self) -> None:
        """Look at the place once more, and begin the export if nothing is in its way."""
        if self.trial is None:
            return
        if (view := self.state.export) is not None and view.underway:
            self.notify("An export is under way: esc stops it.", markup=False, timeout=4)
            return
        self._look(self._begin_if_possible)

    def _begin_if_possible(self) -> None:
        order, run = self.order(), self.state.shown
        if problem := self._problem():
            self.notify(one_line(problem), severity="warning", markup=False, timeout=6)
            return
        if order is None or run is None:
            return
        if not self.control.studying:
            self._begin(run, order)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.control.stop()
                self._begin(run, order)

        self.app.push_screen(
            Confirm(
                "The study has the engine: pause it and export?",
                "Finished trials are saved, and the one under way begins anew. To go on with the study afterwards, "
                "press 3, then p.",
                "Pause and export",
                "Wait",
            ),
            answered,
        )

    def _begin(self, run: Path, order: ExportOrder) -> None:
        self.control.export(run, order)
        self.overwrite = False  # a leave to replace something holds once
        self._show()
        self.query_one("#settings", Rows).focus()
        self._progress()

    def action_back(self) -> None:
        """Ask whether to stop the export; else what escape does everywhere."""
        view = self.state.export
        if view is None or not view.underway or view.stopping or self.query_one("#to", Input).has_focus:
            super().action_back()
            return

        def answered(yes: bool | None) -> None:
            if yes and view.underway:
                view.stopping = True  # called off where it has not begun
                if self.control.worker.current == EXPORT:
                    self.control.stop()
                self._progress()

        what = "What stands at its place already stays as it is." if view.exported is None else "The model is written."
        self.app.push_screen(Confirm("Stop the export?", what, "Stop it", "Go on"), answered)

    def go_back(self) -> None:
        """Back to the settings."""
        self.query_one("#settings", Rows).focus()

    def action_copy(self) -> None:
        """Copy the path of what was written."""
        if (view := self.state.export) is not None and view.exported is not None:
            self.app.copy_to_clipboard(str(view.exported.to))
            self.notify("Copied the path.", markup=False, timeout=2)

    def action_copy_python(self) -> None:
        """Copy the lines that load what was written."""
        if (view := self.state.export) is not None and view.exported is not None:
            self.app.copy_to_clipboard(exports.in_python(view.exported))
            self.notify("Copied two lines of Python.", markup=False, timeout=2)


def _tick(on: bool, words: str) -> str:
    return f"[{'x' if on else ' '}] {words}"


def _next(choices: Sequence[Any], present: Any, by: int) -> Any:
    return choices[(list(choices).index(present) + by) % len(choices)]
