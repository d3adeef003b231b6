"""A line of a few facts, of which those that have no room are left out from the right."""

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from heretic_tui.formats import one_line


class PartsLine(Widget):
    """A mark, then the parts as data; nothing to be seen where there are none."""

    DEFAULT_CSS = """
    PartsLine { height: 1; padding: 0 1; background: $panel; display: none; }
    PartsLine.-shown { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.mark, self.style, self.parts = "", "", tuple[str, ...]()

    def show(self, mark: str, style: str, parts: Sequence[str]) -> None:
        """Show other parts; the mark is painted in this style."""
        told = (mark, style, tuple(one_line(part) for part in parts if part))
        if told != (self.mark, self.style, self.parts):
            self.mark, self.style, self.parts = told
            self.set_class(bool(self.parts), "-shown")
            self.refresh()

    def render(self) -> Content:
        """The line."""
        line = Content("")
        for part in self.parts:
            longer = Content(" · ").join([line, Content(part)]) if line else Content(part)
            if line and longer.cell_length + 2 > self.size.width:
                break
            line = longer
        return Content.assemble((f"{self.mark} ", f"bold {self.style}"), line)
