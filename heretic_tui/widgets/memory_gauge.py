"""Memory of each device, now and over the last minutes."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widget import Widget

from heretic_tui.formats import one_line, size
from heretic_tui.widgets.layer_weights import BARS
from heretic_tui.widgets.status_line import bar


@dataclass(frozen=True, slots=True)
class Gauge:
    """A device's memory in bytes, and the shares of it that were in use before, oldest first."""

    device: str
    used: int
    total: int
    history: Sequence[float] = ()


class MemoryGauge(Widget):
    """A line for each device."""

    DEFAULT_CSS = "MemoryGauge { height: auto; }"

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.gauges: tuple[Gauge, ...] = ()

    def show(self, gauges: tuple[Gauge, ...]) -> None:
        """Show other readings."""
        grown = len(gauges) != len(self.gauges)
        self.gauges = gauges
        self.refresh(layout=grown)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """One line a device."""
        return max(1, len(self.gauges))

    def render(self) -> Content:
        """The lines."""
        return Content("\n").join(self._line(gauge) for gauge in self.gauges)

    def _line(self, gauge: Gauge) -> Content:
        share = gauge.used / gauge.total if gauge.total else 0.0
        used, unit = size(gauge.used).split()
        total, whole = size(gauge.total).split()
        amount = f"{used}/{total} {whole}" if unit == whole else f"{used} {unit}/{total} {whole}"
        text = f"{one_line(gauge.device):<6} ▕{bar(share, 8)}▏{share:4.0%} {amount} "
        room = self.size.width - len(text)
        past = "".join(BARS[round(min(1.0, one) * 8)] for one in list(gauge.history)[-room:]) if room > 2 else ""
        return Content.assemble(
            (text, "$error" if share > 0.95 else "$warning" if share > 0.85 else ""), (past, "$secondary")
        )
