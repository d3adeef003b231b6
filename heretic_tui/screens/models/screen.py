"""The first screen: choose a model or a run of earlier days, and say what is to be done with it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType

from heretic_tui.control import LOAD, STUDY
from heretic_tui.engine.errors import EngineError
from heretic_tui.formats import one_line
from heretic_tui.library import throw_away
from heretic_tui.screens.models.dialogs import Busy, Careful, Turn
from heretic_tui.screens.models.permission_dialog import ask_all
from heretic_tui.screens.models.shelf import ModelShelf
from heretic_tui.widgets.rows import Rows

if TYPE_CHECKING:
    from heretic_tui.app import HereticApp
    from heretic_tui.engine.checkpoints.permissions import What
    from heretic_tui.profile.store import LoadedProfile
    from heretic_tui.state import StudyView


class ModelsScreen(ModelShelf):
    """Choose a model or a run."""

    MODE: ClassVar[str] = "models"
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
        Binding("a", "attach", "Watch", id="models.attach", tooltip="Watch a run that another process works on"),
        Binding("delete", "throw_away", "Trash", key_display="del", id="models.trash", tooltip="Move it to the trash"),
        Binding("d", "demo", "Demo", id="models.demo", tooltip="Study the embedded demo model, offline"),
        Binding("i", "name", "Name one", id="models.name", tooltip="Take a hub id or a path"),
        Binding("slash", "filter", "Filter", key_display="/", id="models.filter", tooltip="Filter both lists"),
        Binding("x", "cancel", "Cancel", id="models.cancel", tooltip="Stop loading"),
    ]

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter loads a model, and opens a run."""
        if event.rows.id == "models":
            self.take(event.key)
            self._when_known(event.key, partial(self._in_turn, LOAD, partial(self._load, event.key)))
        else:
            cast("HereticApp", self.app).open_run(event.key)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The footer shows what can be done with the selected line."""
        if action in {"resume", "throw_away"}:
            return self.side == "runs" and bool(self.runs)
        if action == "attach":
            return bool(self.running)
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
        self.then = (name, partial(self._when_trusted, name, act))
        self.in_thread(partial(self.look, name), "facts")

    def _when_trusted(self, name: str, act: Callable[[], None]) -> None:
        if self.control.profile is None:
            self.notify(one_line(self.profile_problem), severity="error", markup=False)
            return
        ask_all(
            self.app.push_screen,
            self.models.shown.get(name, name),
            self._leave_needed(name),
            partial(self.control.allow, name),
            act,
        )

    def _leave_needed(self, name: str) -> "list[What]":
        """What is to be asked before this model is loaded."""
        found = self.facts.get(name)
        if found is None or isinstance(found, EngineError):
            return []
        needs: list[tuple[What, bool]] = [("code", found.needs_code), ("pickles", found.pickled)]
        return [what for what, needed in needs if needed and (name, what) not in self.control.trusted]

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
        if self.is_demo:
            self.action_demo()
        elif name is not None:
            self.take(name)
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
        self.in_thread(self._read_demo, "demo")

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

        self.in_thread(write, "recent")

    def _remembered(self, recent: Sequence[str]) -> None:
        self.models.recent = recent
        self.models.typed = [name for name in self.models.typed if name not in recent]
        self.show_models()

    # Runs

    def action_attach(self) -> None:
        """Watch the run that another process works on; where there are several, ask which."""
        if self.running:
            cast("HereticApp", self.app).offer_runs(self.running)

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        run = self.run
        if run is None:
            return
        if run in self.running:
            cast("HereticApp", self.app).open_run(run)
        elif run == self.state.running:
            self.state.shown = run
            self.app.switch_mode("study")
        else:
            self.in_thread(partial(self._read_study, run), "resume")

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
        opening = self.control.studying and run == self.state.shown
        if run == self.state.running or opening:
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
            lambda yes: self.in_thread(partial(self._throw_away, run), "trash") if yes else None,
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
        self.show_runs()
