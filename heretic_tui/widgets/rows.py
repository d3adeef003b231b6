"""A list with columns: draws only the lines that can be seen, so that thousands of rows cost no more than twenty."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, ClassVar, Literal

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from heretic_tui.formats import one_line


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `width` 0 takes what the others leave, `least` at the least.

    Columns with a higher `drop` go first where room is short.
    """

    title: str
    width: int = 0
    justify: Literal["left", "right"] = "left"
    drop: int = 0
    least: int = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its key, its cells as data, and the style class that its text takes (`rows--mark`, ...)."""

    key: Any
    cells: tuple[str, ...]
    style: str = ""


class Rows(ScrollView, can_focus=True):
    """Rows with a cursor; cells are data, so that whatever stands in them is shown as typed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "rows--header", "rows--cursor", "rows--mark", "rows--dim", "rows--warning", "rows--heading", "rows--blurred",
    }  # fmt: skip
    DEFAULT_CSS = """
    Rows {
        height: 1fr; overflow-x: hidden; background: transparent;
        scrollbar-size-vertical: 1; scrollbar-background: $background;
    }
    Rows > .rows--header { color: $foreground-muted; text-style: bold; }
    Rows > .rows--cursor { background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }
    Rows > .rows--blurred { background: $block-cursor-blurred-background; }
    Rows > .rows--mark { color: $accent; text-style: bold; }
    Rows > .rows--dim { color: $foreground-muted; }
    Rows > .rows--warning { color: $warning; }
    Rows > .rows--heading { color: $primary; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="rows.up"),
        Binding("down,j", "move(1)", "Down", show=False, id="rows.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="rows.pageup"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="rows.pagedown"),
        Binding("home", "edge(0)", "First", show=False, id="rows.first"),
        Binding("end", "edge(-1)", "Last", show=False, id="rows.last"),
        Binding("enter", "choose", "Choose", show=False, id="rows.choose"),
    ]

    cursor: reactive[int] = reactive(0)
    """Index of the row under the cursor."""

    class Moved(Message):
        """The cursor stands on another row."""

        def __init__(self, rows: "Rows", key: Any) -> None:
            super().__init__()
            self.rows, self.key = rows, key

        @property
        def control(self) -> "Rows":
            """The list that sent it."""
            return self.rows

    class Chosen(Moved):
        """The row under the cursor was chosen with enter or a second click."""

    def __init__(self, *columns: Column, empty: str = "", id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.columns = columns
        self.empty = empty
        self.rows: Sequence[Row] = ()

    @property
    def _head(self) -> int:
        """Lines that the header takes."""
        return 1 if any(column.title for column in self.columns) else 0

    @property
    def key(self) -> Any:
        """The key of the row under the cursor; None in an empty list."""
        return self.rows[self.cursor].key if self.cursor < len(self.rows) else None

    def show(self, rows: Sequence[Row], *, key: Any = None) -> None:
        """Show other rows; the cursor stays on the row with its key, or goes to `key`."""
        key = self.key if key is None else key
        self.rows = rows
        self.virtual_size = Size(self.size.width, len(rows) + self._head)
        found = next((index for index, row in enumerate(rows) if row.key == key), None)
        moved = found if found is not None else max(0, min(self.cursor, len(rows) - 1))
        self.set_reactive(Rows.cursor, moved)
        self._follow()
        self.refresh()

    def set_columns(self, *columns: Column) -> None:
        """Have other columns."""
        self.columns = columns
        self.refresh()

    def select(self, key: Any) -> None:
        """Put the cursor on the row with this key, quietly."""
        found = next((index for index, row in enumerate(self.rows) if row.key == key), None)
        if found is not None and found != self.cursor:
            self.set_reactive(Rows.cursor, found)
            self._follow()
            self.refresh()

    def watch_cursor(self) -> None:
        """Tell that the cursor has moved."""
        self._follow()
        self.refresh()
        if self.rows:
            self.post_message(self.Moved(self, self.key))

    def validate_cursor(self, cursor: int) -> int:
        """Keep the cursor on a row."""
        return max(0, min(cursor, len(self.rows) - 1))

    def _follow(self) -> None:
        head = self._head
        top = self.scroll_offset.y
        height = max(1, self.size.height - head)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def on_resize(self, event: events.Resize) -> None:
        """Keep the cursor in sight."""
        self.virtual_size = Size(event.size.width, len(self.rows) + self._head)
        self._follow()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.cursor += by

    def action_page(self, by: int) -> None:
        """Move the cursor by a screenful."""
        self.cursor += by * max(1, self.size.height - self._head - 1)

    def action_edge(self, index: int) -> None:
        """Move the cursor to the first or the last row."""
        self.cursor = index if index >= 0 else len(self.rows) - 1

    def action_choose(self) -> None:
        """Choose the row under the cursor."""
        if self.rows:
            self.post_message(self.Chosen(self, self.key))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is; on the row that has it already, choose."""
        index = event.y - self._head + self.scroll_offset.y
        if event.y < self._head or not 0 <= index < len(self.rows):
            return
        if index == self.cursor and event.chain > 1:
            self.action_choose()
        self.cursor = index

    def on_focus(self) -> None:
        """The cursor looks different in a list that has the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different in a list that has lost the focus."""
        self.refresh()

    def _widths(self, room: int) -> list[int]:
        """The width of every column, 0 for those left out."""
        kept = dict(enumerate(self.columns))
        for level in sorted({column.drop for column in self.columns if column.drop}, reverse=True):
            if sum((column.width or column.least) + 1 for column in kept.values()) <= room + 1:
                break
            kept = {index: column for index, column in kept.items() if column.drop != level}
        fixed = sum(column.width + 1 for column in kept.values()) - 1
        flexible = [index for index, column in kept.items() if not column.width]
        share, rest = divmod(max(0, room - fixed), len(flexible)) if flexible else (0, 0)
        widths = [0] * len(self.columns)
        for index, column in kept.items():
            widths[index] = column.width or share + (rest if index == flexible[0] else 0)
        return widths

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        shown = []
        for cell, column, width in zip(cells, self.columns, widths, strict=False):
            if not width:
                continue
            text = one_line(cell)
            if cell_len(text) > width:
                text = f"{set_cell_size(text, width - 1)}…"
            pad = " " * (width - cell_len(text))
            shown.append(pad + text if column.justify == "right" else text + pad)
        return " ".join(shown)

    def render_line(self, y: int) -> Strip:
        """One line of the list."""
        width = self.scrollable_content_region.width
        base = self.rich_style
        if not self.rows:
            lines = [part for line in self.empty.splitlines() for part in wrap(line, max(10, width)) or [""]]
            return self._strip(one_line(lines[y]) if y < len(lines) else "", base + self._style("rows--dim"), width)
        widths = self._widths(width)
        if y < self._head:
            titles = self._line([column.title for column in self.columns], widths)
            return self._strip(titles, base + self._style("rows--header"), width)
        index = y - self._head + self.scroll_offset.y
        if index >= len(self.rows):
            return Strip.blank(width, base)
        row = self.rows[index]
        style = base
        if row.style:
            style += self._style(row.style)
        if index == self.cursor:
            style += self._style("rows--cursor" if self.has_focus else "rows--blurred")
        return self._strip(self._line(row.cells, widths), style, width)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    @staticmethod
    def _strip(text: str, style: Style, width: int) -> Strip:
        return Strip([Segment(set_cell_size(text, width), style)], width)

    def region_of(self, key: Any) -> Region:
        """Where the row with this key is drawn, in the widget's own coordinates; for tests."""
        index = next(index for index, row in enumerate(self.rows) if row.key == key)
        return Region(0, index + self._head - self.scroll_offset.y, self.size.width, 1)
