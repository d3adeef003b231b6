"""What a picture of points is made of: a background that Matplotlib draws once, and points that NumPy lays over it."""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    from heretic_tui.engine.inspection.pictures import Look

Image: TypeAlias = NDArray[np.uint8]
Canvas: TypeAlias = Any
"""Matplotlib's `FigureCanvasAgg`, which has no types."""
Floats: TypeAlias = NDArray[np.float32]

INCHES, DPI = (8, 6), 100
EDGE, FOOT, HEAD = 0.02, 0.08, 0.07
"""Shares of the picture that are left free at the sides, at the foot and at the head."""
MARGIN = 0.05
"""Share of the points' extent that is left free on each side."""
RADIUS, RING, ALPHA = 2.3, 1.2, 0.5
"""Size of a point and width of the ring around it, in pixels, and how opaque each is."""
REACH = 4
"""How many pixels around its own a point can touch."""
SMALLEST = 7
"""Size of letters below which a text is cut instead."""
SUBPIXELS = 4
"""A point's place is kept to such a fraction of a pixel."""
LEGEND_ALPHA = 0.8
"""How much of the points behind it a legend hides."""


class Stage:
    """Pictures of one look: one panel, or two side by side whose points share their axes."""

    def __init__(self, look: "Look", layers: int, panels: int) -> None:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import to_rgb
        from matplotlib.figure import Figure

        self.colors = np.array([to_rgb(color) for color in look.colors], np.float32) * 255
        with matplotlib.style.context(look.style), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that a font lacks; the words would spoil a terminal
            matplotlib.rcParams["text.usetex"] = False
            figure = Figure(figsize=(INCHES[0] * panels, INCHES[1]), dpi=DPI)
            self._draw(FigureCanvasAgg(figure), figure, look, layers, panels)
        self.stamps, self.offsets = _stamps(self.background.shape[1])

    def _draw(self, canvas: Canvas, figure: "Figure", look: "Look", layers: int, panels: int) -> None:
        axes = [
            figure.add_axes(((panel + EDGE) / panels, FOOT, (1 - 2 * EDGE) / panels, 1 - FOOT - HEAD))
            for panel in range(panels)
        ]
        for one in axes:
            one.set(xticks=[], yticks=[])
        legend = _legend(axes[-1], look)
        title = figure.text(0.5, 1 - HEAD / 2, look.title, ha="center", va="center", parse_math=False)
        title.set_fontsize(12)
        _fitted(title, figure, canvas, 1 - 2 * EDGE)
        model = figure.text(EDGE / panels, FOOT / 2, look.model, ha="left", va="center", parse_math=False)
        model.set_fontsize(12)
        _fitted(model, figure, canvas, (0.8 if panels == 1 else 0.4) / panels)
        for panel, name in enumerate(look.states if panels > 1 else ()):
            figure.text((panel + 0.5) / panels, FOOT / 2, name, ha="center", va="center", size=12, parse_math=False)
        canvas.draw()
        self.background = _opaque(canvas)
        height, width = self.background.shape[:2]
        self.size = width, height
        self.boxes = [_pixels(one.get_window_extent().extents, height) for one in axes]
        self.legend = _pixels(legend.get_window_extent().extents, height)
        self._foot = int(height * (1 - FOOT)) + 2
        number = figure.text(1 - EDGE / panels, FOOT / 2, "", ha="right", va="center", size=12, parse_math=False)
        empty = canvas.copy_from_bbox(figure.bbox)
        self._feet = []
        for layer in range(1, layers + 1):
            canvas.restore_region(empty)
            number.set_text(f"Layer {layer:03}")
            figure.draw_artist(number)
            self._feet.append(_opaque(canvas)[self._foot :])

    def backdrop(self, layer: int) -> Image:
        """The picture of a layer without points, `(height, width, 3)`."""
        image = self.background.copy()
        image[self._foot :] = self._feet[layer]
        return image

    def laid(self, panels: Sequence[Sequence[Floats]]) -> tuple[NDArray[np.intp], Image]:
        """Pixels that points touch, as flat indices, and their colors; a panel has the good and the bad points."""
        both = np.concatenate([points for panel in panels for points in panel])
        low, high = both.min(axis=0), both.max(axis=0)
        spread = np.maximum(high - low, 1e-6)
        shares = [(points - low) / spread * (1 - 2 * MARGIN) + MARGIN for panel in panels for points in panel]
        places = [self._places(one, self.boxes[index // 2]) for index, one in enumerate(shares)]
        touched = np.zeros(self.size[0] * self.size[1], np.bool_)
        for where, _ in places:
            touched[where] = True
        pixels = np.flatnonzero(touched)
        under = result = self.background.reshape(-1, 3)[pixels].astype(np.float32)
        for index, (where, stamps) in enumerate(places):
            shines = np.exp(np.bincount(where, stamps, len(touched))[pixels].astype(np.float32))[:, None]
            result = result * shines + self.colors[index % 2] * (1 - shines)
        result += (under - result) * (LEGEND_ALPHA * self._behind_legend(pixels))[:, None]
        return pixels, (result + 0.5).astype(np.uint8)

    def _places(self, shares: Floats, box: tuple[int, int, int, int]) -> tuple[NDArray[np.int64], Floats]:
        """The pixels that points touch, as flat indices, and the logarithm of what shines through there."""
        left, top, right, bottom = box
        places = np.array([left, bottom]) + shares * (right - left, top - bottom)
        fine = np.floor(places * SUBPIXELS).astype(np.int64)
        pixel, part = fine // SUBPIXELS, fine % SUBPIXELS
        centre = pixel[:, 1] * self.size[0] + pixel[:, 0]
        stamps = self.stamps[part[:, 1] * SUBPIXELS + part[:, 0]]
        return (centre[:, None] + self.offsets).ravel(), stamps.ravel()

    def _behind_legend(self, places: NDArray[np.intp]) -> NDArray[np.bool_]:
        left, top, right, bottom = self.legend
        y, x = np.divmod(places, self.size[0])
        behind: NDArray[np.bool_] = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        return behind


def _legend(axes: "Axes", look: "Look") -> "Legend":
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="", marker="o", ms=5, color=color, label="set") for color in look.colors]
    legend = axes.legend(handles=handles, loc="upper right", framealpha=LEGEND_ALPHA, fontsize=10)
    for text, label in zip(legend.get_texts(), look.labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)  # not earlier: a label that begins with _ would be left out
    return legend


def _fitted(text: "Text", figure: "Figure", canvas: Canvas, room: float) -> None:
    """Make a text smaller, and then shorter, until it takes no more than a share of the picture's width."""

    def width() -> float:
        return float(text.get_window_extent(canvas.get_renderer()).width) / figure.bbox.width

    size = float(text.get_fontsize())
    if (taken := width()) > room:
        text.set_fontsize(max(SMALLEST, size * room / taken))
    words = text.get_text()
    while len(words) > 1 and width() > room:
        words = words[: int(len(words) * max(0.5, min(0.95, room / width())))]
        text.set_text(f"{words}…")


def _opaque(canvas: Canvas) -> Image:
    """What is drawn, `(height, width, 3)`; what is see-through lies on white."""
    drawn = np.asarray(canvas.buffer_rgba())
    if int(drawn[..., 3].min()) == 255:
        return drawn[..., :3].copy()
    alpha = drawn[..., 3:].astype(np.float32) / 255
    return (drawn[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def _pixels(extents: Iterable[float], height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels, counted from the upper left."""
    left, bottom, right, top = (round(float(value)) for value in extents)
    return left, height - top, right, height - bottom


def _stamps(width: int) -> tuple[Floats, NDArray[np.int64]]:
    """What a point lets through of what is behind it, for each part of a pixel that it can lie in.

    Logarithms, `(parts, pixels)`, because those of several points add up; and where these pixels are, counted in a
    picture of `width`.
    """
    steps = np.arange(-REACH, REACH + 1)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    parts = (np.arange(SUBPIXELS) + 0.5) / SUBPIXELS
    stamps = []
    for down in parts:
        for across in parts:
            distance = np.hypot(x + 0.5 - across, y + 0.5 - down).ravel()
            disc = np.clip(RADIUS + 0.5 - distance, 0, 1)
            ring = np.clip(RING / 2 + 0.5 - np.abs(distance - RADIUS), 0, 1)
            stamps.append(np.log(1 - ALPHA * disc) + np.log(1 - ALPHA * ring))
    used = np.any(stamps, axis=0)
    return np.array(stamps, np.float32)[:, used], (y * width + x).ravel()[used]
