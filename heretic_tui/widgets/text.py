"""Foreign text for places that would read markup in a string, such as the titles of borders."""

from textual.content import Content
from textual.widgets import Static

from heretic_tui.formats import one_line, plain


def data(text: str) -> Content:
    """One line of text that shows as typed."""
    return Content(one_line(text))


def paragraphs(text: str) -> Content:
    """Lines of text that show as typed."""
    return Content(plain(text))


def put(place: Static, text: str) -> None:
    """Change a text only where it is another one: a change lays the whole screen out anew."""
    if place.content != text:
        place.update(text)
