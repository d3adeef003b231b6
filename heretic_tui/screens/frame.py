"""What all screens have in common: the status line above, the failure and the footer below."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import ScreenResume
from textual.screen import Screen
from textual.widgets import Static

from heretic_tui.engine.events import Event
from heretic_tui.formats import one_line
from heretic_tui.widgets.key_bar import KeyBar
from heretic_tui.widgets.status_line import Status, StatusLine

if TYPE_CHECKING:
    from heretic_tui.control import Control
    from heretic_tui.state import State
    from heretic_tui.worker import Failure

SCREENS = (
    ("1", "Models"),
    ("2", "Profile"),
    ("3", "Study"),
    ("4", "Inspector"),
    ("5", "Chat"),
    ("6", "Export"),
)


MOMENT = 0.001
"""Seconds to wait so that a picture is drawn first."""


class FrameScreen(Screen[None]):
    """A mode of the app. Subclasses compose their `body` and follow the engine in `engine_changed`."""

    MODE: ClassVar[str] = ""
    LATE: ClassVar[bool] = False
    """Whether the body follows the first picture, which is then the frame alone and comes sooner."""
    HELP: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("exclamation_mark", "traceback", "Traceback", show=False, id="app.traceback"),
        Binding("escape", "back", "Back", show=False, id="app.back"),
    ]

    def compose(self) -> ComposeResult:
        """The frame around the body."""
        yield StatusLine(SCREENS)
        if self._whole:
            yield from self.body()
        yield Static("", id="failure", markup=False)
        yield KeyBar()

    def body(self) -> ComposeResult:
        """The screen's own widgets."""
        yield from ()

    @property
    def control(self) -> "Control":
        """What can be asked of the engine."""
        return cast("Any", self.app).control  # type: ignore[no-any-return]

    @property
    def state(self) -> "State":
        """What is known of the engine."""
        return self.control.state

    @property
    def seen(self) -> bool:
        """Whether this is the mode in front, and no screen that hides it lies over it."""
        return self.in_front and not any(screen.styles.background.a == 1 for screen in self.app.screen_stack[1:])

    @property
    def in_front(self) -> bool:
        """Whether this is the mode in front; none is while the app ends."""
        return self.app.screen_stack[:1] == [self]

    @property
    def uppermost(self) -> Screen[Any] | None:
        """The screen over all others, this one or a dialog; none while the app ends."""
        return next(reversed(self.app.screen_stack), None)

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Show what has changed; `events` is empty when the screen comes back into sight. Called 20 times a second
        at most, and only while this screen is the one that is seen."""

    def show_status(self, status: Status) -> None:
        """Show the status line's facts, and the last failure."""
        self.query_one(StatusLine).status = replace(status, mode=self.MODE)
        self._show_failure(self.state.failure)

    def _show_failure(self, failure: "Failure | None") -> None:
        bar = self.query_one("#failure", Static)
        bar.set_class(failure is not None, "-shown")
        if failure is not None:
            words = f"{one_line(failure.cause)} {one_line(failure.remedy)}".strip()
            bar.update(
                Content.assemble(("✗ ", "bold $error"), words, ("  ! traceback · esc away", "$foreground-muted"))
            )

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        """Whether the widgets are there."""
        self._whole = not self.LATE
        self._worn = ""
        """The theme in which this screen was seen last."""

    def on_mount(self) -> None:
        """From now on the engine's news can be shown, unless the body is still to come."""
        if self._whole:
            self.ready = True
        else:
            self.set_timer(MOMENT, self._complete)

    async def _complete(self) -> None:
        self._whole = True
        await self.recompose()
        self.ready = True
        self.completed()

    def completed(self) -> None:
        """What a screen with a late body does once it is there."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No key does anything to widgets that are not there yet."""
        return self.ready

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Catch up with what happened while another screen was in front; first it is seen as it was left."""
        # Textual would match every rule against every widget anew, a third of what it takes to switch screens.
        event.refresh_styles = event.refresh_styles and self._worn != self.app.theme
        self._worn = self.app.theme
        if self.ready:
            self.call_after_refresh(self.engine_changed, ())

    def action_traceback(self) -> None:
        """Show where the last failure happened."""
        if self.state.failure is not None:
            from heretic_tui.screens.dialogs import Text

            self.app.push_screen(Text("Traceback", self.state.failure.details))

    def action_back(self) -> None:
        """Put the failure away, else give the focus back to the screen's first part."""
        if self.state.failure is not None:
            self.state.failure = None
            self._show_failure(None)
        else:
            self.go_back()

    def go_back(self) -> None:
        """What escape does where there is nothing to put away."""
        self.set_focus(None)
        self.focus_next()
