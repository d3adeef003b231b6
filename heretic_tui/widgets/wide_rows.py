"""A list that is wider than its place: its first columns stay, the others move, and one of them is chosen."""

from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from heretic_tui.widgets.rows import Column, Rows


class WideRows(Rows):
    """Rows under more columns than there is room for; the first `kept` are always in sight."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--chosen"}
    DEFAULT_CSS = """
    WideRows > .rows--chosen { color: $primary; text-style: bold underline; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "column(-1)", "Column before", show=False, id="wide-rows.left"),
        Binding("right", "column(1)", "Column after", show=False, id="wide-rows.right"),
        Binding("o", "order", "Sort", id="wide-rows.order", tooltip="Sort by the chosen column, again: the other way"),
    ]

    class ColumnMoved(Message):
        """Another column was chosen."""

    class Ordered(Message):
        """The rows are to be sorted by the chosen column."""

    def __init__(self, *columns: Column, kept: int = 1, empty: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(*columns, empty=empty, id=id)
        self.kept = kept
        self.column = kept
        """The chosen column."""
        self._first = kept
        """The first of the columns that move."""

    def action_column(self, by: int) -> None:
        """Choose another column, and bring it in sight."""
        self.column = max(self.kept, min(self.column + by, len(self.columns) - 1))
        self._first = min(self._first, self.column)
        while self._first < self.column and not self._widths(self.scrollable_content_region.width)[self.column]:
            self._first += 1
        self.refresh()
        self.post_message(self.ColumnMoved())

    def action_order(self) -> None:
        """Ask for the rows in the order of the chosen column."""
        self.post_message(self.Ordered())

    def on_resize(self, event: events.Resize) -> None:
        """Show as many columns as there is room for."""
        super().on_resize(event)
        self._first = self.kept
        self.action_column(0)

    @property
    def hidden(self) -> tuple[int, int]:
        """How many columns stand out of sight to the left and to the right."""
        widths = self._widths(self.scrollable_content_region.width)
        return self._first - self.kept, sum(1 for width in widths[self._first :] if not width)

    def _widths(self, room: int) -> list[int]:
        widths = [column.width for column in self.columns]
        left = room - sum(width + 1 for width in widths[: self.kept]) + 1
        for index in range(self.kept, len(widths)):
            left -= widths[index] + 1
            if index < self._first:
                left += widths[index] + 1
                widths[index] = 0
            elif left < 0:
                widths[index:] = [0] * (len(widths) - index)
                break
        return widths

    def render_line(self, y: int) -> Strip:
        """One line of the list; in the head the chosen column is lit."""
        if y >= self._head or not self.rows:
            return super().render_line(y)
        width = self.scrollable_content_region.width
        header = self.rich_style + self._style("rows--header")
        chosen = self.rich_style + self._style("rows--chosen")
        segments = []
        for index, (column, wide) in enumerate(zip(self.columns, self._widths(width), strict=True)):
            if wide:
                title = column.title.rjust(wide) if column.justify == "right" else column.title.ljust(wide)
                segments.append(Segment(title, chosen if index == self.column else header))
                segments.append(Segment(" ", header))
        return Strip(segments).adjust_cell_length(width, header)
