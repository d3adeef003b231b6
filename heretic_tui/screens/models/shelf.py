"""The lists of the models screen and what stands beside them: found in threads, filtered, looked at."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Input

from heretic_tui.control import LOAD
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, ModelLoaded, RunOpened, StudyFinished
from heretic_tui.formats import one_line
from heretic_tui.library import BATCH, HUB_ID, Known, RunReader, facts_of, known_models, named, searched_models
from heretic_tui.screens.dialogs import Ask
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.models import facts as model_facts
from heretic_tui.screens.models import lists as model_lists
from heretic_tui.widgets.parts_line import PartsLine
from heretic_tui.widgets.progress_line import ProgressLine
from heretic_tui.widgets.rows import Row, Rows
from heretic_tui.widgets.sheet import Fact, Line, Sheet, Words
from heretic_tui.widgets.text import data
from heretic_tui.worker import JobEnded

if TYPE_CHECKING:
    from heretic_tui.app import HereticApp
    from heretic_tui.engine.checkpoints.catalog import ModelEntry
    from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts
    from heretic_tui.engine.runs.live import Running
    from heretic_tui.engine.runs.summary import RunSummary
    from heretic_tui.state import StudyView

logger = logging.getLogger(__name__)

LINGER = 0.12
"""Seconds that the cursor rests on a model before its files are read."""
GAUGE = 2.0
"""Seconds between two looks at the free memory."""
STALE = 20.0
"""Seconds after which coming back to the screen searches for models again."""
WATCH = 4.0
"""Seconds between two looks for runs that other processes work on."""
WIDE = 100
NO_FIT = "Nothing fits the filter. A hub id or a path is taken as typed; esc shows all."

SOON = 0.1
"""Seconds after which searching begins: beside its imports the first picture would come late."""


class ModelRows(Rows):
    """The list of models."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Load", id="models.load")]


