"""A text in tokens, each shaded by a value between -1 and 1, with a cursor that goes from token to token.

Only the lines in sight are drawn; where a token stands is found once for a width, so that other values repaint at once.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from heretic_tui.formats import plain
from heretic_tui.widgets.shades import blend, few_colours

LEVELS = 16
"""Steps of the colour scale to either side of nothing."""
FULL = 0.8
"""How much of the full colour the strongest shade has, so that the letters on it stay clear."""
FAINT, STRONG = 0.1, 0.4
"""Where there are few colours: below the first no colour, up to the second coloured letters, then coloured ground."""
SPACE, BREAK, TAB, REST = "·", "⏎", "⇥", "…"

Kind = Literal["", "special", "template"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown, in one line; `breaks` where the text goes on in a new one."""

    text: str
    kind: Kind = ""
    breaks: bool = False


def token(text: str, kind: Kind = "", part: int = 1, parts: int = 1) -> Token:
    """A token of foreign text, harmless, white space visible; one of the `parts` of a character ends in an ellipsis."""
    if part > 1:
        return Token(REST, kind)
    shown = plain(text.replace(" ", SPACE).replace("\n", BREAK).replace("\t", TAB))
    shown += REST if parts > 1 else ""
    if shown and (unicodedata.combining(shown[0]) or cell_len(shown[0]) == 0):
        shown = f"◌{shown}"  # else it would settle on the token before
    return Token(shown or REST, kind, breaks="\n" in text)


@dataclass(frozen=True, slots=True)
class Place:
    """A token, or a part of a long one, on a line: cells `start` to `start + width`."""

    index: int
    text: str
    start: int
    width: int


def lines_of(tokens: Sequence[Token], width: int) -> list[list[Place]]:
    """Where every token stands: a line takes as many whole tokens as fit; one that is longer goes over several."""
    width = max(4, width)
    lines: list[list[Place]] = [[]]
    x = 0
    for index, one in enumerate(tokens):
        rest, size = one.text, cell_len(one.text)
        if x and x + size > width:
            lines.append([])
            x = 0
        while size > width:
            head = _head(rest, width)
            lines[-1].append(Place(index, head, 0, cell_len(head)))
            lines.append([])
            rest = rest[len(head) :]
            size = cell_len(rest)
        if rest:
            lines[-1].append(Place(index, rest, x, size))
            x += size
        if one.breaks:
            lines.append([])
            x = 0
    if not lines[-1] and len(lines) > 1:
        lines.pop()
    return lines


def _head(text: str, width: int) -> str:
    """As much of a text as fits, one character at the least."""
    end = min(len(text), width)
    while end > 1 and cell_len(text[:end]) > width:
        end -= 1
    return text[:end]


