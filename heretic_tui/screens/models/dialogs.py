"""Questions of the models screen."""

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Label

from heretic_tui.formats import plain
from heretic_tui.screens.dialogs import Confirm

Turn = Literal["stop", "queue"]


class Careful(Confirm):
    """A question whose answer is no unless the person means it: enter alone says no."""

    AUTO_FOCUS = "#no"


class Busy(ModalScreen[Turn | None]):
    """Says what the engine works on, and asks whether to stop that or to wait for it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer('')", "Neither", id="dialog.no"),
        Binding("p", "answer('stop')", "Stop it", id="busy.stop"),
        Binding("w", "answer('queue')", "Wait for it", id="busy.queue"),
    ]
    AUTO_FOCUS = "#queue"

    def __init__(self, title: str, explanation: str, stop: str) -> None:
        super().__init__(classes="dialog")
        self.heading, self.explanation, self.stop_label = title, explanation, stop

    def compose(self) -> ComposeResult:
        """What runs, and three buttons."""
        with Vertical(classes="dialog--box"):
            yield Label(plain(self.heading), classes="dialog--title", markup=False)
            yield Label(plain(self.explanation), markup=False)
            with Horizontal(classes="dialog--buttons"):
                yield Button(f"{self.stop_label} (p)", id="stop")
                yield Button("After it (w)", id="queue", variant="primary")
                yield Button("Neither (esc)", id="neither")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer with the button."""
        self.action_answer(event.button.id or "")

    def action_answer(self, answer: str) -> None:
        """Answer with a key."""
        answers: dict[str, Turn] = {"stop": "stop", "queue": "queue"}
        self.dismiss(answers.get(answer))
