"""Small questions over a screen: yes or no, a line of text, one of a list, a text to read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from heretic_tui.formats import plain
from heretic_tui.widgets.rows import Column, Row, Rows


class Confirm(ModalScreen[bool]):
    """Asks yes or no; escape is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No", id="dialog.no"),
        Binding("y", "answer(True)", "Yes", id="dialog.yes"),
    ]

    def __init__(self, question: str, explanation: str = "", yes: str = "Yes", no: str = "No") -> None:
        super().__init__(classes="dialog")
        self.question, self.explanation, self.yes, self.no = question, explanation, yes, no

    def compose(self) -> ComposeResult:
        """The question and two buttons."""
        with Vertical(classes="dialog--box"):
            yield Label(plain(self.question), classes="dialog--title", markup=False)
            if self.explanation:
                yield Label(plain(self.explanation), markup=False)
            with Horizontal(classes="dialog--buttons"):
                yield Button(f"{self.yes} (y)", id="yes", variant="primary")
                yield Button(f"{self.no} (n)", id="no")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer with the button."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer with a key."""
        self.dismiss(yes)


class Choose(ModalScreen[str | None]):
    """Asks which of a few ways to go, each with a letter of its own; escape is none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "answer", "None of these", id="dialog.none")]

    def __init__(self, question: str, explanation: str, ways: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(classes="dialog")
        self.question, self.explanation, self.ways = question, explanation, ways

    def compose(self) -> ComposeResult:
        """The question, and a button a way."""
        with Vertical(classes="dialog--box"):
            yield Label(plain(self.question), classes="dialog--title", markup=False)
            yield Label(plain(self.explanation), markup=False)
            with Horizontal(classes="dialog--buttons"):
                for index, (name, (key, words)) in enumerate(self.ways.items()):
                    yield Button(f"{words} ({key})", id=name, variant="default" if index else "primary")

    def on_key(self, event: Key) -> None:
        """Answer with a way's letter."""
        name = next((name for name, (key, _) in self.ways.items() if key == event.key), None)
        if name is not None:
            event.stop()
            self.dismiss(name)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer with the button."""
        self.dismiss(event.button.id)

    def action_answer(self) -> None:
        """Go none of these ways."""
        self.dismiss(None)


class Ask(ModalScreen[str | None]):
    """Asks for a line of text; `check` says what is wrong with it, or nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", id="dialog.cancel")]

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        explanation: str = "",
        check: Callable[[str], str | None] | None = None,
        password: bool = False,
    ) -> None:
        super().__init__(classes="dialog")
        self.question, self.value, self.explanation = question, value, explanation
        self.check, self.password = check, password

    def compose(self) -> ComposeResult:
        """The question, the line, and what is wrong with it."""
        with Vertical(classes="dialog--box"):
            yield Label(plain(self.question), classes="dialog--title", markup=False)
            if self.explanation:
                yield Label(plain(self.explanation), markup=False)
            yield Input(self.value, password=self.password)
            yield Label("", id="problem", markup=False)
            yield Label("enter: take it · esc: cancel", classes="dialog--hint", markup=False)

    def on_mount(self) -> None:
        """The cursor stands at the end of what is there."""
        self.query_one(Input).cursor_position = len(self.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Check while it is typed."""
        problem = self.check(event.value) if self.check else None
        self.query_one("#problem", Label).update(plain(problem or ""))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the line if nothing is wrong with it."""
        if not (self.check and self.check(event.value)):
            self.dismiss(event.value)

    def action_cancel(self) -> None:
        """Answer nothing."""
        self.dismiss(None)


class Pick(ModalScreen[Any]):
    """Asks for one of a list; answers with its key, or None. Typing filters."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog.cancel"),
        Binding("down", "move(1)", "Down", show=False, priority=True, id="dialog.down"),
        Binding("up", "move(-1)", "Up", show=False, priority=True, id="dialog.up"),
    ]

    def __init__(self, question: str, columns: Sequence[Column], rows: Sequence[Row], *, key: Any = None) -> None:
        super().__init__(classes="dialog -opaque")
        self.question, self.columns, self.rows, self.chosen = question, columns, rows, key

    def compose(self) -> ComposeResult:
        """The question, a filter, and the list."""
        with Vertical(classes="dialog--box -tall"):
            yield Label(plain(self.question), classes="dialog--title", markup=False)
            yield Input(placeholder="type to filter")
            yield Rows(*self.columns, empty="Nothing fits the filter.")
            yield Label("enter: choose · esc: cancel", classes="dialog--hint", markup=False)

    def on_mount(self) -> None:
        """Show the whole list."""
        self.query_one(Rows).show(self.rows, key=self.chosen)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter by every word typed."""
        words = event.value.casefold().split()
        shown = [row for row in self.rows if all(word in " ".join(row.cells).casefold() for word in words)]
        self.query_one(Rows).show(shown)

    def on_input_submitted(self) -> None:
        """Take the row under the cursor."""
        if (key := self.query_one(Rows).key) is not None:
            self.dismiss(key)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Take the row that was chosen."""
        self.dismiss(event.key)

    def action_move(self, by: int) -> None:
        """Move in the list while the filter has the focus."""
        self.query_one(Rows).action_move(by)

    def action_cancel(self) -> None:
        """Choose nothing."""
        self.dismiss(None)


class Text(ModalScreen[None]):
    """A text to read, as data: help, a traceback."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "close", "Close", id="dialog.close"),
        Binding("y", "copy", "Copy", id="dialog.copy"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(classes="dialog -opaque")
        self.heading, self.text = title, plain(text)

    def compose(self) -> ComposeResult:
        """The text, with scroll bars where it is long."""
        with Vertical(classes="dialog--box -tall"):
            yield Label(plain(self.heading), classes="dialog--title", markup=False)
            with VerticalScroll(can_focus=True):
                yield Static(self.text, markup=False)
            yield Label("y: copy · esc: close", classes="dialog--hint", markup=False)

    def action_copy(self) -> None:
        """Copy the text through the terminal."""
        self.app.copy_to_clipboard(self.text)

    def action_close(self) -> None:
        """Close it."""
        self.dismiss(None)
