"""Trials as points: two objectives, the Pareto front as a staircase, and the selected trial."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from heretic_tui.widgets.axes import Scale, label, scale_for, wide_log
from heretic_tui.widgets.canvas import Canvas

Kind = Literal["trial", "front", "early", "original"]
GLYPHS: dict[Kind, str] = {"trial": "·", "front": "★", "early": "▵", "original": "○"}
SELECTED = "◆"


@dataclass(frozen=True, slots=True)
class Point:
    """A trial at `x`, `y`."""

    key: int
    x: float
    y: float
    kind: Kind = "trial"


@dataclass(frozen=True, slots=True)
class Cloud:
    """All that is drawn; the signs tell in which direction each axis gets better: -1 down, 1 up."""

    points: tuple[Point, ...] = ()
    x_title: str = ""
    y_title: str = ""
    better: tuple[int, int] = (-1, -1)
    logarithmic: bool | None = None
    """Whether x has a logarithmic scale; None decides by the points."""


class Scatter(Widget):
    """Draws points in cells; a click selects the nearest."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "scatter--axis", "scatter--trial", "scatter--front", "scatter--early", "scatter--original",
        "scatter--selected", "scatter--line",
    }  # fmt: skip
    DEFAULT_CSS = """
    Scatter { height: 1fr; }
    Scatter > .scatter--axis { color: $foreground-muted; }
    Scatter > .scatter--trial { color: $secondary; }
    Scatter > .scatter--early { color: $foreground-muted; }
    Scatter > .scatter--original { color: $foreground; }
    Scatter > .scatter--front { color: $accent; text-style: bold; }
    Scatter > .scatter--line { color: $accent; }
    Scatter > .scatter--selected { color: $primary; text-style: bold reverse; }
    """

    class Selected(Message):
        """A point was clicked."""

        def __init__(self, key: int) -> None:
            super().__init__()
            self.key = key

    def __init__(self, empty: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.empty = empty
        self.cloud = Cloud()
        self.selected: int | None = None
        self._canvas: Canvas | None = None
        self._places: dict[int, tuple[int, int]] = {}

    def show(self, cloud: Cloud, selected: int | None) -> None:
        """Draw other points, or the same with another selection."""
        if cloud != self.cloud or selected != self.selected or self._canvas is None:
            self.cloud, self.selected, self._canvas = cloud, selected, None
            self.refresh()

    def on_resize(self) -> None:
        """Draw anew at the new size."""
        self._canvas = None

    def on_click(self, event: events.Click) -> None:
        """Select the point nearest to the mouse; a cell is about twice as high as wide."""
        if self._places:
            distances = {
                key: (x - event.x) ** 2 + (2 * (y - event.y)) ** 2 for key, (x, y) in self._places.items() if key
            }
            if distances:
                self.post_message(self.Selected(min(distances, key=lambda key: distances[key])))

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        if self._canvas is None or (self._canvas.width, self._canvas.height) != tuple(self.size):
            self._canvas = self._drawn(*self.size)
        styles = {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES}
        return self._canvas.strip(y, styles, self.rich_style)

    def scales(self) -> tuple[Scale, Scale]:
        """The scales of x and y."""
        xs = [point.x for point in self.cloud.points]
        ys = [point.y for point in self.cloud.points]
        logarithmic = self.cloud.logarithmic
        if logarithmic is None:
            logarithmic = wide_log(xs)
        return scale_for(xs, logarithmic=logarithmic, from_zero=True), scale_for(ys, from_zero=True)

    def _drawn(self, width: int, height: int) -> Canvas:
        canvas = Canvas(width, height)
        self._places = {}
        if not self.cloud.points or width < 12 or height < 4:
            canvas.put(1, height // 2, self.empty[: width - 2], "scatter--axis")
            return canvas
        across, up = self.scales()
        y_labels = {value: label(value) for value in up.ticks(max(1, (height - 3) // 3))}
        left = max(len(text) for text in y_labels.values()) + 1
        room, rows = width - left - 1, height - 3

        def column(value: float) -> float:
            return left + across.share(value) * (room - 1) + 0.5

        def row(value: float) -> float:
            return 1 + (1 - up.share(value)) * (rows - 1) + 0.5

        self._axes(canvas, left, rows, {int(row(value)): text for value, text in y_labels.items()})
        ticks = {int(column(value)): label(value) for value in across.ticks(max(1, room // 9))}
        self._x_axis(canvas, left, ticks)
        self._front(canvas, [(column(point.x), row(point.y)) for point in self._in_order()], left, rows)
        order = {"trial": 0, "early": 0, "original": 1, "front": 2}
        for point in sorted(self.cloud.points, key=lambda point: (point.key == self.selected, order[point.kind])):
            place = int(column(point.x)), int(row(point.y))
            self._places[point.key] = place
            chosen = point.key == self.selected
            canvas.put(
                *place,
                SELECTED if chosen else GLYPHS[point.kind],
                "scatter--selected" if chosen else f"scatter--{point.kind}",
            )
        return canvas

    def _in_order(self) -> list[Point]:
        return sorted((point for point in self.cloud.points if point.kind == "front"), key=lambda point: point.x)

    def _axes(self, canvas: Canvas, left: int, rows: int, labels: dict[int, str]) -> None:
        canvas.put(0, 0, self.cloud.y_title[: canvas.width // 2], "scatter--axis")
        for y in range(1, rows + 1):
            canvas.put(left - 1, y, "┤" if y in labels else "│", "scatter--axis")
            canvas.put(0, y, labels.get(y, "").rjust(left - 1), "scatter--axis")
        canvas.put(left - 1, rows + 1, "└" + "─" * (canvas.width - left), "scatter--axis")

    def _x_axis(self, canvas: Canvas, left: int, ticks: dict[int, str]) -> None:
        bottom = canvas.height - 1
        title = self.cloud.x_title
        end = canvas.width - len(title) - 1
        taken = left - 2
        for x, text in sorted(ticks.items()):
            canvas.put(x, bottom - 1, "┴", "scatter--axis")
            start = max(left - 1, min(x - len(text) // 2, canvas.width - len(text)))
            if start > taken and start + len(text) < end:
                canvas.put(start, bottom, text, "scatter--axis")
                taken = start + len(text)
        canvas.put(max(taken + 1, end + 1), bottom, title, "scatter--axis")

    def _front(self, canvas: Canvas, corners: Sequence[tuple[float, float]], left: int, rows: int) -> None:
        """The staircase of the front: what lies beyond it no trial has reached."""
        if not corners or self.cloud.better != (-1, -1):
            for (x0, y0), (x1, y1) in itertools.pairwise(corners):
                canvas.line(x0, y0, x1, y1, "scatter--line")
            return
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            canvas.line(x0, y0, x1, y0, "scatter--line")
            canvas.line(x1, y0, x1, y1, "scatter--line")
        canvas.line(corners[0][0], 1, corners[0][0], corners[0][1], "scatter--line")
        canvas.line(corners[-1][0], corners[-1][1], canvas.width - 1, corners[-1][1], "scatter--line")
