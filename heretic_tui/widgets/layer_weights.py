"""The ablation weight of every layer, component by component, as bars."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.strip import Strip
from textual.widget import Widget

from heretic_tui.formats import one_line
from heretic_tui.widgets.canvas import Canvas

BARS = " ▁▂▃▄▅▆▇█"
FULL = 1.5
"""The largest weight that the search tries."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one component, a figure a layer, and what is said beside its name."""

    component: str
    weights: tuple[float, ...]
    words: str = ""


def levels(weights: Sequence[float], width: int) -> list[float]:
    """The weights as at most `width` bars; where layers share a bar it shows the largest of them."""
    if len(weights) <= width:
        return list(weights)
    edges = [round(index * len(weights) / width) for index in range(width + 1)]
    return [max(weights[low:high]) for low, high in itertools.pairwise(edges)]


class LayerWeights(Widget):
    """A title and a row of bars for each component; under them, where a global direction comes from."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"layers--bar", "layers--title", "layers--mark"}
    DEFAULT_CSS = """
    LayerWeights { height: auto; }
    LayerWeights > .layers--bar { color: $primary; }
    LayerWeights > .layers--title { color: $foreground-muted; }
    LayerWeights > .layers--mark { color: $accent; }
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.parts: tuple[Weights, ...] = ()
        self.direction: float | None = None

    def show(self, parts: tuple[Weights, ...], direction: float | None) -> None:
        """Show other weights; `direction` is the layer that a global direction comes from."""
        if (parts, direction) != (self.parts, self.direction):
            self.parts, self.direction = parts, direction
            self.refresh(layout=True)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Two lines a component, and one for the layers."""
        return 2 * len(self.parts) + 1 if self.parts else 1

    def render_line(self, y: int) -> Strip:
        """One line."""
        styles = {name: self.get_component_rich_style(name) for name in self.COMPONENT_CLASSES}
        return self._drawn(*self.size).strip(y, styles, self.rich_style)

    def _drawn(self, width: int, height: int) -> Canvas:
        canvas = Canvas(width, height)
        if not self.parts:
            canvas.put(0, 0, "The weights of the selected trial."[:width], "layers--title")
            return canvas
        layers = len(self.parts[0].weights)
        # Two or three cells a layer where there is room: a seven-layer model should not look like a crumb.
        each = max(1, min(4, width // max(1, layers)))
        for index, part in enumerate(self.parts):
            canvas.put(0, 2 * index, f"{one_line(part.component)} {one_line(part.words)}"[:width], "layers--title")
            for place, weight in enumerate(levels(part.weights, width)):
                level = round(min(1.0, abs(weight) / FULL) * 8)
                bar = BARS[max(1, level)] if weight else "·"
                canvas.put(place * each, 2 * index + 1, bar * each, "layers--bar")
        shown = min(width, layers * each)
        last = str(layers - 1)
        bottom = 2 * len(self.parts)
        canvas.put(0, bottom, "0", "layers--title")
        canvas.put(max(2, shown - len(last)), bottom, last, "layers--title")
        if self.direction is not None and layers > 1:
            place = round(self.direction / (layers - 1) * (shown - 1))
            canvas.put(place, bottom, "▲", "layers--mark")
        return canvas
