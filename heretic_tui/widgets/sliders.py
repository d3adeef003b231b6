"""Sliders for the keyboard: a line each, its value between -1 and 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from heretic_tui.formats import one_line

STEP, LARGE = 0.05, 0.25
FIGURE = 6
"""Cells of a value."""


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider: its key, its name as data, and its value."""

    key: Any
    name: str
    value: float = 0.0


class Sliders(ScrollView, can_focus=True):
    """A column of sliders, one of them under the cursor."""

    HELP: ClassVar[str] = """
    Up and down choose a slider, left and right move it by 0.05, with shift (or < and >) by 0.25. 0 puts it to nothing,
    - turns its sign, delete takes it away.
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "sliders--track", "sliders--knob", "sliders--cursor", "sliders--dim",
    }  # fmt: skip
    DEFAULT_CSS = """
    Sliders { height: auto; overflow-x: hidden; background: transparent; scrollbar-size-vertical: 1; }
    Sliders > .sliders--track { color: $foreground-muted; }
    Sliders > .sliders--knob { color: $accent; text-style: bold; }
    Sliders > .sliders--cursor { color: $primary; text-style: bold; }
    Sliders > .sliders--dim { color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, id="sliders.up"),
        Binding("down", "move(1)", "Down", show=False, id="sliders.down"),
        Binding("left", f"slide(-{STEP})", "Less", show=False, id="sliders.less"),
        Binding("right", f"slide({STEP})", "More", show=False, id="sliders.more"),
        Binding("shift+left,less_than_sign", f"slide(-{LARGE})", "Much less", show=False, id="sliders.much-less"),
        Binding("shift+right,greater_than_sign", f"slide({LARGE})", "Much more", show=False, id="sliders.much-more"),
        Binding("0", "put(0)", "Nothing", show=False, id="sliders.zero"),
        Binding("minus", "turn", "Turn sign", show=False, id="sliders.turn"),
        Binding("delete,backspace", "remove", "Take away", id="sliders.remove"),
    ]

    class Changed(Message):
        """Sliders were moved or taken away."""

    def __init__(self, *, empty: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.empty = empty
        self.sliders: list[Slider] = []
        self.cursor = 0

    def show(self, sliders: Sequence[Slider]) -> None:
        """Show these sliders."""
        self.sliders = list(sliders)
        self.cursor = max(0, min(self.cursor, len(self.sliders) - 1))
        self.virtual_size = Size(self.size.width, max(1, len(self.sliders)))
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line each."""
        return max(1, len(self.sliders))

    def action_move(self, by: int) -> None:
        """Choose another slider."""
        self.cursor = max(0, min(self.cursor + by, len(self.sliders) - 1))
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if not top <= self.cursor < top + height:
            self.scroll_to(y=self.cursor if self.cursor < top else self.cursor - height + 1, animate=False, force=True)
        self.refresh()

    def action_slide(self, by: float) -> None:
        """Move the slider."""
        if self.sliders:
            self.action_put(self.sliders[self.cursor].value + by)

    def action_put(self, value: float) -> None:
        """Give the slider a value."""
        if not self.sliders:
            return
        value = round(max(-1.0, min(1.0, value)), 2) + 0.0  # never -0.0
        if value != self.sliders[self.cursor].value:
            self.sliders[self.cursor] = replace(self.sliders[self.cursor], value=value)
            self.refresh()
            self.post_message(self.Changed())

    def action_turn(self) -> None:
        """Turn the slider's sign."""
        if self.sliders:
            self.action_put(-self.sliders[self.cursor].value)

    def action_remove(self) -> None:
        """Take the slider away."""
        if self.sliders:
            del self.sliders[self.cursor]
            self.show(self.sliders)
            self.post_message(self.Changed())

    def on_click(self, event: events.Click) -> None:
        """Put the knob where the mouse is."""
        index = event.y + self.scroll_offset.y
        if index >= len(self.sliders):
            return
        self.cursor = index
        _, start, track = self._measures()
        if track > 1 and start <= event.x < start + track:
            self.action_put(round(((event.x - start) / (track - 1) * 2 - 1) / STEP) * STEP)
        self.refresh()

    def on_focus(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def _measures(self) -> tuple[int, int, int]:
        """Cells of the names, where the tracks begin, and cells of a track, which has a middle."""
        width = self.scrollable_content_region.width or self.size.width
        longest = max((cell_len(one_line(one.name)) for one in self.sliders), default=0)
        names = max(4, min(longest, width - FIGURE - 14, max(12, width // 2)))
        track = max(3, min(41, width - names - FIGURE - 4))
        return names, names + 3, track - (track + 1) % 2

    def render_line(self, y: int) -> Strip:
        """One slider."""
        width, base = self.size.width, self.rich_style
        index = y + self.scroll_offset.y
        styles = {
            name: base + self.get_component_rich_style(f"sliders--{name}", partial=True)
            for name in ("track", "knob", "cursor", "dim")
        }
        if not self.sliders:
            text = self.empty if not index else ""
            return Strip([Segment(set_cell_size(text, width), styles["dim"])], width)
        if index >= len(self.sliders):
            return Strip.blank(width, base)
        one = self.sliders[index]
        names, _, track = self._measures()
        under = index == self.cursor
        lead = "▸ " if under and self.has_focus else "  "
        name = one_line(one.name)
        shown = name if cell_len(name) <= names else f"{set_cell_size(name, names - 1)}…"
        knob = round((one.value + 1) / 2 * (track - 1))
        middle = track // 2
        line = ["─"] * track
        line[middle] = "┼"
        own = styles["cursor"] if under and self.has_focus else base
        figure = f" {one.value:+.2f}" if one.value else "  0   "
        segments = [
            Segment(f"{lead}{set_cell_size(shown, names)} ", own),
            Segment("".join(line[:knob]), styles["track"]),
            Segment("●", styles["knob"] if one.value else styles["track"]),
            Segment("".join(line[knob + 1 :]), styles["track"]),
            Segment(figure, own),
        ]
        return Strip(segments).adjust_cell_length(width, base)

    def region_of(self, key: Any) -> Region:
        """Where a slider is drawn; for tests."""
        index = next(index for index, one in enumerate(self.sliders) if one.key == key)
        return Region(0, index - self.scroll_offset.y, self.size.width, 1)
