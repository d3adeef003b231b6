"""A small form over a screen: a few labelled lines, each with what is wrong with it beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, TextArea

from heretic_tui.formats import one_line, plain

Values = Mapping[str, str]
Check = Callable[[Values], Mapping[str, str]]
"""Says for each field that is wrong what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Field:
    """A line of the form, or a box for a longer text; `hint` stands beside it while nothing is wrong."""

    key: str
    label: str
    value: str = ""
    hint: str = ""
    long: bool = False


class Form(ModalScreen[Values | None]):
    """Asks for a few values at once; answers with them as typed, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog.cancel"),
        Binding("ctrl+s", "take", "Take", id="form.take"),
    ]
    DEFAULT_CSS = """
    Form Grid { grid-size: 3; grid-columns: 15 18 1fr; grid-rows: auto; height: auto; grid-gutter: 0 1; }
    Form Grid Label { width: 100%; }
    Form .form--hint { color: $text-muted; height: auto; }
    Form .form--hint.-wrong { color: $error; }
    Form Grid Input { background: $panel; }
    Form TextArea { height: 5; margin-bottom: 1; }
    Form VerticalScroll { height: auto; max-height: 100%; }
    """

    def __init__(self, title: str, fields: Sequence[Field], check: Check) -> None:
        super().__init__(classes="dialog")
        self.heading, self.fields, self.check = title, fields, check

    def compose(self) -> ComposeResult:
        """The long texts first, then the lines."""
        with VerticalScroll(classes="dialog--box", can_focus=False):
            yield Label(plain(self.heading), classes="dialog--title", markup=False)
            for field in self.fields:
                if field.long:
                    yield Label(one_line(f"{field.label} · {field.hint}"), markup=False, classes="form--hint")
                    yield TextArea(field.value, id=f"field-{field.key}", highlight_cursor_line=False)
            with Grid():
                for field in self.fields:
                    if not field.long:
                        yield Label(one_line(field.label), markup=False)
                        yield Input(field.value, id=f"field-{field.key}", select_on_focus=False, compact=True)
                        yield Label("", id=f"hint-{field.key}", markup=False, classes="form--hint")
            yield Label("tab: next · enter or ctrl+s: take it · esc: cancel", classes="dialog--hint", markup=False)

    def on_mount(self) -> None:
        """Say what is wrong from the start."""
        self._say()

    @property
    def values(self) -> Values:
        """What stands in the fields."""
        return {
            field.key: self.query_one(f"#field-{field.key}", TextArea).text
            if field.long
            else self.query_one(f"#field-{field.key}", Input).value
            for field in self.fields
        }

    def _say(self) -> bool:
        """Show what is wrong; returns whether nothing is."""
        wrong = self.check(self.values)
        for field in self.fields:
            if field.long:
                continue
            label = self.query_one(f"#hint-{field.key}", Label)
            label.set_class(field.key in wrong, "-wrong")
            label.update(one_line(f"✗ {wrong[field.key]}" if field.key in wrong else field.hint))
        return not wrong

    def on_input_changed(self) -> None:
        """Check while it is typed."""
        self._say()

    def on_input_submitted(self) -> None:
        """Take the values."""
        self.action_take()

    def action_take(self) -> None:
        """Answer with the values if nothing is wrong with them."""
        if self._say():
            self.dismiss(self.values)

    def action_cancel(self) -> None:
        """Answer nothing."""
        self.dismiss(None)
