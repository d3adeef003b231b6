"""A long text to look at: lines with a style each, that scroll and never hold the screen up."""

from collections.abc import Sequence
from math import ceil
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from heretic_tui.formats import plain

Line = tuple[str, str]
"""A line's text, and its style in theme variables; empty for the plain one."""


class TextView(VerticalScroll, can_focus=True):
    """Lines of foreign text, as data."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="text.down"),
        Binding("k", "scroll_up", "Up", show=False, id="text.up"),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self.lines: Sequence[Line] = ()

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static("", markup=False)

    def show(self, lines: Sequence[Line], mark: int | None = None) -> None:
        """Show other lines; the line with number `mark` (from 0) is brought into sight and lit."""
        self.lines = lines
        parts = [
            (f"{plain(text)}\n", "reverse" if number == mark else style) for number, (text, style) in enumerate(lines)
        ]
        self.query_one(Static).update(Content.assemble(*parts))
        if mark is not None:
            self.call_after_refresh(self._bring, mark)

    def _bring(self, mark: int) -> None:
        """Scroll to a line; only once the text is laid out, the lines above it have their height."""
        if mark < len(self.lines):
            width = max(1, self.scrollable_content_region.width)
            above = sum(max(1, ceil(cell_len(text) / width)) for text, _ in self.lines[:mark])
            self.scroll_to(y=max(0, above - self.size.height // 2), animate=False)
