"""A sheet of facts: labels and values in two columns, meters, and lines over the whole width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from heretic_tui.formats import one_line, plain
from heretic_tui.widgets.status_line import bar

SHORTEST, LONGEST = 3, 24
"""Cells that a meter's bar may have."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label and what is so; `mark` is the label's style, `style` the text's."""

    label: str
    text: str
    style: str = ""
    mark: str = "$foreground-muted"


@dataclass(frozen=True, slots=True)
class Words:
    """Text over the whole width; empty for a gap."""

    text: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class Meter:
    """A bar between its label and an amount, with the verdict in words; what is over 1 fills it."""

    label: str
    fraction: float
    amount: str
    verdict: str
    style: str = ""


Line = Fact | Words | Meter


class Sheet(Widget):
    """Facts as data, wrapped to the width that there is."""

    DEFAULT_CSS = "Sheet { height: auto; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Show other facts."""
        if lines != self.lines:
            self.lines = lines
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the facts take in this width."""
        return sum(1 for _ in self._drawn(width))

    def render(self) -> Content:
        """The facts."""
        return Content("\n").join(self._drawn(self.size.width))

    def _drawn(self, width: int) -> Iterator[Content]:
        column = 1 + max((cell_len(one_line(line.label)) for line in self.lines if isinstance(line, Fact)), default=0)
        for line in self.lines:
            match line:
                case Words():
                    yield from _wrapped(Content.assemble((plain(line.text), line.style)), width)
                case Meter():
                    yield self._meter(line, width)
                case Fact():
                    label = Content.assemble((one_line(line.label).ljust(column), line.mark))
                    text = Content.assemble((plain(line.text), line.style))
                    for row in _wrapped(text, width - column):
                        yield Content.assemble(label, row)
                        label = Content(" " * column)

    @staticmethod
    def _meter(meter: Meter, width: int) -> Content:
        label = one_line(meter.label).ljust(6)
        rest = f" {one_line(meter.amount)} {one_line(meter.verdict)}"
        cells = max(SHORTEST, min(LONGEST, width - len(label) - len(rest) - 2))
        return Content.assemble(
            (label, "$foreground-muted"),
            (f"▕{bar(meter.fraction, cells)}▏", meter.style),
            f" {one_line(meter.amount)} ",
            (one_line(meter.verdict), meter.style),
        )


def _wrapped(text: Content, width: int) -> list[Content]:
    return text.wrap(max(8, width)) or [Content("")]
