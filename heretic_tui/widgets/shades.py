"""Colours between those of the theme, and what takes their place where the terminal has sixteen or none."""

import math

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.style import Style
from textual.color import Color
from textual.widget import Widget

FEW = {ColorType.DEFAULT, ColorType.STANDARD, ColorType.WINDOWS}
POSITIVE, NEGATIVE = " ░▒▓█", " -=≡#"
"""Characters for the size of a value where colours cannot tell it; the sign is told by the kind of character."""


def few_colours(widget: Widget, *styles: Style) -> bool:
    """Whether the terminal or the theme has too few colours for shades; `styles` are the ones to blend."""
    app = widget.app
    if app.no_color or app.console.color_system in {"standard", "windows"}:
        return True
    return any(colour is None or colour.type in FEW for style in styles for colour in (style.color,))


def blend(start: Style, end: Style, share: float) -> RichColor:
    """The colour that stands `share` of the way between the foregrounds of two styles."""
    first, last = (Color.from_rich_color(style.color) for style in (start, end))
    return first.blend(last, max(0.0, min(1.0, share))).rich_color


def shade(value: float) -> str:
    """A character for a value between -1 and 1."""
    size = min(1.0, abs(value)) if math.isfinite(value) else 0.0
    # What is next to nothing stays empty.
    level = 0 if size < 0.1 else min(4, 1 + int(size * 4 - 1e-9))
    return (POSITIVE if value >= 0 else NEGATIVE)[level]
