"""The log of the session: what happened, newest last."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from heretic_tui.state import LogLine
from heretic_tui.widgets.rows import Column, Row, Rows


class LogView(Vertical, can_focus=False):
    """Lines with the time; those of a traceback are only in the log file."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy line", show=False, id="log.copy")]

    def compose(self) -> ComposeResult:
        """The list."""
        yield Rows(Column("", 8), Column(""), empty="Nothing has happened yet.")

    def show(self, log: Sequence[LogLine]) -> None:
        """Show the log; the cursor follows the end unless it was moved up."""
        if not self.has_class("-shown"):
            return
        rows = self.query_one(Rows)
        at_end = rows.cursor >= len(rows.rows) - 1
        found = [
            Row(index, (f"{datetime.fromtimestamp(line.time):%H:%M:%S}", line.text), _style(line.level))
            for index, line in enumerate(log)
            if line.level != "traceback"
        ]
        rows.show(found)
        if at_end:
            rows.action_edge(-1)

    def focus(self, scroll_visible: bool = True) -> "LogView":
        """Give the focus to the list."""
        self.query_one(Rows).focus(scroll_visible)
        return self

    def action_copy(self) -> None:
        """Copy the line under the cursor through the terminal."""
        rows = self.query_one(Rows)
        if rows.rows:
            self.app.copy_to_clipboard(rows.rows[rows.cursor].cells[1])


def _style(level: str) -> str:
    return {"warning": "rows--warning", "error": "rows--warning"}.get(level, "")
