"""The first screen: models of this machine, runs of earlier days, and what is known of one before it is loaded."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Input

from heretic_tui.control import LOAD, STUDY
from heretic_tui.engine import events as facts_of_jobs
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.formats import one_line
from heretic_tui.library import HUB_ID, Known, RunReader, facts_of, known_models, named, searched_models, throw_away
from heretic_tui.screens import model_facts, model_lists
from heretic_tui.screens.dialogs import Ask
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.models_dialogs import Busy, Careful, Turn
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Row, Rows
from heretic_tui.widgets.sheet import Fact, Line, Sheet, Words
from heretic_tui.widgets.text import data
from heretic_tui.worker import JobEnded

if TYPE_CHECKING:
    from heretic_tui.app import HereticApp
    from heretic_tui.engine.catalog import ModelEntry
    from heretic_tui.engine.checkpoint import CheckpointFacts
    from heretic_tui.engine.summary import RunSummary
    from heretic_tui.profile.store import LoadedProfile
    from heretic_tui.state import StudyView

LINGER = 0.12
"""Seconds that the cursor rests on a model before its files are read."""
GAUGE = 2.0
"""Seconds between two looks at the free memory."""
STALE = 20.0
"""Seconds after which coming back to the screen searches for models again."""
WIDE = 100
NO_FIT = "Nothing fits the filter. A hub id or a path is taken as typed; esc shows all."


class ModelRows(Rows):
    """The list of models."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Load", id="models.load")]


