"""The form's right side: settings as rows with a sign, a value and what it is compared with; edited in place."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Input, Label

from heretic_tui.formats import one_line
from heretic_tui.widgets.rows import Column, Row, Rows

WIDEST_LABEL = 28
MOST_REASON_LINES = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the form: a setting, or the heading of a table."""

    key: str
    label: str
    value: str = ""
    state: str = ""
    sign: str = ""
    heading: bool = False
    idle: bool = False


class SettingRows(Rows):
    """The settings of a group; the parts of a line are told apart by weight and colour besides their place."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Edit", id="profile.edit")]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--changed"}
    DEFAULT_CSS = """
    SettingRows > .rows--changed { color: $primary; text-style: bold; }
    """

    _label = 10
    """Cells of the longest label."""

    @property
    def _room(self) -> int:
        """Cells of a line, without the scroll bar."""
        return self.scrollable_content_region.width

    def _arrange(self) -> None:
        room = self._room
        self.columns = (
            Column("", 1),
            Column("", min(self._label, WIDEST_LABEL)),
            Column("", 0),
            Column("", max(14, min(40, room // 4)), drop=1),
        )

    def on_resize(self, event: events.Resize) -> None:
        """Share the room anew."""
        self._arrange()
        super().on_resize(event)

    def show_lines(self, lines: Sequence[Line], *, key: Any = None) -> None:
        """Show other settings; the cursor stays on the one it is on."""
        self._label = max((cell_len(line.label) for line in lines if not line.heading), default=10)
        self._arrange()
        styles = {"●": "rows--mark", "*": "rows--changed"}
        self.show(
            [
                Row(
                    line.key,
                    (line.sign, line.label, line.value, line.state),
                    "rows--heading" if line.heading else "rows--dim" if line.idle else styles.get(line.sign, ""),
                )
                for line in lines
            ],
            key=key,
        )

    def value_region(self) -> Region:
        """Where the value under the cursor is drawn, in the widget's own coordinates."""
        sign, label, *_ = self._widths(self._room)
        x = sign + label + 2
        return Region(x, self.cursor - self.scroll_offset.y, max(10, self._room - x), 1)

    def render_line(self, y: int) -> Strip:
        """One line of the form."""
        index = y + self.scroll_offset.y
        if not self.rows or index >= len(self.rows):
            return super().render_line(y)
        row = self.rows[index]
        width = self._room
        style = self.rich_style
        under = index == self.cursor
        cursor = self._style("rows--cursor" if self.has_focus else "rows--blurred")
        if row.style == "rows--heading":
            style += self._style(row.style)
            text = f"{one_line(row.cells[1])}  {one_line(row.cells[2])}"
            return self._strip(text, style + cursor if under else style, width)
        own = style + self._style(row.style) if row.style else style
        dim = style + self._style("rows--dim")
        strips = [
            Segment(_fit(cell, wide) + " ", (part + cursor) if under else part)
            for cell, wide, part in zip(row.cells, self._widths(width), (own, style, own, dim), strict=True)
            if wide
        ]
        return Strip(strips).adjust_cell_length(width, style + cursor if under else style)


class ValueInput(Input):
    """The line in which a value is typed, over the value itself."""

    HELP = "Type the value: it is checked while you type. Enter takes it, escape leaves the old one."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Take it", id="value.take"),
        Binding("tab,shift+tab", "submit", "Take it", show=False, id="value.take-on"),
        Binding("escape", "leave", "Keep the old one", id="value.leave", priority=True),
    ]

    class Left(Message):
        """The line was left without taking what stands in it."""

    def action_leave(self) -> None:
        """Leave the old value."""
        self.post_message(self.Left())


class SettingForm(Container):
    """Rows of settings, and over the one under the cursor the line in which its value is typed."""

    DEFAULT_CSS = """
    SettingForm { layers: rows over; height: 1fr; }
    SettingForm SettingRows { layer: rows; }
    SettingForm ValueInput, SettingForm #reason {
        layer: over; position: absolute; display: none; height: 1; border: none; padding: 0; background: $surface;
    }
    SettingForm ValueInput:focus { border: none; }
    SettingForm #reason { color: $error; padding: 0 0 0 2; }
    SettingForm ValueInput.-shown, SettingForm #reason.-shown { display: block; }
    """

    class Typed(Message):
        """The text of the value that is being edited has changed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Taken(Typed):
        """The text is to be the value."""

    class Left(Message):
        """Editing ended without a new value."""

    def __init__(self, *, empty: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.empty = empty

    def compose(self) -> ComposeResult:
        """Rows, line, reason."""
        yield SettingRows(empty=self.empty, id="settings")
        yield ValueInput(id="value", compact=True, select_on_focus=False)
        yield Label("", id="reason", markup=False)

    @property
    def rows(self) -> SettingRows:
        """The settings."""
        return self.query_one(SettingRows)

    @property
    def editing(self) -> bool:
        """Whether a value is being typed."""
        return self.query_one(ValueInput).has_class("-shown")

    @property
    def text(self) -> str:
        """What stands in the line."""
        return self.query_one(ValueInput).value

    def edit(self, text: str) -> None:
        """Open the line over the value under the cursor."""
        line, region = self.query_one(ValueInput), self.rows.value_region()
        line.styles.offset = (region.x, region.y)
        line.styles.width = region.width
        with self.prevent(Input.Changed):
            line.value = text
        line.add_class("-shown")
        line.cursor_position = len(text)
        line.focus()

    def complain(self, reason: str) -> None:
        """Say below the line what is wrong with it; nothing where it is well."""
        label, region, rows = self.query_one("#reason", Label), self.rows.value_region(), self.rows
        text = one_line(f"✗ {reason}")
        width = max(10, rows.size.width)
        height = min(MOST_REASON_LINES, len(wrap(text, width - 3)))
        below = region.y + height < rows.size.height
        label.styles.offset = (0, region.y + (1 if below else -height))
        label.styles.width, label.styles.height = width, height
        label.set_class(bool(reason), "-shown")
        label.update(text if reason else "")

    def close(self) -> None:
        """Put the line away."""
        was = self.editing
        self.query_one(ValueInput).remove_class("-shown")
        self.query_one("#reason", Label).remove_class("-shown")
        if was:
            self.rows.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Have the text checked."""
        event.stop()
        if self.editing:
            self.post_message(self.Typed(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Hand the text on."""
        event.stop()
        self.post_message(self.Taken(event.value))

    def on_value_input_left(self) -> None:
        """Put the line away without a new value."""
        self.close()
        self.post_message(self.Left())

    def on_resize(self) -> None:
        """Keep the line over its value."""
        if self.editing:
            region = self.rows.value_region()
            line = self.query_one(ValueInput)
            line.styles.offset, line.styles.width = (region.x, region.y), region.width


def _fit(text: str, width: int) -> str:
    text = one_line(text)
    return f"{set_cell_size(text, width - 1)}…" if cell_len(text) > width else set_cell_size(text, width)
