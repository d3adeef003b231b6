"""The bottom line: the keys that matter now.

Textual's own footer mounts a widget for each key whenever the bindings change; this is one widget that draws a line,
which takes a tenth of the time beside a working engine.
"""

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget


class KeyBar(Widget):
    """Keys and what they do; a click on one is as good as the key."""

    DEFAULT_CSS = """
    KeyBar { height: 1; dock: bottom; background: $footer-background; color: $foreground; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, int, str]] = []
        """From which cell to which one stands what key."""

    def on_mount(self) -> None:
        """Follow the bindings of the screen."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.refresh()

    async def on_click(self, event: events.Click) -> None:
        """Do what the key under the mouse does."""
        for start, end, key in self._places:
            if start <= event.x < end:
                await self.app.run_action(f"app.simulate_key({key!r})")

    def render(self) -> Content:
        """As many keys as there is room for, the last one always the way to the help."""
        keys: dict[str, tuple[Content, str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.action not in keys:
                shown = self.app.get_key_display(binding)
                text = Content.assemble((shown, "bold $footer-key-foreground"), f" {binding.description}")
                keys[binding.action] = (text, binding.key)
        line = Content("")
        self._places = []
        *others, last = keys.values() or [(Content(""), "")]
        for text, key in (*others, last):
            reserved = 0 if key == last[1] else last[0].cell_length + 1
            if line.cell_length + text.cell_length + reserved <= self.size.width:
                self._places.append((line.cell_length, line.cell_length + text.cell_length, key))
                line = Content.assemble(line, text, " ")
        return line.rstrip()