class RunRows(Rows):
    """The list of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Open", id="models.open")]


class ModelShelf(FrameScreen):
    """Two lists, a filter over both, and the facts of the line under the cursor."""

    LATE: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
        self.models = model_lists.Models()
        self.runs: list[Path] | None = None
        """The runs there are; None before the folder was looked into."""
        self.read: dict[Path, RunSummary] = {}
        self.running: Running = {}
        """The runs that other processes work on."""
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
        self.then: tuple[str, Callable[[], None]] | None = None
        """What is to be done once a model's facts are there."""

    def body(self) -> ComposeResult:
        """What is running, two lists at the left, what is known of the selected line at the right."""
        yield PartsLine(id="running")
        with Horizontal(id="shelf"):
            with Vertical(id="left"):
                yield Input(placeholder="filter, or a hub id or path", id="filter", compact=True)
                with Vertical(id="models-panel", classes="panel"):
                    yield ModelRows(*model_lists.MODEL_COLUMNS, empty="Looking for models …", id="models")
                with Vertical(id="runs-panel", classes="panel"):
                    yield RunRows(*model_lists.RUN_COLUMNS, empty=NO_FIT, id="runs")
                with Vertical(id="welcome", classes="panel"):
                    yield Sheet(id="first-steps")
            with Vertical(id="right", classes="panel"), VerticalScroll(id="facts", can_focus=True):
                yield Sheet(id="sheet")
        yield ProgressLine(id="progress")

    def completed(self) -> None:
        """Name the panels; the search begins once they are painted."""
        self.query_one("#models-panel").border_title = "Models"
        self.query_one("#welcome").border_title = "Begin here"
        self.query_one("#first-steps", Sheet).show(model_facts.WELCOME)
        self._focus("models")
        self.set_timer(SOON, self._search)
        self.set_interval(GAUGE, self._show_details)
        self.set_interval(WATCH, self._watch)

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
        self.in_thread(self._find_models, "models")
        self.in_thread(self._read_runs, "runs")

    def in_thread(self, work: Callable[[], None], group: str) -> None:
        """Do what may take longer than a frame; its last word of a group counts."""
        self.run_worker(self._aside(work, group), group=group, exclusive=True, exit_on_error=False)

    async def _aside(self, work: Callable[[], None], name: str) -> None:
        """Wait for a thread of its own, which the end of the app does not wait for: a hub or a disk may be slow."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def run() -> None:
            # Once the app has ended, nothing can be told any more.
            with suppress(RuntimeError):
                try:
                    work()
                except Exception as error:
                    logger.exception("%s failed", name)
                    self.call_later(cast("HereticApp", self.app).warn, f"Something unforeseen happened: {error!r}")
                finally:
                    loop.call_soon_threadsafe(done.set)

        Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
        await done.wait()

    def _find_models(self) -> None:
        self.call_later(self._known, known_models())
        for place, entries in searched_models(self.control.preferences.model_folders):
            self.call_later(self._found, place, entries)
        self.call_later(self._found, "", [])

    def _read_runs(self) -> None:
        self._reader = self._reader or RunReader(self.control.runs_dir)
        runs = self._reader.runs()
        self.call_later(self._listed, runs)
        self.call_later(self._at_work, self._reader.running(runs))
        some, told = [], time.monotonic()
        for run in runs:
            some.append(self._reader.summary(run))
            if time.monotonic() - told > BATCH:
                self.call_later(self._summed_up, some)
                some, told = [], time.monotonic()
        self.call_later(self._summed_up, some)

    def _watch(self) -> None:
        """See what has changed about the runs that other processes work on, or no longer do."""
        if self.seen and self._reader is not None:
            self.in_thread(self._look_around, "watch")

    def _look_around(self) -> None:
        if self._reader is None:
            return
        runs = self._reader.runs()
        running = self._reader.running(runs)
        if running or self.running:
            self.call_later(self._listed, runs)
            self.call_later(self._at_work, running)
            self.call_later(self._summed_up, [self._reader.summary(run) for run in {*running, *self.running} & {*runs}])

    def _at_work(self, running: "Running") -> None:
        self.running = running
        self._show_running()
        self.refresh_bindings()
        self._show_details()

    def _known(self, known: Known) -> None:
        self.models.recent, self.models.gone = known.recent, known.gone
        self._found("", known.entries)

    def _found(self, place: str, entries: "Sequence[ModelEntry]") -> None:
        self.searching = place
        changed = self.models.add(entries)
        for name in changed:
            self.facts.pop(name, None)
        self.show_models()
        if self.model in changed:
            self._rest()

    def _listed(self, runs: list[Path]) -> None:
        self.runs = runs
        self.show_runs()

    def _summed_up(self, summaries: "Sequence[RunSummary]") -> None:
        self.read |= {summary.path: summary for summary in summaries}
        self.show_runs()
        self._show_running()

    def look(self, name: str) -> None:
        """Read a model's facts and the profile that it is judged by."""
        from heretic_tui.profile.problems import ProfileError

        found: CheckpointFacts | EngineError
        try:
            found = facts_of(name, self.models.found.get(name))
        except EngineError as error:
            found = error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a model, the list stays
            found = EngineError(f"{name} cannot be read ({type(error).__name__}: {error}).", "Choose another model.")
        if not isinstance(found, EngineError) and (found.needs_code or found.pickled):
            self.control.recall(name, self.models.found.get(name))
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
        if self.then is not None and self.then[0] == name:
            _, act = self.then
            self.then = None
            act()
            self._rest()

    # Showing

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Follow the loading of a model; look for what is new when the screen comes back or a job is over."""
        turning = (RunOpened, StudyFinished, ModelLoaded, JobEnded)
        if not self.searched:
            pass  # the first search begins by itself, after the first paint
        elif not events and time.monotonic() - self.searched > STALE:
            self._search()
        elif not events or any(isinstance(event, turning) for event in events):
            self.in_thread(self._read_runs, "runs")
        if any(not event.replaceable for event in events) or not events:
            self.show_models()
            self.show_runs()
            self.refresh_bindings()
        progress = self.query_one(ProgressLine)
        progress.set_class(self.state.activity is not None, "-shown")
        progress.show(self.state.activity)

    def show_models(self) -> None:
        """Show the models that fit the filter, and what was typed into it where it may be one."""
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

    def show_runs(self) -> None:
        """Show the runs that fit the filter, or where to begin while there is none."""
        runs = self.runs
        if runs is None:
            return
        rows = model_lists.run_rows(runs, self.read, self.live, self.words, time.time())
        self.query_one("#runs", Rows).show(rows)
        panel = self.query_one("#runs-panel")
        panel.border_title = f"Runs {len(rows)}"
        panel.set_class(bool(runs), "-shown")
        self.query_one("#welcome").set_class(not runs, "-shown")
        if not runs and self.side == "runs":
            self._focus("models")
        self._show_details()

    def _show_running(self) -> None:
        """Offer what other processes work on."""
        line = self.query_one("#running", PartsLine)
        line.show("◎", "$success", model_facts.offer(self.running, self.read) if self.running else ())

    @property
    def live(self) -> "StudyView | None":
        """The run that the engine works on."""
        return self.state.studies.get(self.state.running) if self.state.running else None

    def _show_details(self) -> None:
        if not self.in_front:
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
            return [Words("Reading …", "$foreground-muted")]
        workers = self.running.get(run, ())
        lines = model_facts.run_lines(summary, self.live if self.state.running == run else None, workers)
        keys = [("enter", "open it, without its model"), ("r", "resume it"), ("del", "move it to the trash")]
        if self.state.running == run or workers:
            keys = [("enter", "watch it")]
        elif summary.finished:
            del keys[1]
        return [*lines, *model_facts.next_lines(*(keys[-1:] if summary.problem else keys))]

    def _about_model(self, name: str) -> list[Line]:
        lines: list[Line] = []
        in_memory = name == self.loaded
        if self.state.model is not None and in_memory:
            lines += model_facts.loaded_lines(self.state.model)
        else:
            lines += self._about_files(name)
        if in_memory:
            keys = [("2", "profile"), ("s", f"start the study, profile {self.profile_name}"), ("5", "chat")]
        else:
            keys = [("enter", "load it, to chat"), ("s", f"study it, profile {self.profile_name}")]
        lines += model_facts.next_lines(*keys)
        entry = self.models.found.get(name)
        if entry is not None and entry.kind == "demo":
            return [*lines, Words(), Words(model_facts.DEMO, "$foreground-muted")]
        return [*lines, Words(), Fact("path", model_facts.at_home(name))] if model_lists.is_path(name) else lines

    @property
    def profile_name(self) -> str:
        """The profile that a study of the model under the cursor would use."""
        profile = self.control.profile
        return "demo" if self.is_demo else one_line(profile.name) if profile else "default"

    @property
    def is_demo(self) -> bool:
        """Whether the demonstration model is to be studied with its own profile, as no other one was chosen."""
        entry = self.models.found.get(self.model or "")
        profile = self.control.profile
        return entry is not None and entry.kind == "demo" and (profile is None or profile.name == "default")

    def _about_files(self, name: str) -> list[Line]:
        found = self.facts.get(name)
        if found is None:
            here = name in self.models.found or model_lists.is_path(name)
            waiting = "Reading its files …" if here else "Asking the hub …"
            typing = isinstance(self.focused, Input)
            return [Words("enter: look at it" if typing and not here else waiting, "$foreground-muted")]
        if isinstance(found, EngineError):
            return [
                Words("Its facts cannot be read.", "bold $warning"),
                Words(),
                Words(found.cause, "$warning"),
                Words(found.remedy),
            ]
        lines = model_facts.facts_lines(found)
        if self.control.profile is None:
            return [*lines, Words(), Words(self.profile_problem, "$warning")]
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
        if self.then is None:
            self.in_thread(partial(self.look, name), "facts")

    # Filter and names

    def action_filter(self) -> None:
        """Filter both lists by what is typed."""
        line = self.query_one("#filter", Input)
        line.display = True
        self.set_focus(line)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what fits."""
        self.words = event.value.strip()
        self.show_models()
        self.show_runs()

    def on_input_submitted(self) -> None:
        """Go to what was found; a hub id or path that no list knows is taken as typed."""
        table = self.query_one("#models", Rows)
        typed = named(self.words)
        if table.rows and table.rows[-1].key == typed and (len(table.rows) == 1 or HUB_ID.fullmatch(typed)):
            self.take(typed)
        self._focus("runs" if self.side == "runs" and self.query_one("#runs", Rows).rows else "models")

    def action_name(self) -> None:
        """Ask for a hub id or a path."""
        words = "A hub id such as organisation/model, its address, a folder, or a .gguf file."
        self.app.push_screen(Ask("Which model?", explanation=words), self.take)

    def take(self, text: str | None) -> None:
        """Put a model first that the person named, and go to it."""
        name = named(text or "")
        if not name:
            return
        if name not in self.models.names:
            self.models.name(name)
        self._unfilter()
        table = self.query_one("#models", Rows)
        table.show(table.rows, key=name)
        self._focus("models")
        self._rest()

    def _unfilter(self) -> None:
        line = self.query_one("#filter", Input)
        line.display = False
        with self.prevent(Input.Changed):
            line.value = ""
        self.words = ""
        self.show_models()
        self.show_runs()

    def go_back(self) -> None:
        """End the filter, else give up what was asked for, else go to the models."""
        if self.query_one("#filter").display:
            self._unfilter()
            self._focus(self.side)
        elif self.then is not None:
            self.then = None
        elif self.control.worker.current == LOAD:
            self.action_cancel()
        else:
            self._focus("models")

    def action_cancel(self) -> None:
        """Stop loading."""
        if self.control.worker.current == LOAD:
            self.control.stop()
            self.query_one(ProgressLine).show(self.state.activity)

    def _focus(self, name: str) -> None:
        # At once: what is typed next may be in the queue already.
        self.set_focus(self.query_one(f"#{name}"))


def _may_be_model(name: str) -> bool:
    """Whether what was typed looks like a hub id or a path."""
    return bool(HUB_ID.fullmatch(name)) or model_lists.is_path(name)
