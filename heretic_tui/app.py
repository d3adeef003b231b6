"""The app: owns the control, the modes (one a screen) and the theme; screens do the rest."""

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import Screen

from heretic_tui import themes
from heretic_tui.anchor import Anchor, anchored
from heretic_tui.control import Control
from heretic_tui.engine.events import Event, StudyFinished
from heretic_tui.formats import duration, one_line, plain
from heretic_tui.masking import masked
from heretic_tui.palette import Actions, Things
from heretic_tui.preferences import Preferences, write_preference
from heretic_tui.screens.dialogs import Choose, Confirm
from heretic_tui.screens.frame import MOMENT, SCREENS, FrameScreen
from heretic_tui.screens.study import watching
from heretic_tui.state import StudyView
from heretic_tui.widgets.status_line import Status, StatusLine
from heretic_tui.worker import EngineWorker, JobEnded

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel

    from heretic_tui.engine.checkpoints.permissions import What
    from heretic_tui.engine.memory import MemoryReading
    from heretic_tui.engine.runs.live import Running

logger = logging.getLogger(__name__)

FRAME = 1 / 20
"""Seconds between two looks into the engine's mailbox."""
GAUGE = 1.0
"""Seconds between two memory readings."""
SOON = 0.2
"""Seconds after the start at which what is not urgent begins."""
GAUGE_HISTORY = 240
PATIENCE = 5.0
"""Seconds that the engine is given to put things in order when the app ends."""


def _lazily(module: str, name: str) -> Callable[[], Screen[Any]]:
    """A screen that is imported when it is first shown."""

    def make() -> Screen[Any]:
        screen: Screen[Any] = getattr(import_module(f"heretic_tui.screens.{module}.screen"), name)()
        return screen

    return make


