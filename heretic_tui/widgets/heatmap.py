"""A square matrix of values between -1 and 1 as coloured half cells, with a cursor."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from heretic_tui.widgets.shades import blend, few_colours, shade

LEVELS = 24
"""Steps of the colour scale to either side of nothing."""
MARK = "◆"


class Heatmap(Widget, can_focus=True):
    """Values `(n, n)`; row and column of the cursor are the matrix's. Where cells are few, a cell shows a block's mean.

    Where colours cannot carry the values, characters do: ░▒▓█ for positive ones, -=≡# for negative ones.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "heatmap--positive", "heatmap--negative", "heatmap--nothing", "heatmap--axis", "heatmap--cursor",
    }  # fmt: skip
    DEFAULT_CSS = """
    Heatmap { height: auto; max-height: 100%; }
    Heatmap > .heatmap--positive { color: $primary; }
    Heatmap > .heatmap--negative { color: $secondary; }
    Heatmap > .heatmap--nothing { color: $surface; }
    Heatmap > .heatmap--axis { color: $foreground-muted; }
    Heatmap > .heatmap--cursor { color: $foreground; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Row up", show=False, id="heatmap.up"),
        Binding("down", "move(1)", "Row down", show=False, id="heatmap.down"),
        Binding("home", "edge(0)", "First row", show=False, id="heatmap.first"),
        Binding("end", "edge(-1)", "Last row", show=False, id="heatmap.last"),
    ]

    class Moved(Message):
        """The cursor stands somewhere else; None where only the row moved."""

        def __init__(self, heatmap: "Heatmap", column: int | None = None) -> None:
            super().__init__()
            self.heatmap, self.column = heatmap, column

    def __init__(self, empty: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.empty = empty
        self.values: NDArray[np.float64] = np.zeros((0, 0))
        self.names: tuple[str, ...] = ()
        self.title = ""
        self.row = 0
        self.column = 0
        self._strips: list[Strip] = []
        self._scale: list[RichColor] = []

    def show(self, values: NDArray[np.float64], names: tuple[str, ...], column: int, title: str = "") -> None:
        """Show these values with the cursor in this column."""
        if values is not self.values or (names, column, title) != (self.names, self.column, self.title):
            self.values, self.names, self.column, self.title = values, names, column, title
            self.row = max(0, min(self.row, len(values) - 1))
            self._strips = []
            self.refresh(layout=True)

    @property
    def value(self) -> float | None:
        """The value under the cursor."""
        inside = self.row < len(self.values) and self.column < len(self.values)
        return float(self.values[self.row, self.column]) if inside else None

    def put_row(self, row: int) -> None:
        """Put the cursor in another row, quietly."""
        self.row = max(0, min(row, len(self.values) - 1))
        self._redraw()

    def _redraw(self) -> None:
        self._strips = []
        self.refresh()

    def action_move(self, by: int) -> None:
        """Move the cursor up or down; left and right move through the layers, as everywhere."""
        self._go(self.row + by)

    def action_edge(self, index: int) -> None:
        """Move the cursor to the first or the last row."""
        self._go(index if index >= 0 else len(self.values) - 1)

    def _go(self, row: int) -> None:
        self.put_row(row)
        self.post_message(self.Moved(self))

    def on_resize(self) -> None:
        """Draw anew at the new size."""
        self._redraw()

    def notify_style_update(self) -> None:
        """Other colours."""
        super().notify_style_update()
        self._strips, self._scale = [], []

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is."""
        block, wide, high = self._measures()
        left = self._left
        column = (event.x - left) // wide * block
        half = (event.y - self._top) * (1 if self._plain else 2)
        row = half // high * block
        if 0 <= column < len(self.values) and 0 <= row < len(self.values) and event.x >= left:
            self.put_row(row)
            self.post_message(self.Moved(self, column))

    # Drawing

    @property
    def _plain(self) -> bool:
        return few_colours(self, *(self._look(name) for name in ("positive", "negative", "nothing")))

    @property
    def _left(self) -> int:
        """Cells that the rows' names take."""
        return max((len(name) for name in self.names), default=0) + 1

    @property
    def _top(self) -> int:
        """Lines that the title takes."""
        return 1 if self.title else 0

    def _measures(self) -> tuple[int, int, int]:
        """How many layers a cell stands for, how many characters it is wide, and how many (half) lines high."""
        count = max(1, len(self.values))
        plain = self._plain
        lines = max(1, self.size.height - self._top - 1)
        halves = lines if plain else 2 * lines
        room = max(1, self.size.width - self._left)
        block = max(1, math.ceil(count / halves), math.ceil(count / room))
        shown = math.ceil(count / block)
        if plain:  # a character is about twice as high as wide
            high = max(1, min(lines // shown, room // (2 * shown)))
            return block, max(1, min(2 * high, room // shown)), high
        size = max(1, min(halves // shown, room // shown))
        return block, size, size

    def width_for(self, height: int, most: int) -> int:
        """Cells that squares as high as so many lines take, at most `most`."""
        count = max(1, len(self.values))
        lines = max(1, height - self._top - 1)
        halves = lines if self._plain else 2 * lines
        shown = math.ceil(count / max(1, math.ceil(count / halves)))
        each = max(1, halves // shown) * (2 if self._plain else 1)
        return max(12, min(self._left + shown * each, most))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the squares take in this width, if the container has them."""
        count = max(1, len(self.values))
        around = self._top + 1
        room = max(1, width - self._left)
        lines = max(1, container.height - around)
        if self._plain:
            block = max(1, math.ceil(count / room), math.ceil(count / lines))
            shown = math.ceil(count / block)
            return around + shown * max(1, min(lines // shown, room // (2 * shown)))
        block = max(1, math.ceil(count / room), math.ceil(count / (2 * lines)))
        shown = math.ceil(count / block)
        return around + math.ceil(shown * max(1, min(2 * lines // shown, room // shown)) / 2)

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        if not self._strips:
            self._strips = self._drawn()
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _drawn(self) -> list[Strip]:
        axis, cursor = (self.rich_style + self._look(name) for name in ("axis", "cursor"))
        if not len(self.values):
            return [Strip([Segment(self.empty[: self.size.width], axis)])]
        block, wide, high = self._measures()
        blocks = _blocks(self.values, block)
        here = self.row // block, self.column // block
        strips = [Strip([Segment(self.title[: self.size.width], axis)])] if self.title else []
        lines = self._characters(blocks, wide, high, here) if self._plain else self._halves(blocks, wide, high, here)
        named = -1
        # The names of a few rows, and the cursor's.
        step = 1 if high > 1 else 2 if self._plain else 4
        for index, cells in lines:
            fresh, named = index != named, index
            name, style = "", axis
            if fresh and index == here[0]:
                name, style = f"{self.names[self.row]}▸", cursor
            elif fresh and index % step == 0 and abs(index - here[0]) * high >= (1 if self._plain else 2):
                name = f"{self.names[index * block]} "
            strips.append(Strip([Segment(name.rjust(self._left), style), *cells]).simplify())
        strips.append(self._below(block, wide, len(blocks), axis, cursor))
        return [strip.adjust_cell_length(self.size.width, self.rich_style) for strip in strips]

    def _look(self, name: str) -> Style:
        return self.get_component_rich_style(f"heatmap--{name}")

    def _halves(
        self, blocks: NDArray[np.float64], wide: int, high: int, here: tuple[int, int]
    ) -> Iterator[tuple[int, list[Segment]]]:
        """Lines of half cells, each with the row that it begins with; the cursor is a mark, or a half of its colour."""
        count = len(blocks)
        colours = [[self._colour(value) for value in row] for row in blocks.tolist()]
        ground, mark = self.rich_style.bgcolor, self._look("cursor").color
        top = here[0] * high
        # The line in the middle of the cursor's cell, both of whose halves are within it.
        middle = -1 if high == 1 else max(math.ceil(top / 2), min((2 * top + high - 1) // 4, (top + high - 2) // 2))
        for line in range(math.ceil(count * high / 2)):
            upper, lower = 2 * line // high, (2 * line + 1) // high
            cells = []
            for column in range(count):
                above = colours[upper][column]
                below = colours[lower][column] if lower < count else ground
                text = "▀" * wide
                if column == here[1]:
                    if line == middle:
                        cells += _marked(wide, above, mark)
                        continue
                    if high == 1:
                        above = mark if mark and upper == here[0] else above
                        below = mark if lower == here[0] else below
                cells.append(Segment(text, Style(color=above, bgcolor=below)))
            yield (here[0] if upper <= here[0] <= lower else upper), cells

    def _characters(
        self, blocks: NDArray[np.float64], wide: int, high: int, here: tuple[int, int]
    ) -> Iterator[tuple[int, list[Segment]]]:
        """Lines of characters for terminals with few colours."""
        positive, negative, cursor = (self.rich_style + self._look(name) for name in ("positive", "negative", "cursor"))
        for index, row in enumerate(blocks.tolist()):
            for line in range(high):
                cells = []
                for column, value in enumerate(row):
                    if (index, column) == here and line == high // 2:
                        cells.append(Segment(MARK.center(wide), cursor))
                    else:
                        cells.append(Segment(shade(value) * wide, positive if value >= 0 else negative))
                yield index, cells

    def _below(self, block: int, wide: int, count: int, axis: Style, cursor: Style) -> Strip:
        """The names of the columns: the cursor's, and of the others as many as have room."""
        room = self.size.width
        line = [" "] * room
        start = self._left + self.column // block * wide
        own = f"▴{self.names[self.column]}"
        place = max(0, min(start, room - len(own)))
        step = max(1, math.ceil((self._left + 3) / wide))
        for index in range(0, count, step):
            name, x = self.names[index * block], self._left + index * wide
            if x + len(name) < place - 1 or (x > place + len(own) and x + len(name) <= room):
                line[x : x + len(name)] = name
        text = "".join(line)
        return Strip([Segment(text[:place], axis), Segment(own, cursor), Segment(text[place + len(own) : room], axis)])

    def _colour(self, value: float) -> RichColor:
        if not self._scale:
            positive, negative, nothing = (self._look(name) for name in ("positive", "negative", "nothing"))
            self._scale = [
                blend(nothing, positive if level >= 0 else negative, abs(level) / LEVELS)
                for level in range(-LEVELS, LEVELS + 1)
            ]
        return self._scale[_level(value)]


def _marked(wide: int, ground: RichColor, mark: RichColor | None) -> list[Segment]:
    """The cursor in the middle of a cell."""
    side = (wide - 1) // 2
    parts = [(" " * side, None), (MARK, mark), (" " * (wide - side - 1), None)]
    return [Segment(text, Style(color=colour, bgcolor=ground, bold=True)) for text, colour in parts if text]


@lru_cache(maxsize=4096)
def _level(value: float) -> int:
    return LEVELS + round(max(-1.0, min(1.0, value)) * LEVELS) if math.isfinite(value) else LEVELS


def _blocks(values: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Means over blocks of so many rows and columns."""
    if block == 1:
        return values
    edges = np.arange(0, len(values), block)

    def summed(array: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(array, edges, axis=0), edges, axis=1)
        return sums

    # Layers without a direction have no values.
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = summed(np.nan_to_num(values)) / summed(np.isfinite(values).astype(np.float64))
    return means
