"""The help of the part that has the focus: what it is for, and its keys with the ids that a keymap uses."""

from textual.dom import DOMNode
from textual.keys import format_key
from textual.screen import Screen


def help_text(screen: Screen[object]) -> tuple[str, str]:
    """Title and text of the help for where the focus is."""
    parts = []
    title = type(screen).__name__.removesuffix("Screen")
    node: DOMNode | None = screen.focused or screen
    while node is not None:
        words = getattr(node, "HELP", None)
        if isinstance(words, str) and words.strip():
            parts.append(_unwrapped(words))
        node = node.parent
    keys: dict[str, tuple[list[str], str, str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        name = binding.id or binding.action
        entry = keys.setdefault(name, ([], binding.tooltip or binding.description, binding.id or ""))
        shown = binding.key_display or format_key(binding.key)
        if active.enabled and shown not in entry[0]:
            entry[0].append(shown)
    rows = [(" ".join(shown), what, identity) for shown, what, identity in keys.values() if what and shown]
    width = max((len(shown) for shown, _, _ in rows), default=0)
    wide = max((len(what) for _, what, _ in rows), default=0)
    table = "\n".join(f"{shown:>{width}}  {what:<{wide}}  {identity}" for shown, what, identity in rows)
    parts.append(f"Keys now, with the ids that [keys] of the settings file takes:\n\n{table}")
    return title, "\n\n".join(parts)


def _unwrapped(text: str) -> str:
    """A text written in source lines as paragraphs."""
    paragraphs = (" ".join(line.strip() for line in block.splitlines()) for block in text.strip().split("\n\n"))
    return "\n\n".join(paragraphs)