class RunRows(Rows):
    """The list of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Open", id="models.open")]


class ModelsScreen(FrameScreen):
    """Choose a model or a run."""

    MODE: ClassVar[str] = "models"
    CSS_PATH = "models.tcss"
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [(0, "-narrow"), (WIDE, "-wide")]
    HELP: ClassVar[str] = """
    Models above: those used last, the embedded demo, then what is found in the local cache of the Hugging Face hub,
    below the folders of the settings file (model_folders) and below the current folder. Runs of earlier days below;
    tab goes from one list to the other.

    At the right stands what the files say before any weight is read. Whether a model fits is an estimate for the
    chosen profile's batch size and response length. Enter loads a model, so that you can chat with it; s starts a study
    at once and loads the model on the way.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Study", id="models.start", tooltip="Start a study of this model"),
        Binding("r", "resume", "Resume", id="models.resume", tooltip="Go on with this run"),
        Binding("delete", "throw_away", "Trash", key_display="del", id="models.trash", tooltip="Move it to the trash"),
        Binding("d", "demo", "Demo", id="models.demo", tooltip="Study the embedded demo model, offline"),
        Binding("i", "name", "Name one", id="models.name", tooltip="Take a hub id or a path"),
        Binding("slash", "filter", "Filter", key_display="/", id="models.filter", tooltip="Filter both lists"),
        Binding("x", "cancel", "Cancel", id="models.cancel", tooltip="Stop loading"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.models = model_lists.Models()
        self.runs: list[Path] | None = None
        """The runs there are; None before the folder was looked into."""
        self.read: dict[Path, RunSummary] = {}
        self.facts: dict[str, CheckpointFacts | EngineError] = {}
        self.words = ""
        """What both lists are filtered by."""
        self.side = "models"
        """The list that was used last."""
        self.searching = ""
        self.searched = 0.0
        self.profile_problem = ""
        self._reader: RunReader | None = None
        self._resting: Timer | None = None
        self._then: tuple[str, Callable[[], None]] | None = None
        """What is to be done once a model's facts are there."""

    def body(self) -> ComposeResult:
        """Two lists at the left, what is known of the selected line at the right."""
        with Horizontal(id="shelf"):
            with Vertical(id="left"):
                yield Input(placeholder="filter, or a hub id or path", id="filter", compact=True)
                with Vertical(id="models-panel", classes="panel"):
                    yield ModelRows(*model_lists.MODEL_COLUMNS, empty="Looking for models …", id="models")
                with Vertical(id="runs-panel", classes="panel"):
                    yield RunRows(*model_lists.RUN_COLUMNS, empty=NO_FIT, id="runs")
                with Vertical(id="welcome", classes="panel"):
                    yield Sheet(4, id="first-steps")
            with Vertical(id="right", classes="panel"):
                with VerticalScroll(id="facts", can_focus=True):
                    yield Sheet(13, id="sheet")
                yield ProgressLine(id="progress")

    def on_mount(self) -> None:
        """Name the panels; the search begins once they are painted."""
        self.query_one("#models-panel").border_title = "Models"
        self.query_one("#welcome").border_title = "Begin here"
        self.query_one("#first-steps", Sheet).show(model_facts.WELCOME)
        self.query_one("#models").focus()
        self.call_after_refresh(self._search)
        self.set_interval(GAUGE, self._show_details)

    @property
    def model(self) -> str | None:
        """The model under the cursor."""
        key = self.query_one("#models", Rows).key
        return key if isinstance(key, str) else None

    @property
    def run(self) -> Path | None:
        """The folder of the run under the cursor."""
        key = self.query_one("#runs", Rows).key
        return key if isinstance(key, Path) else None

    @property
    def loaded(self) -> str | None:
        """The model in memory, by the name that it was loaded by."""
        return self.state.model.name if self.state.model else None

    # Searching, in threads

    def _search(self) -> None:
        self.searched = time.monotonic()
        self._in_thread(self._find_models, "models")
        self._in_thread(self._read_runs, "runs")

    def _in_thread(self, work: Callable[[], None], group: str) -> None:
        self.run_worker(work, thread=True, group=group, exclusive=True, exit_on_error=False)

    def _find_models(self) -> None:
        self.call_later(self._known, known_models())
        for place, entries in searched_models(self.control.preferences.model_folders):
            self.call_later(self._found, place, entries)
        self.call_later(self._found, "", [])

    def _read_runs(self) -> None:
        self._reader = self._reader or RunReader(self.control.runs_dir)
        runs = self._reader.runs()
        self.call_later(self._listed, runs)
        for run in runs:
            self.call_later(self._summed_up, self._reader.summary(run))

    def _known(self, known: Known) -> None:
        self.models.recent, self.models.gone = known.recent, known.gone
        self._found("", known.entries)

    def _found(self, place: str, entries: "Sequence[ModelEntry]") -> None:
        self.searching = place
        for name in self.models.add(entries):
            self.facts.pop(name, None)
        self._show_models()

    def _listed(self, runs: list[Path]) -> None:
        self.runs = runs
        self._show_runs()

    def _summed_up(self, summary: "RunSummary") -> None:
        self.read[summary.path] = summary
        self._show_runs()

    def _look(self, name: str) -> None:
        """Read a model's facts and the profile that it is judged by."""
        from heretic_tui.profile.problems import ProfileError

        found: CheckpointFacts | EngineError
        try:
            found = facts_of(name, self.models.found.get(name))
        except EngineError as error:
            found = error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a model, the list stays
            found = EngineError(f"{name} cannot be read ({type(error).__name__}: {error}).", "Choose another model.")
        self.call_later(self._looked, name, found)
        try:
            self.control.chosen_profile()
            problem = ""
        except ProfileError as error:
            problem = str(error)
        self.call_later(self._judged, name, problem)

    def _looked(self, name: str, found: "CheckpointFacts | EngineError") -> None:
        self.facts[name] = found
        self._show_details()

    def _judged(self, name: str, problem: str) -> None:
        self.profile_problem = problem
        self._show_details()
        if self._then is not None and self._then[0] == name:
            _, act = self._then
            self._then = None
            act()

    # Showing

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Follow the loading of a model; look for what is new when the screen comes back or a job is over."""
        turning = (facts_of_jobs.RunOpened, facts_of_jobs.StudyFinished, facts_of_jobs.ModelLoaded, JobEnded)
        if not events and time.monotonic() - self.searched > STALE:
            self._search()
        elif not events or any(isinstance(event, turning) for event in events):
            self._in_thread(self._read_runs, "runs")
        if any(not event.replaceable for event in events) or not events:
            self._show_models()
            self._show_runs()
        progress = self.query_one(ProgressLine)
        progress.set_class(self.state.activity is not None, "-shown")
        progress.show(self.state.activity)
        self.refresh_bindings()

    def _show_models(self) -> None:
        rows = model_lists.model_rows(self.models, self.words, self.loaded)
        typed = named(self.words)
        if self.words and _may_be_model(typed) and typed not in self.models.names:
            rows.append(Row(typed, (typed, "typed", ""), "rows--mark"))
        table = self.query_one("#models", Rows)
        if self.words:
            table.empty = NO_FIT
        before = table.key
        table.show(rows)
        panel = self.query_one("#models-panel")
        panel.border_title = f"Models {len(rows)}"
        panel.border_subtitle = data(f"looking in {self.searching} …") if self.searching else ""
        if table.key != before:
            self._rest()
        self._show_details()

    def _show_runs(self) -> None:
        runs = self.runs
        if runs is None:
            return
        rows = model_lists.run_rows(runs, self.read, self._live, self.words, time.time())
        self.query_one("#runs", Rows).show(rows)
        panel = self.query_one("#runs-panel")
        panel.border_title = f"Runs {len(rows)}"
        panel.set_class(bool(runs), "-shown")
        self.query_one("#welcome").set_class(not runs, "-shown")
        if not runs and self.side == "runs":
            self.query_one("#models").focus()
        self._show_details()

    @property
    def _live(self) -> "StudyView | None":
        return self.state.studies.get(self.state.running) if self.state.running else None

    def _show_details(self) -> None:
        if self.app.screen_stack[0] is not self:
            return
        panel, sheet = self.query_one("#right"), self.query_one("#sheet", Sheet)
        if self.side == "runs" and self.run is not None:
            panel.border_title = data(self.run.name)
            sheet.show(self._about_run(self.run))
        elif self.model is not None:
            panel.border_title = data(self.models.shown.get(self.model, self.model))
            sheet.show(self._about_model(self.model))
        else:
            panel.border_title = "Model"
            sheet.show(())

    def _about_run(self, run: Path) -> list[Line]:
        summary = self.read.get(run)
        if summary is None:
            return [Words("Reading …", "$text-muted")]
        lines = model_facts.run_lines(summary, self._live if self.state.running == run else None)
        keys = [("enter", "open it, without its model"), ("r", "resume it"), ("del", "move it to the trash")]
        return [*lines, *model_facts.next_lines(*(keys[2:] if summary.problem else keys))]

    def _about_model(self, name: str) -> list[Line]:
        lines: list[Line] = []
        if self.state.model is not None and name == self.loaded:
            lines += model_facts.loaded_lines(self.state.model)
        lines += self._about_files(name)
        if name == self.loaded:
            keys = [("2", "profile"), ("s", "start the study"), ("5", "chat")]
        else:
            keys = [("enter", "load it, to chat"), ("s", f"start a study, profile {self._profile_name}")]
        lines += model_facts.next_lines(*keys)
        return [*lines, Words(), Fact("path", name)] if model_lists.is_path(name) else lines

    @property
    def _profile_name(self) -> str:
        return one_line(self.control.profile.name) if self.control.profile else "default"

    def _about_files(self, name: str) -> list[Line]:
        found = self.facts.get(name)
        if found is None:
            here = name in self.models.found or model_lists.is_path(name)
            waiting = "Reading its files …" if here else "Asking the hub …"
            typing = isinstance(self.focused, Input)
            return [Words("enter: look at it" if typing and not here else waiting, "$text-muted")]
        if isinstance(found, EngineError):
            return [Words(f"✗ {found.cause}", "$warning"), Words(found.remedy)]
        lines = model_facts.facts_lines(found)
        if self.profile_problem:
            return [*lines, Words(), Words(f"✗ {self.profile_problem}", "$warning")]
        if self.control.profile is None:
            return lines
        memory = cast("HereticApp", self.app).memory
        return [*lines, *model_facts.fit_lines(found, self.control.profile.profile, memory)]

    # Moving

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """Show what the cursor stands on."""
        if event.rows.id == "models":
            self._rest()
        self._show_details()

    def on_descendant_focus(self) -> None:
        """What is at the right follows the list that has the focus."""
        focused = self.focused
        if isinstance(focused, Rows) and focused.id:
            self.side = focused.id
            self._rest()
            self._show_details()

    def _rest(self) -> None:
        """Read the facts of the model under the cursor, once the cursor rests there."""
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(LINGER, self._rested)

    def _rested(self) -> None:
        name = self.model
        if name is None or not (name not in self.facts or isinstance(self.facts[name], EngineError)):
            return
        if isinstance(self.focused, Input) and name not in self.models.found:
            return  # a name that is still being typed
        if self._then is None:
            self._in_thread(partial(self._look, name), "facts")

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter loads a model, and opens a run."""
        if event.rows.id == "models":
            self._take(event.key)
            self._when_known(event.key, partial(self._in_turn, LOAD, partial(self._load, event.key)))
        else:
            cast("HereticApp", self.app).open_run(event.key)

    # Filter and names

    def action_filter(self) -> None:
        """Filter both lists by what is typed."""
        line = self.query_one("#filter", Input)
        line.add_class("-shown")
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what fits."""
        self.words = event.value.strip()
        self._show_models()
        self._show_runs()

    def on_input_submitted(self) -> None:
        """Go to what was found; a hub id or path that no list knows is taken as typed."""
        table = self.query_one("#models", Rows)
        typed = named(self.words)
        if table.rows and table.rows[-1].key == typed and (len(table.rows) == 1 or HUB_ID.fullmatch(typed)):
            self._take(typed)
        self.query_one("#runs" if self.side == "runs" and not table.rows else "#models").focus()

    def action_name(self) -> None:
        """Ask for a hub id or a path."""
        words = "A hub id such as organisation/model, its address, a folder, or a .gguf file."
        self.app.push_screen(Ask("Which model?", explanation=words), self._take)

    def _take(self, text: str | None) -> None:
        """Put a model first that the person named, and go to it."""
        name = named(text or "")
        if not name:
            return
        if name not in self.models.names:
            self.models.name(name)
        self._unfilter()
        table = self.query_one("#models", Rows)
        table.show(table.rows, key=name)
        table.focus()
        self._rest()

    def _unfilter(self) -> None:
        line = self.query_one("#filter", Input)
        line.remove_class("-shown")
        with self.prevent(Input.Changed):
            line.value = ""
        self.words = ""
        self._show_models()
        self._show_runs()

    def go_back(self) -> None:
        """End the filter, else stop loading, else go to the models."""
        if self.query_one("#filter").has_class("-shown"):
            self._unfilter()
            self.query_one(f"#{self.side}").focus()
        elif self.control.worker.current == LOAD:
            self.action_cancel()
        else:
            self.query_one("#models").focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The footer shows what can be done with the selected line."""
        if action in {"resume", "throw_away"}:
            return self.side == "runs" and bool(self.runs)
        if action == "start":
            return self.side == "models"
        if action == "cancel":
            return self.control.worker.current == LOAD
        return True

    # What the engine is asked to do

    def _when_known(self, name: str, act: Callable[[], None]) -> None:
        """Do something once the model's facts and the profile are there, and its own code is allowed to run."""
        if name in self.facts and self.control.profile is not None:
            self._when_trusted(name, act)
            return
        self._then = (name, partial(self._when_trusted, name, act))
        self._in_thread(partial(self._look, name), "facts")

    def _when_trusted(self, name: str, act: Callable[[], None]) -> None:
        if self.profile_problem or self.control.profile is None:
            self.notify(one_line(self.profile_problem), severity="error", markup=False)
            return
        found = self.facts.get(name)
        code = not isinstance(found, EngineError) and found is not None and found.needs_code
        if not code or name in self.control.trusted or self.control.profile.profile.trust_remote_code:
            act()
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.control.trusted.add(name)
                act()

        self.app.push_screen(
            Careful(
                f"Run the code of {name}?",
                "This model comes with Python code of its own and cannot be loaded without it. Such code can do all "
                "that you can do on this machine: read your files, use your network, delete things. Read it first, "
                "and say yes only if you trust its authors.\n\nThe answer is for this model, until the app ends.",
                "Run it",
                "Do not load",
            ),
            answered,
        )

    def _in_turn(self, what: str, act: Callable[..., None]) -> None:
        """Do something with the engine; while it works on something else, ask what comes first."""
        worker = self.control.worker
        if not worker.busy:
            act()
            return

        def answered(turn: Turn | None) -> None:
            if turn is None:
                return
            busy = worker.busy and turn == "queue"
            if turn == "stop":
                self.control.stop()
            if busy:
                self.notify(f"The {what} begins when the engine is free.", markup=False)
            act(queued=busy)

        current = worker.current or "job"
        study = current == STUDY
        self.app.push_screen(
            Busy(
                f"The engine is at work: {current}",
                "One job runs at a time. "
                + (
                    "A study that is paused loses nothing but the trial under way, and is resumed from the runs here."
                    if study
                    else "Stop it now, or let this wait for it."
                ),
                "Pause it" if study else "Stop it",
            ),
            answered,
        )

    def _load(self, name: str, queued: bool = False) -> None:
        self.control.load(name)
        self._remember(name)

    def action_start(self) -> None:
        """Start a study of the model under the cursor."""
        name = self.model
        if name is not None:
            self._take(name)
            self._when_known(name, lambda: self._in_turn(STUDY, partial(self._start, name, None)))

    def _start(self, name: str, loaded: "LoadedProfile | None", queued: bool = False) -> None:
        shown, trial = self.state.shown, self.control.trial
        self.control.start(name, loaded or self.control.chosen_profile())
        self._remember(name)
        if queued:  # until it begins, the screens stay about what runs now
            self.state.shown, self.control.trial = shown, trial
        else:
            self.app.switch_mode("study")

    def action_demo(self) -> None:
        """Study the embedded model."""
        self._in_thread(self._read_demo, "demo")

    def _read_demo(self) -> None:
        from heretic_tui.demo import MODEL_DIR
        from heretic_tui.profile import store

        loaded = store.resolve("demo")
        self.call_later(self._in_turn, STUDY, partial(self._start, str(MODEL_DIR), loaded))

    def _remember(self, name: str) -> None:
        from heretic_tui.recents import recent_models, remember_model

        def write() -> None:
            try:
                remember_model(name)
            except EngineError as error:
                self.call_later(self.state.say, str(error), "warning")
                return
            self.call_later(self._remembered, recent_models())

        self._in_thread(write, "recent")

    def _remembered(self, recent: Sequence[str]) -> None:
        self.models.recent = recent
        self.models.typed = [name for name in self.models.typed if name not in recent]
        self._show_models()

    def action_cancel(self) -> None:
        """Stop loading."""
        if self.control.worker.current == LOAD:
            self.control.stop()

    # Runs

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        run = self.run
        if run is None:
            return
        if run == self.state.running:
            self.state.shown = run
            self.app.switch_mode("study")
        else:
            self._in_thread(partial(self._read_study, run), "resume")

    def _read_study(self, path: Path) -> None:
        from heretic_tui.profile.problems import ProfileError
        from heretic_tui.state import read_study

        app = cast("HereticApp", self.app)
        try:
            study = read_study(path)
        except (EngineError, ProfileError) as error:
            self.call_later(app.warn, str(error))
            return
        self.call_later(self._resumable, study)

    def _resumable(self, study: "StudyView") -> None:
        if study.finished:
            self.control.show(study)
            self.app.switch_mode("study")
            self.notify("This run has all its trials; + adds more.", markup=False)
        else:
            self._in_turn(STUDY, partial(self._resume, study))

    def _resume(self, study: "StudyView", queued: bool = False) -> None:
        self.control.resume(study.path)
        if not queued:
            self.control.show(study)
            self.app.switch_mode("study")

    def action_throw_away(self) -> None:
        """Ask whether the run under the cursor is to go to the trash."""
        run = self.run
        if run is None:
            return
        if run == self.state.running:
            self.notify("The engine works on this run; pause it first (3, then p).", severity="warning", markup=False)
            return
        summary = self.read.get(run)
        trials = summary.trials if summary else 0
        what = f"its {trials} trials, all responses, directions and chats" if trials else "all that is in it"
        self.app.push_screen(
            Careful(
                f"Move {run.name} to the trash?",
                f"It leaves this list, with {what}. Nothing is erased: it goes to the folder .trash in "
                f"{run.parent}, and comes back when you move it out of there.",
                "Move it",
                "Keep it",
            ),
            lambda yes: self._in_thread(partial(self._throw_away, run), "trash") if yes else None,
        )

    def _throw_away(self, run: Path) -> None:
        app = cast("HereticApp", self.app)
        try:
            place = throw_away(run)
        except EngineError as error:
            self.call_later(app.warn, str(error))
            return
        self.call_later(self._thrown_away, run, place)

    def _thrown_away(self, run: Path, place: Path) -> None:
        self.runs = [one for one in self.runs or () if one != run]
        self.state.studies.pop(run, None)
        if self.state.shown == run:
            self.state.shown = None
        self.state.say(f"{run.name} is in {place}")
        self.notify(one_line(f"It is in {place}"), title=one_line(run.name), markup=False, timeout=10)
        self._show_runs()


def _may_be_model(name: str) -> bool:
    """Whether what was typed looks like a hub id or a path."""
    return bool(HUB_ID.fullmatch(name)) or model_lists.is_path(name)
