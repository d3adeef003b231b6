"""A grid of cells to draw on: characters, and lines in the dots of braille cells."""

from collections import defaultdict
from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille cell, by row and column."""
ACROSS, DOWN = 2, 4
"""Dots of a cell."""


class Canvas:
    """Cells `(width, height)`, counted from the upper left; a character covers the dots of its cell."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = max(0, width), max(0, height)
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}
        self._dots: dict[tuple[int, int], int] = defaultdict(int)
        self._dot_styles: dict[tuple[int, int], str] = {}

    def copy(self) -> "Canvas":
        """The same drawing, to draw on."""
        other = Canvas(self.width, self.height)
        other._cells, other._dots, other._dot_styles = self._cells.copy(), self._dots.copy(), self._dot_styles.copy()
        return other

    def put(self, x: int, y: int, text: str, style: str) -> None:
        """Write characters of one cell each; what lies outside is left out."""
        for place, letter in enumerate(text, start=x):
            if 0 <= place < self.width and 0 <= y < self.height:
                self._cells[place, y] = (letter, style)

    def line(self, x0: float, y0: float, x1: float, y1: float, style: str, every: int = 1) -> None:
        """Draw a line between two points given in cells; a dotted one sets one dot of `every` so many."""
        steps = max(1, round(max(abs(x1 - x0) * ACROSS, abs(y1 - y0) * DOWN)))
        across, down = (x1 - x0) * ACROSS / steps, (y1 - y0) * DOWN / steps
        left, top = x0 * ACROSS, y0 * DOWN
        width, height, dots, styles = self.width, self.height, self._dots, self._dot_styles
        for step in range(0, steps + 1, every):  # by hand rather than by `dot`: a screen of curves has thousands
            x, y = int(left + across * step), int(top + down * step)
            cell = x // ACROSS, y // DOWN
            if 0 <= cell[0] < width and 0 <= cell[1] < height:
                dots[cell] |= DOTS[y % DOWN][x % ACROSS]
                styles[cell] = style

    def dot(self, x: float, y: float, style: str) -> None:
        """Set the dot nearest to a point given in cells."""
        across, down = int(x * ACROSS), int(y * DOWN)
        cell = across // ACROSS, down // DOWN
        if 0 <= cell[0] < self.width and 0 <= cell[1] < self.height:
            self._dots[cell] |= DOTS[down % DOWN][across % ACROSS]
            self._dot_styles[cell] = style

    def cell(self, x: int, y: int) -> tuple[str, str]:
        """Character and style class of a cell; the class is empty where nothing was drawn."""
        if (x, y) in self._cells:
            return self._cells[x, y]
        if (x, y) in self._dots:
            return chr(0x2800 + self._dots[x, y]), self._dot_styles[x, y]
        return " ", ""

    def strip(self, y: int, styles: dict[str, Style], base: Style) -> Strip:
        """One line, with the style that stands for each class."""
        cells = [self.cell(x, y) for x in range(self.width)]
        segments = [
            Segment("".join(letter for letter, _ in group), base + styles[name] if name else base)
            for name, group in groupby(cells, key=lambda cell: cell[1])
        ]
        return Strip(segments, self.width)

    def __str__(self) -> str:
        """The characters alone."""
        return "\n".join("".join(self.cell(x, y)[0] for x in range(self.width)).rstrip() for y in range(self.height))