class HereticApp(App[None]):
    """Directional ablation in the terminal."""

    TITLE = "heretic-tui"
    CSS_PATH: ClassVar[str | PurePath | list[str | PurePath] | None] = ["app.tcss", "screens/models/models.tcss"]
    """The first screen's rules are read with the app's: a screen's own have all of them parsed anew."""
    DEFAULT_MODE = "models"
    COMMAND_PALETTE_BINDING = "ctrl+p"
    COMMANDS = App.COMMANDS | {Actions, Things}
    MODES: ClassVar[dict[str, Any]] = {name.lower(): _lazily(name.lower(), f"{name}Screen") for _, name in SCREENS}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                f"{key},f{key}",  # the function keys also work while text is typed
                f"go('{name.lower()}')",
                name,
                show=False,
                id=f"app.{name.lower()}",
                tooltip=f"Go to {name}",
            )
            for key, name in SCREENS
        ),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding("q", "quit", "Quit", id="app.quit", show=False),
        Binding("ctrl+q", "quit", "Quit", id="app.quit-anywhere", show=False, priority=True),
    ]

    def __init__(self, control: Control, runs: "Running | None" = None) -> None:
        self.control = control
        self.memory: tuple[MemoryReading, ...] = ()
        self.memory_history: dict[str, deque[float]] = {}
        """The fractions of the last readings of each device."""
        self.hung_up = False
        """Whether the screen ended without the work: the terminal is gone, or was let go."""
        self.let_go = False
        """Whether the person left the study to itself."""
        self.failed = ""
        """What ended the screen, where that was a fault of its own, in words."""
        self.anchor = Anchor()
        self.opening = next(iter(runs)) if runs and len(runs) == 1 else None
        """The run that the app was opened for, until it is there."""
        self._offered = runs or {}
        if self.opening is not None:
            self.DEFAULT_MODE = "study"  # type: ignore[misc] # Textual reads it when it is made
        super().__init__()
        self._wear(control.preferences.theme)
        self.set_keymap(control.preferences.keys)

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, but for Unix terminals our own."""
        found = super().get_driver_class()
        if found.__name__ != "LinuxDriver":
            return found
        from heretic_tui.keyboard import QuickDriver

        return QuickDriver

    def delay_update(self, delay: float = 0.05) -> None:
        """Hold painting back for a moment; Textual does so for 50 ms at every change of mode, which is seen."""
        super().delay_update(min(delay, MOMENT))

    def _wear(self, wanted: str) -> None:
        """Take on the theme that is wanted; the others are read when the first picture is there."""
        for name in (wanted, themes.DEFAULT):
            if name not in self.available_themes:
                with suppress(themes.ThemeError):  # told when all are read
                    if (theme := themes.find_theme(name)) is not None:
                        self.register_theme(theme)
            if name in self.available_themes:
                self.theme = name
                return

    def _read_themes(self) -> None:
        found, problems = themes.read_themes()
        for theme in found:
            if theme.name != self.theme:
                self.register_theme(theme)
        wanted = self.control.preferences.theme
        if wanted not in self.available_themes:
            problems.append(f"There is no theme {wanted}; {self.theme} is used.")
        for problem in (*self.control.preferences.problems, *problems):
            self.warn(problem)

    def on_mount(self) -> None:
        """Begin to look at the engine, and listen for the line to break."""
        with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):  # not every system hangs up
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.hang_up)
        self.set_interval(FRAME, self.look, name="engine")
        self.set_interval(GAUGE, self._gauge, name="memory")
        # What the first picture can do without waits for it.
        self.set_timer(SOON, self._gauge)
        self.set_timer(SOON, self._read_themes)
        self.follow()
        if self.opening is not None:
            self.open_run(self.opening)
        elif self._offered:
            self.offer_runs(self._offered)
        self.theme_changed_signal.subscribe(self, lambda theme: self._keep_theme(theme.name))

    # The engine

    def look(self) -> None:
        """Take what the engine has told, and let the screen in front show it."""
        events = self.control.take_events()
        for event in events:
            if isinstance(event, JobEnded | StudyFinished):
                self._ring(event)
            if isinstance(event, JobEnded) and event.failure is not None and event.failure.asks is not None:
                self._ask_leave(event.title, *event.failure.asks)
        screen = self._frame()
        if screen is None:
            return
        if events:
            with self.batch_update():
                if screen.seen:
                    screen.engine_changed(events)
                for over in self.screen_stack[1:]:
                    if (changed := getattr(over, "engine_changed", None)) is not None:
                        changed(events)
        status = self.status()
        if screen.seen:
            screen.show_status(status)
        for line in self.screen.query(StatusLine):
            line.status = replace(status, mode=screen.MODE)

    def _frame(self) -> FrameScreen | None:
        """The mode's own screen, while its widgets are there: not before it is composed, nor while the app ends."""
        stack = self.screen_stack
        screen = stack[0] if stack else None
        return screen if isinstance(screen, FrameScreen) and screen.ready and screen.query(StatusLine) else None

    def status(self) -> Status:
        """What the top line tells."""
        state = self.control.state
        if state.activity is None and (study := state.study) is not None and study.workers:
            return watching.status(study)
        model = state.model
        name = model.name.rstrip("/").rpartition("/")[2] if model else ""
        short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
        where = f"{short.get(model.precision, model.precision)} · {model.device}" if model else ""
        return Status(
            model=name,
            where=where,
            activity=self._doing(),
            mood=self._mood(),
            left=self._left(),
            fraction=self.memory[0].fraction if self.memory else None,
        )

    def _mood(self) -> str:
        activity = self.control.state.activity
        if activity is None:
            if self.control.state.beside:
                return "busy"
            return "failed" if self.control.state.failure else "idle"
        return "stopping" if activity.stopping else "busy"

    def _doing(self) -> str:
        state = self.control.state
        activity = state.activity or next(iter(state.beside.values()), None)
        if activity is None:
            return "failed" if state.failure else "ready" if state.model else "no model"
        study = state.studies.get(state.running) if state.running else None
        if study is not None and study.current is not None:
            return f"trial {study.current}/{study.wanted}"
        share = "" if activity.fraction is None else f" {activity.fraction:.0%}"
        return f"{activity.phase or activity.title}{share}"

    def _left(self) -> str:
        study = self.control.state.studies.get(self.control.state.running) if self.control.state.running else None
        seconds = study.seconds_left() if study else None
        if study is None or seconds is None:
            return ""
        speed = study.tokens_per_second()
        return f"{duration(seconds)} left" + (f" · {speed:.0f} tok/s" if speed else "")

    async def _gauge(self) -> None:
        from heretic_tui.engine.memory import read_memory

        # The driver of a card in trouble can take its time, and the screen never waits.
        self.memory = await asyncio.to_thread(read_memory)
        for reading in self.memory:
            history = self.memory_history.setdefault(reading.device, deque(maxlen=GAUGE_HISTORY))
            history.append(reading.fraction)

    def _ring(self, event: Event) -> None:
        if not isinstance(event, StudyFinished):
            return
        if self.control.preferences.bell:
            self.bell()
        if self.control.preferences.notify and self._driver is not None:
            self.notify(f"{event.trials} trials done, {len(event.front)} on the front.", title=event.run, markup=False)
            # OSC 9: terminals that know it show a notification of the desktop, others ignore it.
            self._driver.write(f"\x1b]9;{one_line(event.run)}: {event.trials} trials done\x07")

    def _ask_leave(self, title: str, model: str, what: "What") -> None:
        """Ask for the yes that a job has failed for want of, and load the model then."""
        from heretic_tui.control import LOAD
        from heretic_tui.screens.models.permission_dialog import question

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            self.control.allow(model, what)
            if title == LOAD:
                self.control.load(model)
            else:
                self.notify(f"It is allowed now: ask for the {title} again.", markup=False)

        self.push_screen(question(model.rstrip("/").rpartition("/")[2], what), answered)

    def offer_runs(self, runs: "Running") -> None:
        """Open the run that other processes work on; where there are several, ask which."""
        if len(runs) == 1:
            self.open_run(next(iter(runs)))
        else:
            from heretic_tui.screens.study.watching import choice

            self.push_screen(choice(runs), lambda run: self.open_run(run) if run else None)

    def open_run(self, path: Path) -> None:
        """Open a run of earlier days from its folder, without its model, and show it."""
        self.run_worker(partial(self._open_run, path), thread=True, group="open", exclusive=True, exit_on_error=False)

    def _open_run(self, path: Path) -> None:
        from heretic_tui.engine.errors import EngineError
        from heretic_tui.profile.problems import ProfileError
        from heretic_tui.state import read_study

        try:
            study = read_study(path)
        except (EngineError, ProfileError) as error:
            self.call_from_thread(self._not_opened, str(error))
            return
        self.call_from_thread(self._opened, study)

    def _not_opened(self, why: str) -> None:
        self.opening = None
        self.warn(why)
        self._followed()

    def _opened(self, study: StudyView) -> None:
        self.opening = None
        self.control.show(study)
        self.switch_mode("study")
        self._followed()  # where the study screen is in front already, nothing else has it look again

    # Runs that other processes work on

    def follow(self) -> None:
        """Begin to follow the run that is shown, where this process does not work on it."""
        self.run_worker(self._keep_up(), group="follow", exit_on_error=False)

    async def _keep_up(self) -> None:
        while self.control.state.shown is None:
            await asyncio.sleep(SOON)
        # Its imports are not the screen's work.
        following = await asyncio.to_thread(import_module, "heretic_tui.following")
        await following.Follower(self.control.state, self._answered, self._followed).keep_up()

    def _answered(self, text: str, level: "SeverityLevel") -> None:
        self.control.state.say(text, "warning" if level == "warning" else "info")
        self.notify(plain(text), severity=level, markup=False)

    def _followed(self) -> None:
        if (screen := self._frame()) is not None and screen.seen:
            screen.engine_changed(())

    def open_profile(self, name: str) -> None:
        """Take another profile for the next study, and show it."""
        self.run_worker(
            partial(self._open_profile, name), thread=True, group="open", exclusive=True, exit_on_error=False
        )

    def _open_profile(self, name: str) -> None:
        from heretic_tui.profile import store
        from heretic_tui.profile.problems import ProfileError

        try:
            loaded = store.resolve(name)
        except ProfileError as error:
            self.call_from_thread(self.warn, str(error))
            return
        self.control.profile = loaded
        self.call_from_thread(self.action_go, "profile")

    def warn(self, text: str) -> None:
        """Tell something that the person should know and that stops nothing."""
        self.control.state.say(text, "warning")
        self.notify(plain(text), severity="warning", markup=False, timeout=8)

    # Actions

    def action_go(self, mode: str) -> None:
        """Go to a screen; what lies over the present one stays there."""
        self.switch_mode(mode)

    def action_help(self) -> None:
        """Show the help of the part that has the focus."""
        from heretic_tui.screens.dialogs import Text
        from heretic_tui.screens.help import help_text

        title, text = help_text(self.screen)
        self.push_screen(Text(title, text))

    async def action_quit(self) -> None:
        """End the app; asks first where a job runs."""
        if not self.control.worker.busy:
            self._leave(True)
            return
        title = self.control.worker.current or "job"
        explanation = "All finished trials are saved; the run can be resumed from the models screen."
        if not self.control.studying or not self.anchor.holds:
            question = Confirm(f"Stop the {title} and quit?", explanation, "Stop and quit", "Stay")
            self.push_screen(question, self._leave)
            return
        ways = {"stop": ("y", "Stop and quit"), "leave": ("d", "Let it go on"), "stay": ("n", "Stay")}
        self.push_screen(Choose(f"Quit while the {title} runs?", explanation, ways), self._leave_so)

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.control.stop()
            self.exit()

    def _leave_so(self, way: str | None) -> None:
        if way == "leave":
            self.detach()
        else:
            self._leave(way == "stop")

    def hang_up(self) -> None:
        """End the screen, and the screen alone: the terminal is gone, which stops no study."""
        self.hung_up = True
        self.exit()

    def detach(self) -> None:
        """Leave the study to itself: the shell gets its prompt back, and the study goes on."""
        if self.anchor.holds:
            self.let_go = True
            self.hang_up()
        else:
            self.warn("The study cannot be left to itself: no shell waits for this program.")

    def _fatal_error(self) -> None:
        """End the screen, and not the study, where something unforeseen happened; the log tells what.

        Textual would print the traceback with the values of all variables, of which some may be secrets.
        """
        from heretic_tui.logs import log_file

        error = sys.exception()
        logger.error("The screen failed", exc_info=error)
        if not self._exit:  # what fails once the person has left is for the log alone
            reason = one_line(masked(f"{type(error).__name__}: {error}"))
            self.failed = (
                self.failed or f"The screen failed: {reason}. This is a bug; its traceback is in {log_file()}."
            )
            self.hung_up = self.hung_up or self.control.studying
        self._close_messages_no_wait()

    async def on_unmount(self) -> None:
        """Let the engine put its things in order."""
        if not self.hung_up:
            await asyncio.to_thread(self.control.worker.close, PATIENCE)

    def _keep_theme(self, name: str) -> None:
        if name == self.control.preferences.theme:
            return
        from heretic_tui.profile.problems import ProfileError

        self.control.preferences = replace(self.control.preferences, theme=name)
        with suppress(ProfileError):  # a settings file that cannot be written costs no more than the choice
            write_preference("theme", name)

    def get_system_commands(self, screen: Screen[Any]) -> Iterator[SystemCommand]:
        """The app's own commands in the palette; actions and things by name come from `palette.py`."""
        yield SystemCommand("Change theme", "Choose the colours", self.action_change_theme)
        yield SystemCommand("Help", "The keys of the part that has the focus", self.action_help)
        yield SystemCommand("Quit", "End the app", self.action_quit)


def make_app(runs_dir: Path, preferences: Preferences, runs: "Running | None" = None) -> HereticApp:
    """The app over a real engine; it begins at the run that is given, or asks which of several."""
    return HereticApp(Control(EngineWorker(), preferences, runs_dir), runs)


def run_app(runs_dir: Path, runs: "Running | None" = None) -> None:
    """Run the app on this terminal until the person leaves it; it begins at the run that is given, if one is."""
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.logs import log_to_file, own_terminal
    from heretic_tui.preferences import read_preferences

    def run(anchor: Anchor) -> None:
        log_to_file()
        app = make_app(runs_dir, read_preferences(), runs)
        app.anchor = anchor
        with own_terminal():
            app.run()
            if app.hung_up:
                goes_on = f"The study goes on in process {os.getpid()}. Watch it with: heretic-tui attach"
                anchor.let_go(f"{app.failed}\n{goes_on}" if app.failed else goes_on)
                wanted = bool(app.let_go or app.failed) or app.control.preferences.on_hang_up == "continue"
                app.control.go_on_alone(to_the_end=wanted)
        if app.failed:
            raise EngineError(app.failed, "All that was finished is saved.")

    anchored(run)


__all__: Sequence[str] = ("HereticApp", "make_app", "run_app")
