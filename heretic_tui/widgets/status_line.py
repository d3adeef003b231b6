"""The top line of every screen: where one is, the model, what the engine does, memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from heretic_tui.formats import one_line

BAR = 8
EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Status:
    """What the line tells; `fraction` is that of the memory in use, `mood` one of idle, busy, watching,
    stopping, failed."""

    mode: str = ""
    model: str = ""
    where: str = ""
    activity: str = ""
    mood: str = "idle"
    fraction: float | None = None
    left: str = ""


MOODS = {
    "idle": ("○", "$foreground-muted"),
    "busy": ("●", "$success"),
    "watching": ("◎", "$success"),
    "stopping": ("◐", "$warning"),
    "failed": ("✗", "$error"),
}


def bar(fraction: float, width: int = BAR) -> str:
    """A bar of eighths of a cell."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


class StatusLine(Widget):
    """One line at the top; the modes at its left answer the mouse."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1; dock: top; background: $panel; color: $foreground;
        link-style: none; link-color: $foreground-muted; link-background: $panel;
        link-style-hover: bold; link-color-hover: $foreground; link-background-hover: $panel;
    }
    """
    status: reactive[Status] = reactive(Status())

    def __init__(self, modes: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.modes = modes

    def render(self) -> Content:
        """The line, with what matters least left out where room is short."""
        status, width = self.status, self.size.width
        long = width >= 118
        tabs = Content("").join(self._tab(key, name, long) for key, name in self.modes)
        room = width - tabs.cell_length - 1
        right = Content("")
        for forms in self._parts(status):
            joined = [Content("  ").join([form, right]) if right else form for form in forms]
            right = next((one for one in joined if one.cell_length <= room), right)
        gap = " " * max(1, width - tabs.cell_length - right.cell_length - 1)
        return Content.assemble(tabs, gap, right)

    def _tab(self, key: str, name: str, long: bool) -> Content:
        here = name.lower() == self.status.mode
        text = f" {key} {name} " if long or here else f" {key} "
        if here:
            return Content.assemble((text, "bold $block-cursor-foreground on $block-cursor-background"))
        return Content.from_markup(f"[@click=app.go('{name.lower()}')]$text[/]", text=text)

    @staticmethod
    def _parts(status: Status) -> list[list[Content]]:
        """The parts from the right to the left, each in its forms, the fullest first; the first that fits is shown."""
        mark, colour = MOODS[status.mood]
        parts = []
        if status.fraction is not None:
            meter = f"▕{bar(status.fraction)}▏{status.fraction:4.0%}"
            parts.append([Content.assemble((meter, "$warning" if status.fraction > 0.9 else "$foreground-muted"))])
        doing = [one_line(part) for part in (status.activity, *status.left.split(" · ")) if part]
        shorter = [" · ".join(doing[:count]) for count in range(max(1, len(doing)), 0, -1)]
        parts.append([Content.assemble((f"{mark} ", colour), words) for words in shorter])
        where = " · ".join(one_line(part) for part in (status.model, status.where) if part)
        parts.append([Content.assemble((where, "$foreground-muted"))])
        return parts
