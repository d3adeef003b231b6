"""The bottom line: the keys that matter now.

Textual's own footer mounts a widget for each key whenever the bindings change; this is one widget that draws a line,
which takes a tenth of the time beside a working engine.
"""

from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget


class KeyBar(Widget):
    """Keys and what they do; a click on one is as good as the key."""

    DEFAULT_CSS = """
    KeyBar {
        height: 1; dock: bottom; background: $footer-background; color: $foreground;
        link-style: none; link-color: $foreground; link-background: $footer-background;
        link-style-hover: none; link-color-hover: $primary; link-background-hover: $footer-background;
    }
    """

    def on_mount(self) -> None:
        """Follow the bindings of the screen."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.refresh()

    def render(self) -> Content:
        """As many keys as there is room for, the last one always the way to the help."""
        keys: dict[str, Content] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.action not in keys:
                keys[binding.action] = self._key(self.app.get_key_display(binding), binding.description, binding.key)
        *others, last = keys.values() or [Content("")]
        room = self.size.width - last.cell_length
        shown = []
        for key in others:
            if key.cell_length + 1 <= room:
                shown.append(key)
                room -= key.cell_length + 1
        return Content(" ").join([*shown, last])

    @staticmethod
    def _key(shown: str, what: str, key: str) -> Content:
        return Content.from_markup(
            f"[@click=app.simulate_key('{key}')][bold $footer-key-foreground]$key[/] $what[/]", key=shown, what=what
        )
