"""Two sets of points on a plane that flow from one layer to the next."""

import time
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

Points: TypeAlias = NDArray[np.float32]
Cells: TypeAlias = NDArray[np.int64]

FRAME = 1 / 15
"""Seconds between two frames while points move."""
MOVE = 0.6
"""Seconds that points take to the next layer at speed 1."""
MARGIN = 0.03
"""Share of the points' extent that is left free on each side."""
NONE, GOOD, BAD, BOTH = 0, 1, 2, 3
GLYPHS = {GOOD: "◦○●", BAD: "▵△▲", BOTH: "◆◆◆"}
"""One point in a cell, a few, and many; circles are good prompts and triangles bad ones."""
FEW, MANY = 2, 5
"""Points of a cell from which it is drawn fuller."""
ROOM = 5
"""Cells for each point from which a single point is drawn as a few are."""
MIXED = 0.3
"""Share of the smaller set from which a cell belongs to both."""
CLASSES = {GOOD: "good", BAD: "bad", BOTH: "both"}


@dataclass(frozen=True, eq=False)
class Flow:
    """Points of both sets, `(layers, prompts, 2)` each, and what is shown of a layer: `corners` `(layers, 2, 2)`."""

    good: Points
    bad: Points
    corners: Points

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.good)


def corners_of(points: Points) -> Points:
    """Lower left and upper right `(layers, 2, 2)` of points `(layers, points, 2)`, with a margin."""
    low, high = points.min(axis=1), points.max(axis=1)
    margin = np.maximum(high - low, 1e-6) * MARGIN
    return np.stack([low - margin, high + margin], axis=1)


class ProjectionPlot(Widget):
    """Draws one layer's points in cells; where another layer is chosen, they move there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plot--good", "plot--bad", "plot--both"}
    DEFAULT_CSS = """
    ProjectionPlot { height: 1fr; width: 1fr; }
    ProjectionPlot > .plot--good { color: $secondary; }
    ProjectionPlot > .plot--bad { color: $accent; }
    ProjectionPlot > .plot--both { color: $foreground; }
    """

    class Arrived(Message):
        """The points of the chosen layer are where they belong."""

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.flow: Flow | None = None
        self.index = 0
        self.speed = 1.0
        self._from: tuple[Points, Points, Points] | None = None
        self._now: tuple[Points, Points, Points] | None = None
        self._began = 0.0
        self._timer: Timer | None = None
        self._lines: list[Strip] = []

    def show(self, flow: Flow, layer: int, *, still: bool = False) -> None:
        """Show a layer of these points: they move there, or stand there at once where they are `still` or others."""
        layer = max(0, min(layer, flow.layers - 1))
        if flow is self.flow and layer == self.index:
            return
        others = flow is not self.flow
        self.flow, self.index = flow, layer
        if others or still or self._now is None or not self.is_on_screen:
            self._arrive()
            return
        self._from, self._began = self._now, time.monotonic()
        if self._timer is None:
            self._timer = self.set_interval(FRAME, self._step)

    @property
    def moving(self) -> bool:
        """Whether points are on their way."""
        return self._timer is not None

    def on_hide(self) -> None:
        """What is not seen does not move."""
        if self.moving:
            self._arrive()

    def on_resize(self) -> None:
        """Draw anew at the new size."""
        self._draw()

    def notify_style_update(self) -> None:
        """Draw anew in the colours of another theme."""
        super().notify_style_update()
        self._lines = []

    def _target(self) -> tuple[Points, Points, Points]:
        assert self.flow is not None
        return self.flow.good[self.index], self.flow.bad[self.index], self.flow.corners[self.index]

    def _step(self) -> None:
        share = (time.monotonic() - self._began) * self.speed / MOVE
        if share >= 1 or self._from is None or not self.screen.is_active:
            self._arrive()
            return
        eased = share * share * (3 - 2 * share)
        before, after = self._from, self._target()
        good, bad, corners = (old + (new - old) * eased for old, new in zip(before, after, strict=True))
        self._now = good, bad, corners
        self._draw()

    def _arrive(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._from, self._now = None, self._target()
        self._draw()
        self.post_message(self.Arrived())

    def _draw(self) -> None:
        """Draw all lines, and have those painted that changed."""
        if self._now is None:
            return
        before, self._lines = self._lines, self._drawn()
        if len(before) != len(self._lines):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, self._lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def _drawn(self) -> list[Strip]:
        width, height = self.size
        if self._now is None or width < 2 or height < 2:
            return []
        good, bad, corners = self._now
        kinds, levels = sorted_cells(_counts(good, corners, width, height), _counts(bad, corners, width, height))
        base = self.rich_style
        styles = {kind: base + self.get_component_rich_style(f"plot--{name}") for kind, name in CLASSES.items()}
        styles[NONE] = base
        return [_line(kinds[y], levels[y], styles) for y in range(height)]

    def render_line(self, y: int) -> Strip:
        """One line of the picture."""
        if len(self._lines) != self.size.height:
            self._lines = self._drawn()
        return self._lines[y] if y < len(self._lines) else Strip.blank(self.size.width, self.rich_style)


def _counts(points: Points, corners: Points, width: int, height: int) -> Cells:
    """How many points lie in each cell `(height, width)`."""
    low, high = corners
    shares = (points - low) / np.maximum(high - low, 1e-9)
    across = np.clip((shares[:, 0] * width).astype(np.int64), 0, width - 1)
    down = np.clip(((1 - shares[:, 1]) * height).astype(np.int64), 0, height - 1)
    return np.bincount(down * width + across, minlength=width * height).reshape(height, width)


def sorted_cells(good: Cells, bad: Cells) -> tuple[Cells, Cells]:
    """Whose each cell is, and how full: 0, 1 or 2."""
    total = good + bad
    mixed = np.minimum(good, bad) > total * MIXED
    kinds = np.where(total == 0, NONE, np.where(mixed, BOTH, np.where(good >= bad, GOOD, BAD)))
    levels = (total >= FEW).astype(np.int64) + (total >= MANY)
    if total.sum() * ROOM < total.size:
        levels = np.maximum(levels, 1)  # small marks are hard to see where they stand alone
    return kinds, levels


def _line(kinds: Cells, levels: Cells, styles: dict[int, Style]) -> Strip:
    """A line of cells; neighbors of one kind are one segment."""
    segments = []
    cells = zip(kinds.tolist(), levels.tolist(), strict=True)
    for kind, group in groupby(cells, key=lambda cell: cell[0]):
        text = "".join(GLYPHS[kind][level] if kind else " " for _, level in group)
        segments.append(Segment(text, styles[kind]))
    return Strip(segments, len(kinds))
