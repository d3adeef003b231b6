"""How far a phase has come, on one line."""

import time

from textual.content import Content
from textual.widget import Widget

from heretic_tui.formats import duration, one_line
from heretic_tui.state import Activity
from heretic_tui.widgets.status_line import bar


class ProgressLine(Widget):
    """Name, bar, amount, speed and time left of what the engine does now."""

    DEFAULT_CSS = "ProgressLine { height: 1; }"

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.activity: Activity | None = None

    def show(self, activity: Activity | None) -> None:
        """Show another state of the engine."""
        self.activity = activity
        self.refresh()

    def render(self) -> Content:
        """The line; what has no room is left out from the right."""
        activity = self.activity
        if activity is None:
            return Content("")
        if activity.stopping:
            return Content.assemble(("◐ stopping …", "$warning"))
        # Before its first phase a job imports the engine.
        phase = activity.phase or f"{activity.title}: starting the engine …"
        name = one_line(f"{phase} {activity.detail}".strip())
        parts = [name]
        if activity.fraction is not None:
            parts.append(f"▕{bar(activity.fraction, 10)}▏")
        parts += [one_line(part) for part in (activity.amount, remaining(activity)) if part]
        line = parts[0]
        for part in parts[1:]:
            if len(line) + len(part) + 1 <= self.size.width:
                line = f"{line} {part}"
        return Content.assemble(("● ", "$success"), line)


def remaining(activity: Activity) -> str:
    """How long the phase will still take, judged by its speed so far."""
    spent = time.monotonic() - activity.phase_began
    if not activity.total or not activity.done or activity.done >= activity.total or spent < 1:
        return ""
    return f"{duration(spent / activity.done * (activity.total - activity.done))} left"
