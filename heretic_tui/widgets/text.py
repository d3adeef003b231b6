"""Foreign text for places that would read markup in a string, such as the titles of borders."""

from textual.content import Content

from heretic_tui.formats import one_line, plain


def data(text: str) -> Content:
    """One line of text that shows as typed."""
    return Content(one_line(text))


def paragraphs(text: str) -> Content:
    """Lines of text that show as typed."""
    return Content(plain(text))