class TokenText(ScrollView, can_focus=True):
    """Tokens, wrapped, shaded blue to red; a second line below each tells sign and size in characters if wanted."""

    HELP: ClassVar[str] = """
    The prompt in tokens, as the model sees it. Red has a positive value, blue a negative one, the strongest colour
    stands for the scale's limit. The arrows go from token to token; the number under the cursor stands below.
    · is a space, ⏎ a line break, … a token that holds a part of a character. n shows each token's sign and size in
    tenths below it.
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "tokens--positive", "tokens--negative", "tokens--nothing", "tokens--plain", "tokens--special", "tokens--marks",
    }  # fmt: skip
    DEFAULT_CSS = """
    TokenText {
        height: 1fr; overflow-x: hidden; background: transparent;
        scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    TokenText > .tokens--positive { color: $error; }
    TokenText > .tokens--negative { color: $secondary; }
    TokenText > .tokens--nothing { color: $background; }
    TokenText > .tokens--plain { color: $foreground; }
    TokenText > .tokens--special { text-style: italic; }
    TokenText > .tokens--marks { color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Token before", show=False, id="tokens.left"),
        Binding("right", "step(1)", "Token after", show=False, id="tokens.right"),
        Binding("up", "line(-1)", "Line up", show=False, id="tokens.up"),
        Binding("down", "line(1)", "Line down", show=False, id="tokens.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="tokens.pageup"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="tokens.pagedown"),
        Binding("home", "edge(0)", "First token", show=False, id="tokens.first"),
        Binding("end", "edge(-1)", "Last token", show=False, id="tokens.last"),
    ]

    class Moved(Message):
        """The cursor stands on another token."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.tokens: Sequence[Token] = ()
        self.shares: Sequence[float] = ()
        self.cursor = 0
        self.numbers = False
        """Whether signs and sizes stand below the tokens."""
        self._lines: list[list[Place]] = []
        self._at: list[tuple[int, int]] = []
        """Line and cell of each token."""
        self._width = 0
        self._styles: list[Style] = []
        self._base = self._special = Style()
        self._few = False

    def show(self, tokens: Sequence[Token], shares: Sequence[float]) -> None:
        """Show these tokens; the cursor stays where it is if the tokens are the same, else it goes to the last."""
        if tokens != self.tokens:
            self.tokens = tokens
            self.cursor = max(0, len(tokens) - 1)
            self._width = 0
        self.shares = shares
        self._arrange()
        self.refresh()

    def set_numbers(self, on: bool) -> None:
        """Show signs and sizes below the tokens, or not."""
        self.numbers = on
        self._width = 0
        self._arrange()
        self.refresh()

    @property
    def step_height(self) -> int:
        """Lines that a line of text takes, with its signs."""
        return 2 if self.numbers else 1

    def _arrange(self) -> None:
        width = self.scrollable_content_region.width or self.size.width
        if width == self._width or not width:
            return
        self._width = width
        self._lines = lines_of(self.tokens, width)
        at: dict[int, tuple[int, int]] = {}
        for number, line in enumerate(self._lines):
            for place in line:
                at.setdefault(place.index, (number, place.start))
        self._at = [at[index] for index in range(len(self.tokens))]
        self.virtual_size = Size(width, len(self._lines) * self.step_height)
        self.call_after_refresh(self._follow)

    def on_resize(self) -> None:
        """Wrap anew."""
        self._arrange()

    def notify_style_update(self) -> None:
        """Other colours."""
        super().notify_style_update()
        self._styles = []

    # The cursor

    def go(self, index: int) -> None:
        """Put the cursor on a token."""
        index = max(0, min(index, len(self.tokens) - 1))
        if index != self.cursor and self.tokens:
            self.cursor = index
            self._follow()
            self.refresh()
            self.post_message(self.Moved(index))

    def _follow(self) -> None:
        if self.cursor >= len(self._at):
            return
        y = self._at[self.cursor][0] * self.step_height
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if y < top:
            self.scroll_to(y=y, animate=False, force=True)
        elif y + self.step_height > top + height:
            self.scroll_to(y=y + self.step_height - height, animate=False, force=True)

    def action_step(self, by: int) -> None:
        """Go to a token beside."""
        self.go(self.cursor + by)

    def action_line(self, by: int) -> None:
        """Go to the token above or below."""
        if self.cursor >= len(self._at):
            return
        line, x = self._at[self.cursor]
        found = self._nearest(line + by, x)
        while found is None and 0 <= line + by < len(self._lines):
            line += by
            found = self._nearest(line + by, x)
        if found is not None:
            self.go(found)

    def action_page(self, by: int) -> None:
        """Go a screenful up or down."""
        if self.cursor < len(self._at):
            line, x = self._at[self.cursor]
            by *= max(1, self.size.height // self.step_height - 1)
            found = self._nearest(max(0, min(line + by, len(self._lines) - 1)), x)
            self.go(found if found is not None else self.cursor)

    def action_edge(self, index: int) -> None:
        """Go to the first or the last token."""
        self.go(index if index >= 0 else len(self.tokens) - 1)

    def _nearest(self, line: int, x: int) -> int | None:
        if not 0 <= line < len(self._lines) or not self._lines[line]:
            return None
        places = self._lines[line]
        return next((place.index for place in places if x < place.start + place.width), places[-1].index)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is."""
        found = self._nearest((event.y + self.scroll_offset.y) // self.step_height, event.x)
        if found is not None:
            self.go(found)

    # Drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in sight; the styles are made once for a theme."""
        self._base = self.rich_style
        if not self._styles:
            self._make_styles()
        self._special = self.get_component_rich_style("tokens--special", partial=True)
        return super().render_lines(crop)

    def _make_styles(self) -> None:
        base = self.rich_style
        positive, negative, nothing, letters = (
            self.get_component_rich_style(f"tokens--{name}", partial=True)
            for name in ("positive", "negative", "nothing", "plain")
        )
        self._few = few_colours(self, positive, negative, nothing)
        self._styles = []
        for level in range(-LEVELS, LEVELS + 1):
            size = abs(level) / LEVELS
            colour = positive if level > 0 else negative
            if not self._few:
                ground = Style(bgcolor=blend(nothing, colour, FULL * size)) if level else Style()
                self._styles.append(base + letters + ground)
            elif size < FAINT:
                self._styles.append(base)
            elif size < STRONG:
                self._styles.append(base + colour)
            else:
                # Without colours at all, weight and line still tell the signs apart.
                self._styles.append(base + colour + Style(reverse=True, bold=level > 0, underline=level < 0))

    def style_of(self, index: int) -> Style:
        """How a token is drawn."""
        share = self.shares[index] if index < len(self.shares) else 0.0
        level = round(max(-1.0, min(1.0, share)) * LEVELS) if isfinite(share) else 0
        style = self._styles[LEVELS + level]
        if self.tokens[index].kind == "special":
            style += self._special
        if index == self.cursor:
            style += Style(bold=True, underline=True) if self._few else Style(reverse=True, bold=True)
            style += Style(reverse=not style.reverse) if self._few else Style()
        return style

    def render_line(self, y: int) -> Strip:
        """One line of text, or of signs."""
        width, base = self.size.width, self._base
        line, below = divmod(y + self.scroll_offset.y, self.step_height)
        if line >= len(self._lines):
            return Strip.blank(width, base)
        if below:
            marks = self.get_component_rich_style("tokens--marks", partial=True)
            text = "".join(
                _mark(self.shares[place.index] if place.index < len(self.shares) else 0.0, place.width)
                for place in self._lines[line]
            )
            return Strip([Segment(text, base + marks)]).adjust_cell_length(width, base)
        places = self._lines[line]
        segments = [Segment(place.text, self.style_of(place.index)) for place in places]
        taken = sum(place.width for place in places)
        if taken < width:
            segments.append(Segment(" " * (width - taken), base))
        return Strip(segments, max(taken, width))


def _mark(share: float, width: int) -> str:
    """Sign and tenths of the scale, in as many cells as the token has."""
    tenths = min(9, round(abs(share) * 10)) if isfinite(share) else 0
    text = "" if not tenths else f"{'+' if share > 0 else '-'}{tenths}"
    return text[:width].ljust(width)
