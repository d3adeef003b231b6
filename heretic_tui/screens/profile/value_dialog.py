"""Dialogs of the profile screen: a longer value as text, and what is wrong with a file."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static, TextArea

from heretic_tui.formats import plain
from heretic_tui.screens.dialogs import Confirm


class EditValue(ModalScreen[str | None]):
    """Asks for a value that takes more than a line; `check` tells what is wrong with it, off the screen's thread."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "take", "Take it", id="value.take", priority=True),
        Binding("escape", "cancel", "Cancel", id="value.cancel", priority=True),
    ]

    def __init__(self, title: str, explanation: str, text: str, check: Callable[[str], Sequence[str]]) -> None:
        super().__init__(classes="dialog")
        self.heading, self.explanation, self.text, self.check = title, explanation, text, check

    def compose(self) -> ComposeResult:
        """The title, what the notation is, the text, and what is wrong with it."""
        with Vertical(classes="dialog--box -tall"):
            yield Label(plain(self.heading), classes="dialog--title", markup=False)
            yield Label(plain(self.explanation), classes="muted", markup=False)
            yield TextArea(self.text, show_line_numbers=True, tab_behavior="focus", compact=True)
            yield Label("", id="problem", markup=False)
            yield Label("ctrl+s: take it · esc: cancel", classes="dialog--hint", markup=False)

    def on_mount(self) -> None:
        """Begin at the end of what is there."""
        area = self.query_one(TextArea)
        area.focus()
        area.move_cursor(area.document.end)

    def on_text_area_changed(self) -> None:
        """Check while it is typed."""
        self.run_worker(self._check, thread=True, exclusive=True, group="check", exit_on_error=False)

    def _check(self) -> None:
        text = self.query_one(TextArea).text
        problems = self.check(text)
        self.app.call_from_thread(self._tell, text, problems)

    def _tell(self, text: str, problems: Sequence[str]) -> None:
        if self.is_mounted and self.query_one(TextArea).text == text:
            shown = [f"✗ {problem}" for problem in problems[:3]]
            more = [f"… and {len(problems) - 3} more"] if len(problems) > 3 else []
            self.query_one("#problem", Label).update(plain("\n".join(shown + more)))

    def action_take(self) -> None:
        """Take the text if nothing is wrong with it."""
        text = self.query_one(TextArea).text
        problems = self.check(text)
        if problems:
            self._tell(text, problems)
            self.app.bell()
        else:
            self.dismiss(text)

    def action_cancel(self) -> None:
        """Leave the old value; asks where something was typed."""
        if self.query_one(TextArea).text == self.text:
            self.dismiss(None)
            return
        question = Confirm("Drop what you typed?", "The old value stays.", "Drop it", "Go on typing")
        self.app.push_screen(question, self._drop)

    def _drop(self, yes: bool | None) -> None:
        if yes:
            self.dismiss(None)


class Broken(ModalScreen[bool]):
    """Shows what is wrong with a file, line by line; answers whether it is to be edited (again)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "answer(True)", "Edit", id="broken.edit"),
        Binding("escape,q,enter", "answer(False)", "Close", id="broken.close"),
    ]

    def __init__(self, title: str, explanation: str, problems: Sequence[str]) -> None:
        super().__init__(classes="dialog")
        self.heading, self.explanation, self.problems = title, explanation, problems

    def compose(self) -> ComposeResult:
        """The problems."""
        with Vertical(classes="dialog--box"):
            yield Label(plain(self.heading), classes="dialog--title", markup=False)
            with VerticalScroll(can_focus=True, classes="broken--problems"):
                yield Static(plain("\n".join(self.problems)), markup=False)
            yield Label(plain(self.explanation), classes="muted", markup=False)
            yield Label("e: open in the editor · esc: close", classes="dialog--hint", markup=False)

    def action_answer(self, edit: bool) -> None:
        """Answer with a key."""
        self.dismiss(edit)
