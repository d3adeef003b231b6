"""Curves over the layers: several charts beside each other, each with axes, a cursor and names at the lines' ends."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeGuard

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from heretic_tui.widgets.axes import Scale, label, scale_for, wide_log
from heretic_tui.widgets.canvas import Canvas

LEAST = Size(44, 11)
"""The least room that a chart takes where it is not alone."""
CURSOR = "┊"
PICKED = "★"


@dataclass(frozen=True, slots=True)
class Line:
    """A line: a figure a row, None where there is none.

    `glyph` tells it from the others without colour, as does its being dotted; `look` is one of plain, good, bad.
    """

    name: str
    values: tuple[float | None, ...]
    glyph: str = "●"
    look: str = "plain"
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """The lines of one subject on one scale; `logarithmic` is used where the figures spread that far."""

    title: str
    lines: tuple[Line, ...]
    logarithmic: bool = False
    empty: str = ""
    """What is said where there is no figure at all."""

    def scale(self) -> Scale:
        """The vertical scale."""
        values = [value for line in self.lines for value in line.values if value is not None and math.isfinite(value)]
        if self.logarithmic and values and min(values) > 0 and wide_log(values):
            return scale_for(values, logarithmic=True)
        return scale_for(values)

    @property
    def hollow(self) -> bool:
        """Whether there is nothing to draw."""
        return all(value is None for line in self.lines for value in line.values)


class _Room(NamedTuple):
    """Where a chart is drawn, in cells."""

    x: int
    y: int
    width: int
    height: int


class Curves(Widget, can_focus=True):
    """Charts over one horizontal axis, as many beside each other as there is room for; one of them is chosen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "curves--axis", "curves--title", "curves--chosen", "curves--plain", "curves--good", "curves--bad",
        "curves--dotted", "curves--cursor", "curves--picked",
    }  # fmt: skip
    DEFAULT_CSS = """
    Curves { height: 1fr; }
    Curves > .curves--axis { color: $foreground-muted; }
    Curves > .curves--title { color: $foreground-muted; }
    Curves > .curves--chosen { color: $primary; text-style: bold; }
    Curves > .curves--plain { color: $primary; }
    Curves > .curves--good { color: $secondary; }
    Curves > .curves--bad { color: $accent; }
    Curves > .curves--dotted { color: $foreground-muted; }
    Curves > .curves--cursor { color: $foreground; }
    Curves > .curves--picked { color: $accent; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "choose(-1)", "Curve before", show=False, id="curves.up"),
        Binding("down", "choose(1)", "Curve after", show=False, id="curves.down"),
    ]

    class Chosen(Message):
        """Another chart is the chosen one."""

    class Pointed(Message):
        """A click on a row."""

        def __init__(self, row: int) -> None:
            super().__init__()
            self.row = row

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.charts: tuple[Chart, ...] = ()
        self.names: tuple[str, ...] = ()
        self.picked: frozenset[int] = frozenset()
        self.row = 0
        self.chosen = 0
        self._canvas: Canvas | None = None
        self._strips: list[Strip] = []
        self._columns: list[tuple[_Room, list[int]]] = []
        """Of every chart that is drawn, in which column each row stands."""

    def show(self, charts: tuple[Chart, ...], names: tuple[str, ...], row: int, picked: frozenset[int]) -> None:
        """Draw these charts; `names` are the rows' names, `picked` the rows that are marked."""
        same = (charts, names, picked) == (self.charts, self.names, self.picked)
        if same and row == self.row:
            return
        self.charts, self.names, self.picked, self.row = charts, names, picked, row
        self.chosen = min(self.chosen, max(0, len(charts) - 1))
        self._redraw(keep=same)

    def _redraw(self, keep: bool = False) -> None:
        """Draw anew; what does not depend on the cursor is kept where only that has moved."""
        if not keep:
            self._canvas = None
        self._strips = []
        self.refresh()

    @property
    def chart(self) -> Chart | None:
        """The chosen chart."""
        return self.charts[self.chosen] if self.charts else None

    def action_choose(self, by: int) -> None:
        """Choose another chart."""
        if self.charts:
            self.chosen = (self.chosen + by) % len(self.charts)
            self._redraw()
            self.post_message(self.Chosen())

    def on_resize(self) -> None:
        """Draw anew at the new size."""
        self._redraw()

    def notify_style_update(self) -> None:
        """Other colours."""
        super().notify_style_update()
        self._strips = []

    def on_click(self, event: events.Click) -> None:
        """Choose the row under the mouse."""
        for room, columns in self._columns:
            inside = room.x <= event.x < room.x + room.width and room.y <= event.y < room.y + room.height
            if inside and columns:
                nearest = min(range(len(columns)), key=lambda index: abs(columns[index] - event.x))
                self.post_message(self.Pointed(nearest))

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        if not self._strips or len(self._strips) != self.size.height:
            self._draw()
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)

    def _draw(self) -> None:
        width, height = self.size
        if self._canvas is None or (self._canvas.width, self._canvas.height) != (width, height):
            self._canvas = self._drawn(width, height)
        canvas = self._canvas.copy()
        for room, columns in self._columns:
            if self.row < len(columns):
                self._draw_cursor(canvas, room, columns[self.row])
        styles = {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES}
        self._strips = [canvas.strip(y, styles, self.rich_style) for y in range(height)]

    def _draw_cursor(self, canvas: Canvas, room: _Room, x: int) -> None:
        bottom = room.y + room.height - 2
        for y in range(room.y + 1, bottom):
            if canvas.cell(x, y)[0] == " ":
                canvas.put(x, y, CURSOR, "curves--cursor")
        name = self.names[self.row] if self.row < len(self.names) else ""
        canvas.put(x, bottom, "┻", "curves--cursor")
        start = max(room.x, min(x - len(name) // 2, room.x + room.width - len(name)))
        first, last = start - 1, start + len(name)
        while canvas.cell(first, bottom + 1)[0] != " ":  # a number that is partly hidden would be another number
            first -= 1
        while canvas.cell(last, bottom + 1)[0] != " ":
            last += 1
        canvas.put(first, bottom + 1, f"{name:>{start - first + len(name)}}".ljust(last - first), "curves--cursor")

    # The charts

    def _drawn(self, width: int, height: int) -> Canvas:
        canvas = Canvas(width, height)
        self._columns = []
        if not self.charts or width < 16 or height < 5:
            return canvas
        for index, room in self._rooms(width, height):
            self._columns.append((room, self._chart(canvas, room, self.charts[index], index == self.chosen)))
        return canvas

    def _rooms(self, width: int, height: int) -> list[tuple[int, _Room]]:
        """Which charts have room, and where: all of them where they fit, else the chosen one and those after it."""
        count = len(self.charts)
        across = max(1, min(width // LEAST.width, 3, count))
        down = max(1, min(height // LEAST.height, math.ceil(count / across)))
        if across * down < count and across * down == 2:
            across, down = 1, 1 if height < 2 * LEAST.height else down
        shown = min(count, across * down)
        down = math.ceil(shown / across)
        first = 0 if shown == count else self.chosen
        rooms = []
        for place in range(shown):
            column, row = place % across, place // across
            x, y = column * width // across, row * height // down
            right, bottom = (column + 1) * width // across, (row + 1) * height // down
            gap = 2 if column < across - 1 else 0
            rooms.append(((first + place) % count, _Room(x, y, right - x - gap, bottom - y)))
        return rooms

    def _chart(self, canvas: Canvas, room: _Room, chart: Chart, chosen: bool) -> list[int]:
        """Draw a chart; gives the column of every row."""
        scale = chart.scale()
        words = f"{chart.title}, log" if scale.logarithmic else chart.title
        mark = f"▸ {words}" if chosen and len(self.charts) > 1 else words
        canvas.put(room.x, room.y, mark[: room.width], "curves--chosen" if chosen else "curves--title")
        rows = room.height - 3
        if chart.hollow or rows < 1:
            canvas.put(room.x + 2, room.y + 2, chart.empty[: room.width - 2], "curves--axis")
            return []
        labels = {value: label(value) for value in scale.ticks(max(1, rows // 3))}
        left = room.x + max((len(text) for text in labels.values()), default=0) + 1
        right = max((len(line.name) for line in chart.lines), default=0) + 1
        span = room.x + room.width - right - left
        count = len(self.names)
        if span < 4 or not count:
            return []
        columns = [
            left + (round(index * (span - 1) / (count - 1)) if count > 1 else span // 2) for index in range(count)
        ]

        def height_of(value: float) -> float:
            return room.y + 1 + (1 - scale.share(value)) * (rows - 1) + 0.5

        for y in range(room.y + 1, room.y + 1 + rows):
            canvas.put(left - 1, y, "│", "curves--axis")
        for value, text in labels.items():
            y = int(height_of(value))
            canvas.put(left - 1, y, "┤", "curves--axis")
            canvas.put(left - 1 - len(text), y, text, "curves--axis")
        self._axis(canvas, room, left, span, columns)
        lines = sorted(chart.lines, key=lambda line: not line.dotted)
        for place, line in enumerate(lines):
            self._line(
                canvas,
                line,
                (place, len(lines)),
                [
                    (columns[index], height_of(value)) if _drawable(value) else None
                    for index, value in enumerate(line.values[:count])
                ],
            )
        self._name_lines(canvas, room, chart, left + span + 1, height_of)
        return columns

    def _axis(self, canvas: Canvas, room: _Room, left: int, span: int, columns: Sequence[int]) -> None:
        bottom = room.y + room.height - 2
        canvas.put(left - 1, bottom, "└" + "─" * span, "curves--axis")
        step = max(1, math.ceil(5 * len(columns) / max(1, span)))
        step = next((nice for nice in (1, 2, 5, 10, 20, 50) if nice >= step), step)
        for row in range(1, len(columns), step):
            name = self.names[row]
            canvas.put(columns[row], bottom, "┴", "curves--axis")
            canvas.put(columns[row] - (len(name) - 1) // 2, bottom + 1, name, "curves--axis")
        for row in self.picked:
            if row < len(columns):
                canvas.put(columns[row], bottom, PICKED, "curves--picked")

    @staticmethod
    def _line(canvas: Canvas, line: Line, place: tuple[int, int], points: Sequence[tuple[int, float] | None]) -> None:
        style = "curves--dotted" if line.dotted else f"curves--{line.look}"
        before: tuple[int, float] | None = None
        for point in points:
            if point is not None and before is not None:
                # Through the cells' middles; a dotted line leaves out two dots of three.
                canvas.line(before[0] + 0.5, before[1], point[0] + 0.5, point[1], style, 3 if line.dotted else 1)
            before = point
        # A glyph on some points, each line on others: where lines meet, none hides the marks of the rest.
        number, lines = place
        step = max(min(lines, 4), math.ceil(4 * len(points) / max(1, _spread(points))))
        for index in range(number % step, len(points), step):
            if (point := points[index]) is not None:
                canvas.put(point[0], int(point[1]), line.glyph, style)

    @staticmethod
    def _name_lines(canvas: Canvas, room: _Room, chart: Chart, x: int, height_of: Callable[[float], float]) -> None:
        ends = []
        for line in chart.lines:
            last = next((value for value in reversed(line.values) if _drawable(value)), None)
            if last is not None:
                ends.append((int(height_of(last)), line))
        ends.sort(key=lambda end: end[0])
        top, bottom = room.y + 1, room.y + room.height - 3
        taken = top - 1
        heights = []
        for y, _ in ends:
            taken = max(y, taken + 1)
            heights.append(taken)
        limit = bottom
        for index in range(len(heights) - 1, -1, -1):  # what was pushed below the chart moves up again
            heights[index] = min(heights[index], limit)
            limit = heights[index] - 1
        for y, (_, line) in zip(heights, ends, strict=True):
            if top <= y <= bottom:
                canvas.put(x, y, line.name, "curves--dotted" if line.dotted else f"curves--{line.look}")


def _drawable(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _spread(points: Sequence[tuple[int, float] | None]) -> int:
    across = [point[0] for point in points if point is not None]
    return max(across) - min(across) + 1 if across else 1
