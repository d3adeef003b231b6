"""The study: trials as they arrive, their scatter, the selected trial, memory, and what can be done with them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.formats import duration, one_line
from heretic_tui.screens.dialogs import Ask, Confirm
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.study import crew, trials
from heretic_tui.screens.study.watching import gauges_of, log_of, show_workers
from heretic_tui.state import Activity, StudyView
from heretic_tui.widgets.layer_weights import LayerWeights
from heretic_tui.widgets.log_view import LogView
from heretic_tui.widgets.memory_gauge import Gauge, MemoryGauge
from heretic_tui.widgets.parts_line import PartsLine
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.scatter import Scatter
from heretic_tui.widgets.text import data, put

if TYPE_CHECKING:
    from heretic_tui.app import HereticApp
    from heretic_tui.engine.runs.requests import Kind

ROOMY = 30
"""Rows from which the workers are listed without being asked for."""
REDRAW = 0.25
"""Seconds between two redraws of table and scatter: each costs time that the keys need."""

NO_RUN = """\
No run is open.

1  choose a model, or open a run of earlier days
2  look at the profile, then s there starts the study
"""


class StudyScreen(FrameScreen):
    """Watches a run, live or from its folder."""

    MODE: ClassVar[str] = "study"
    CSS_PATH = "study.tcss"
    HELP: ClassVar[str] = """
    Table and scatter show one selection. A star marks the Pareto front: no other trial is better in every objective.
    The staircase in the scatter is its edge, the circle is the original model.

    Left and right walk along the front, f shows the front alone, s changes the order, z the scale of the scatter.
    Pausing puts the weights back and loses at most the trial under way; resuming goes on as if nothing had happened.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause/resume", id="study.pause"),
        Binding("r", "responses", "Responses", id="study.responses"),
        Binding("c", "chat", "Chat", id="study.chat"),
        Binding("x", "export", "Export", id="study.export"),
        Binding("f", "front", "Front", id="study.front", tooltip="Show the Pareto front alone, or all trials"),
        Binding("s", "sort", "Sort", id="study.sort", tooltip="Change the order of the trials"),
        Binding("g", "log", "Log", id="study.log", tooltip="Show or hide the log"),
        Binding("plus,equals_sign", "add", "Trials", key_display="+", id="study.add", tooltip="Add trials"),
        Binding("e", "end", "End here", show=False, id="study.end", tooltip="End the study with the trials it has"),
        Binding("d", "detach", "Detach", show=False, id="study.detach", tooltip="Leave; the study goes on by itself"),
        Binding("w", "workers", "Workers", show=False, id="study.workers", tooltip="Show or hide who works on it"),
        Binding("z", "scale", "Scale", show=False, id="study.scale", tooltip="Scatter: automatic, log or linear"),
        Binding(
            "left", "walk(-1)", "Front, left", show=False, id="study.left", tooltip="Next on the front to the left"
        ),
        Binding("right", "walk(1)", "Front, right", show=False, id="study.right", tooltip="Next on the front, right"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.order: trials.Order = "front"
        self.front_only = False
        self.crew_shown: bool | None = None
        """Whether the workers are listed; None where there is room for them."""
        self.logarithmic: bool | None = None
        self._stale = True
        self._columns: tuple[Any, ...] = ()

    def body(self) -> ComposeResult:
        """Table and trial at the left, scatter, weights and memory at the right, the log over all.

        Above them stands who works on the run, where that is another process.
        """
        yield PartsLine(id="workers")
        with Horizontal(id="study"):
            with Vertical(id="left"):
                with Vertical(id="trials", classes="panel"):
                    yield Rows(empty=NO_RUN, id="table")
                    yield Static("", id="phases", markup=False)
                    yield Static("", id="crew", markup=False)
                with Vertical(id="trial", classes="panel"):
                    yield Static("", id="words", markup=False)
                    yield ProgressLine(id="progress")
            with Vertical(id="right"):
                with Vertical(id="scatterbox", classes="panel"):
                    yield Scatter("Trials appear here.", id="scatter")
                with Vertical(id="below", classes="panel"):
                    yield LayerWeights(id="layers")
                    yield MemoryGauge(id="memory")
        yield LogView(id="log", classes="panel")

    def on_mount(self) -> None:
        """Name the panels and begin to redraw."""
        self.query_one("#below").border_title = "Layers"
        self.query_one("#log").border_title = "Log (g closes it)"
        self.set_interval(REDRAW, self._redraw)
        self.query_one("#table").focus()

    @property
    def study(self) -> StudyView | None:
        """The run that is shown."""
        return self.state.study

    @property
    def live(self) -> bool:
        """Whether the engine works on the run that is shown."""
        return self.state.running is not None and self.state.running == self.state.shown

    @property
    def activity(self) -> Activity | None:
        """What the engine does now, or while it has nothing to do, what is told of the run by those that work on it."""
        study = self.study
        if self.state.activity is not None or study is None or study.followed is None:
            return self.state.activity
        return study.followed.activity

    # Following the engine

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Note that something changed; it is drawn a few times a second."""
        waiting = self.study is None or not self.study.records
        if not events or waiting or any(not event.replaceable for event in events):
            self._stale = True
        if not events:
            self._redraw()

    def _redraw(self) -> None:
        if not self.seen:
            return
        study = self.study
        self._show_memory(study)
        show_workers(self.query_one(PartsLine), None if self.live else study, self.state)
        self.query_one(ProgressLine).show(self.activity)
        if not self._stale:
            return
        self._stale = False
        with self.app.batch_update():
            self._show_table(study)
            self._show_phases(study)
            self._show_crew(study)
            self._show_selection()
            self.query_one(LogView).show(log_of(study, self.state))

    def _show_table(self, study: StudyView | None) -> None:
        table = self.query_one("#table", Rows)
        panel = self.query_one("#trials")
        if study is None:
            opening = cast("HereticApp", self.app).opening
            table.empty = f"Opening {one_line(opening.name)} …" if opening else NO_RUN
            table.show(())
            panel.border_title = "Trials"
            panel.border_subtitle = ""
            return
        columns = trials.columns(study)
        if columns != self._columns:
            self._columns = columns
            table.set_columns(*columns)
        # Until the person chooses a trial, the best one is selected as it comes.
        best = study.front[0].trial if study.front else None
        chosen = best if self.control.trial is None else self.control.trial
        table.show(trials.rows(study, self.order, front_only=self.front_only), key=chosen)
        what = "front of " if self.front_only else ""
        panel.border_title = data(f"{what}{len(study.records)}/{study.wanted} trials · {study.name}")
        panel.border_subtitle = data(self._words_of_state(study))

    def _words_of_state(self, study: StudyView) -> str:
        order = "" if self.front_only else trials.order_name(study, self.order)
        if self.live or study.workers:
            seconds = study.seconds_left()
            state = "running" if seconds is None else f"{duration(seconds)} left"
        elif study.finished:
            state = "finished"
        else:
            state = "dead: p resumes" if study.died and not study.own else "paused: p resumes"
        return " · ".join(part for part in (order, state) if part)

    def _show_phases(self, study: StudyView | None) -> None:
        """Before the first trial: what has been done, and what is being done."""
        done = study.phases if study else self.state.starting
        works = study is not None and (self.live or bool(study.workers))
        waiting = (study is None and self.control.studying) or (study is not None and works and not study.records)
        phases = self.query_one("#phases", Static)
        phases.set_class(bool(waiting), "-shown")
        self.query_one("#table").set_class(bool(waiting and not (study and study.base)), "-hidden")
        if waiting:
            lines = [f"✓ {one_line(one.phase)}: {one_line(one.result)} ({duration(one.seconds)})" for one in done]
            put(phases, "\n".join([*lines, *_now(self.activity)]))

    def _show_crew(self, study: StudyView | None) -> None:
        """Who works on the study, where that is more than one."""
        lines = crew.lines(study) if study else []
        wanted = self.size.height >= ROOMY if self.crew_shown is None else self.crew_shown
        place = self.query_one("#crew", Static)
        place.set_class(bool(lines) and wanted, "-shown")
        put(place, one_per_line(lines))

    def _show_selection(self) -> None:
        study = self.study
        trial = self.query_one("#table", Rows).key if study else None
        panel, words = self.query_one("#trial"), self.query_one("#words", Static)
        scatter, layers = self.query_one(Scatter), self.query_one(LayerWeights)
        box = self.query_one("#scatterbox")
        if study is None:
            panel.border_title = "Trial"
            put(words, "")
            scatter.show(trials.cloud(StudyView(self.control.runs_dir, "", (), 0), None), None)
            layers.show((), None)
            box.border_title = "Scatter"
            return
        record = study.records.get(trial or -1)
        panel.border_title = "Original model" if trial == 0 else f"Trial {trial}" if trial else "Trial"
        put(words, one_line(trials.words(study, trial)))
        scatter.show(trials.cloud(study, self.logarithmic), trial)
        layers.show(
            trials.weights(record, study.layers, study.style) if record and study.layers else (),
            record.parameters.direction_index if record else None,
        )
        box.border_title = data(trials.headline(study) or "Scatter")
        box.border_subtitle = trials.volume_history(study, 16)

    def _show_memory(self, study: StudyView | None) -> None:
        app = cast("HereticApp", self.app)
        if study is not None and study.workers and not self.live:
            self.query_one(MemoryGauge).show(gauges_of(study))
            return
        gauges = tuple(
            Gauge(one.device, one.used, one.total, tuple(app.memory_history.get(one.device, ()))) for one in app.memory
        )
        self.query_one(MemoryGauge).show(gauges)

    # The selection

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The table's cursor chooses the trial."""
        if event.rows.id == "table":
            self.control.trial = event.key
            self._show_selection()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter opens the responses."""
        if event.rows.id == "table":
            self.action_responses()

    def on_scatter_selected(self, event: Scatter.Selected) -> None:
        """A click in the scatter chooses the trial, which then stands in the table too."""
        table = self.query_one("#table", Rows)
        if self.front_only and all(row.key != event.key for row in table.rows):
            self.action_front()
        self._choose(event.key)

    def action_walk(self, by: int) -> None:
        """Go to the next trial of the front."""
        if not self.study or not self.study.front:
            return
        across = sorted(self.study.front, key=lambda record: [p.x for p in self._points(record.trial)])
        numbers = [record.trial for record in across]
        trial = self.query_one("#table", Rows).key
        index = numbers.index(trial) + by if trial in numbers else 0
        self._choose(numbers[max(0, min(index, len(numbers) - 1))])

    def _choose(self, trial: int) -> None:
        self.control.trial = trial
        self.query_one("#table", Rows).select(trial)
        self._show_selection()

    def _points(self, trial: int) -> list[Any]:
        return [point for point in self.query_one(Scatter).cloud.points if point.key == trial]

    def action_workers(self) -> None:
        """Show or hide the workers."""
        if self.study is None or not crew.lines(self.study):
            self.notify("One process alone works on it. More begin with: heretic-tui worker RUN", markup=False)
            return
        self.crew_shown = not self.query_one("#crew").has_class("-shown")
        self._again()

    def action_front(self) -> None:
        """Show the front alone, or all."""
        self.front_only = not self.front_only
        self._again()

    def action_sort(self) -> None:
        """Change the order."""
        if self.study:
            self.order = trials.next_order(self.study, self.order)
            self._again()

    def action_scale(self) -> None:
        """Change the scatter's horizontal scale."""
        self.logarithmic = {None: True, True: False, False: None}[self.logarithmic]
        self._again()

    def action_log(self) -> None:
        """Show or hide the log."""
        log = self.query_one(LogView)
        log.toggle_class("-shown")
        if log.has_class("-shown"):
            log.show(log_of(self.study, self.state))
            log.focus()
        else:
            self.query_one("#table", Rows).focus()

    def _again(self) -> None:
        self._stale = True
        self._redraw()

    # What can be done

    def action_pause(self) -> None:
        """Pause the study, or go on with it."""
        study = self.study
        if self.control.studying:
            self.control.stop()
            if study is not None and self.live:
                self._ask(study, "pause")  # those that work on it beside this process
        elif study is None:
            self.notify("There is no run to go on with. Press 1 to choose a model or a run.", markup=False)
        elif study.workers:
            self._ask(study, "pause")
        elif study.finished:
            self.action_add()
        else:
            self.control.resume(study.path)

    def action_detach(self) -> None:
        """Leave the program, and the study to itself."""
        if self.control.studying:
            cast("HereticApp", self.app).detach()
        else:
            watched = self.study is not None and self.study.workers
            words = (
                "The study goes on by itself; q leaves." if watched else "Nothing runs that could be left to itself."
            )
            self.notify(words, markup=False)

    def action_add(self) -> None:
        """Ask how many trials to add."""
        if self.study is None:
            return
        words = f"It has {len(self.study.records)} of {self.study.wanted}."
        self.app.push_screen(
            Ask("How many more trials?", "20", explanation=words, check=_whole_number), partial(self._add, self.study)
        )

    def _add(self, study: StudyView, answer: str | None) -> None:
        if answer is None:
            return
        trials_wanted = max(study.wanted, len(study.records)) + int(answer)
        if study.workers and not self.live:
            self._ask(study, "trials", trials_wanted)
        elif self.live:
            self.run_worker(lambda: self.control.want(study.path, trials_wanted), thread=True, exit_on_error=False)
            study.wanted = trials_wanted
            self._again()
        else:
            self.control.resume(study.path, trials_wanted)

    def action_end(self) -> None:
        """Ask whether the study is to end with the trials that it has."""
        study = self.study
        if study is None or study.finished or not study.records:
            return
        last = "The trial under way is dropped."
        if others := self._under_way(study):
            last = (
                "The trial under way is the last one."
                if others == 1
                else f"The {others} trials under way are the last."
            )
        question = f"End the study with {self._last_trial(study)} trials?"
        self.app.push_screen(
            Confirm(question, f"{last} More can be added later with +.", "End it"), partial(self._end, study)
        )

    def _elsewhere(self, study: StudyView) -> bool:
        return bool(study.workers) and not self.live

    def _last_trial(self, study: StudyView) -> int:
        """How many trials a study has if it ends now: other processes see the trials under way through."""
        return len(study.records) + self._under_way(study)

    def _under_way(self, study: StudyView) -> int:
        """Trials that other processes are at."""
        return sum(one.live is not None and one.live.trial is not None for one in study.others)

    def _end(self, study: StudyView, yes: bool | None) -> None:
        if not yes:
            return
        if self._elsewhere(study):
            # Counted anew: trials may have been finished while the question stood.
            self._ask(study, "end", self._last_trial(study))
            return
        if self.live:
            self.control.stop()
        study.wanted = self._last_trial(study)
        self.run_worker(lambda: self.control.want(study.path, study.wanted), thread=True, exit_on_error=False)
        self._again()

    def _ask(self, study: StudyView, kind: "Kind", trials: int | None = None) -> None:
        """Ask those that work on a run for something; what they answer is told when it comes."""
        app = cast("HereticApp", self.app)

        def write() -> None:
            try:
                asked = self.control.ask(study.path, kind, trials)
            except EngineError as error:
                app.call_from_thread(app.warn, str(error))
                return
            if not asked and not self.live:
                app.call_from_thread(app.warn, "Nobody works on this run any more.")

        self.run_worker(write, thread=True, exit_on_error=False)

    def action_responses(self) -> None:
        """Read the responses of the selected trial."""
        trial = self.query_one("#table", Rows).key
        if self.study is None or trial is None:
            self.notify("Responses are there once a trial is finished.", markup=False)
            return
        from heretic_tui.screens.study.responses import ResponsesScreen

        self.app.push_screen(ResponsesScreen(self.study, trial))

    def action_chat(self) -> None:
        """Talk to the selected trial."""
        self._settle()
        self.app.switch_mode("chat")

    def action_export(self) -> None:
        """Export the selected trial."""
        self._settle()
        self.app.switch_mode("export")

    def _settle(self) -> None:
        """What is selected because it is the best is now chosen."""
        if self.study and self.control.trial is None:
            self.control.trial = self.query_one("#table", Rows).key

    def go_back(self) -> None:
        """Escape closes the log."""
        if self.query_one(LogView).has_class("-shown"):
            self.action_log()
        else:
            self.query_one("#table", Rows).focus()


def _now(activity: Activity | None) -> list[str]:
    if activity is None:
        return []
    return [f"… {one_line(activity.phase)}" if activity.phase else "… starting the engine: seconds, the first time"]


def one_per_line(lines: Sequence[str]) -> str:
    """Foreign lines as harmless data."""
    return "\n".join(one_line(line) for line in lines)


def _whole_number(text: str) -> str | None:
    return None if text.strip().isdecimal() and int(text) > 0 else "A whole number above 0."
