"""One column of a chat: messages, answers as they come, and what is to be said about each.

It draws only the lines that can be seen, and wraps only what is new of an answer: a widget for each answer, laid out
anew at every piece, costs ten times as much.
"""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from heretic_tui.formats import one_line, plain
from heretic_tui.talk import Answer, Exchange
from heretic_tui.transcripts import told

Line = tuple[str, str]
"""What a line is (a component class without its prefix), and its text."""
BAR = "▌ "
INDENT = "  "


def wrapped(text: str, width: int) -> list[str]:
    """Foreign text as harmless lines of at most `width` cells."""
    lines = []
    for paragraph in plain(text).split("\n"):
        folded = Content(paragraph.expandtabs(4)).wrap(max(4, width))
        lines += [line.plain.rstrip() for line in folded] or [""]
    return lines


class Growing:
    """A text that grows, wrapped: only what follows its last line break is wrapped again."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._done, self._lines = "", list[str]()

    def lines(self, text: str) -> list[str]:
        """The text's lines; quick where it begins with the text of the last call."""
        if not text.startswith(self._done):
            self._done, self._lines = "", []
        rest = text[len(self._done) :]
        whole, broken, rest = rest.rpartition("\n")
        if broken:
            self._lines = [*self._lines, *wrapped(whole, self.width)]
            self._done = text[: len(text) - len(rest)]
        return [*self._lines, *wrapped(rest, self.width)] if rest else self._lines


class Block:
    """An exchange as lines."""

    def __init__(self, exchange: Exchange, width: int) -> None:
        self.exchange, self.width = exchange, width
        self.settled = False
        """Whether its lines will never change."""
        self._message = [("message", line) for line in wrapped(exchange.message, width - len(BAR))]
        self._answer = Growing(width - len(INDENT))

    def lines(self, doing: str) -> list[Line]:
        """The message, the answer as far as it has come, and what is to be said about it."""
        answer = self.exchange.answer
        self.settled = answer.ended not in {"", "waiting"}
        said = [("answer", line) for line in self._answer.lines(answer.text)] if answer.text else []
        kind = "short" if answer.ended in {"failed", "stopped", "length"} else "about"
        about = [(kind, line) for line in wrapped(about_answer(answer, doing), self.width - len(INDENT))]
        return [*self._message, ("", ""), *said, *about, ("", "")]


def about_answer(answer: Answer, doing: str) -> str:
    """Who answered, how much and how fast, why it ended, and what can be done about that."""
    label = one_line(answer.candidate.label)
    if answer.underway:
        if not answer.text:
            return f"{label} · {doing or 'waits'}"
        return f"{label} · {doing} · about {answer.pieces} tokens"
    if answer.ended == "waiting":
        return f"{label} was not asked this yet · r asks"
    if answer.ended == "failed":
        return f"✗ {label} failed: {one_line(answer.problem)} · r asks again"
    again = " · r asks again" if answer.ended == "stopped" else ""
    return f"{label} · {told(answer)}{again}"


class ConversationColumn(ScrollView, can_focus=True):
    """A conversation that follows its end, unless somebody has scrolled away from it."""

    HELP: ClassVar[str] = """
    One conversation. Its title names who answers next; each answer tells beneath it who gave it, how many tokens it
    has, how fast they came, and why it ended. The end is followed while an answer comes, until you scroll up.
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "conversation--bar", "conversation--message", "conversation--answer", "conversation--about",
        "conversation--short",
    }  # fmt: skip
    DEFAULT_CSS = """
    ConversationColumn { overflow-x: hidden; overflow-y: auto; scrollbar-gutter: stable; background: transparent; }
    ConversationColumn > .conversation--bar { color: $accent; }
    ConversationColumn > .conversation--message { text-style: bold; }
    ConversationColumn > .conversation--about { color: $foreground-muted; text-style: italic; }
    ConversationColumn > .conversation--short { color: $warning; text-style: italic; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="chat.down"),
        Binding("k", "scroll_up", "Up", show=False, id="chat.up"),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes="panel")
        self._exchanges: Sequence[Exchange] = ()
        self._doing = self._empty = self._title = ""
        self._blocks: list[Block] = []
        self._settled: list[Line] = []
        """The lines of the blocks at the beginning that will never change."""
        self._count = 0
        """How many blocks those are."""
        self._lines: list[Line] = []
        self._following = True
        self._styles: dict[str, Style] = {}

    def show(self, title: str, exchanges: Sequence[Exchange], doing: str, empty: str) -> None:
        """Show a conversation; `doing` tells what goes on where an answer is under way."""
        if title != self._title:
            self._title = title
            self.border_title = Content(one_line(title))
        if len(exchanges) > len(self._exchanges):
            self._following = True  # something was asked: its answer is to be seen
        self._exchanges, self._doing, self._empty = exchanges, doing, empty
        self._wrap()

    def _wrap(self) -> None:
        width = self.scrollable_content_region.width
        same = [
            block.exchange is exchange and block.width == width
            for block, exchange in zip(self._blocks, self._exchanges, strict=False)
        ]
        kept = same.index(False) if False in same else len(same)
        self._blocks = [*self._blocks[:kept], *(Block(one, width) for one in self._exchanges[kept:])]
        if kept < self._count:
            self._settled, self._count = [], 0
        lines = self._settled
        for index, block in enumerate(self._blocks[self._count :], self._count):
            lines = [*lines, *block.lines(self._doing)]
            if block.settled and index == self._count:
                self._settled, self._count = lines, index + 1
        if not self._exchanges:
            lines = [("about", line) for line in wrapped(self._empty, width - len(INDENT))]
        self._put(lines, width)

    def _put(self, lines: list[Line], width: int) -> None:
        """Show other lines; only what has changed of those in sight is drawn."""
        height, before, top = self.size.height, self._lines, self.scroll_offset.y
        same = (number for number, pair in enumerate(zip(before, lines, strict=False)) if pair[0] != pair[1])
        first = next(same, min(len(before), len(lines)))
        self._lines = lines
        size = Size(width, len(lines))
        if (len(before) > height) == (len(lines) > height) and self.virtual_size.width == width:
            # The scroll bar neither comes nor goes, so nothing has to be laid out anew.
            self.set_reactive(ScrollView.virtual_size, size)
            if self.show_vertical_scrollbar:
                self.vertical_scrollbar.window_virtual_size = len(lines)
        else:
            self.virtual_size = size
        if self._following:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)
        if top == self.scroll_offset.y and (changed := max(0, first - top)) < height:
            self.refresh(Region(0, changed, self.size.width, height - changed))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the end as long as it is in sight."""
        super().watch_scroll_y(old_value, new_value)
        self._following = new_value >= self.max_scroll_y

    def on_resize(self, event: events.Resize) -> None:
        """Wrap anew, and stay at the end."""
        following = self._following
        self._wrap()
        self._following = following
        if following:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in sight; the styles are looked up once for all of them."""
        base = self.rich_style
        self._styles = {
            kind: base + self.get_component_rich_style(f"conversation--{kind}", partial=True)
            for kind in ("bar", "message", "answer", "about", "short")
        }
        self._styles[""] = base
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One line of the conversation."""
        width, base = self.size.width, self._styles[""]
        index = y + self.scroll_offset.y
        kind, text = self._lines[index] if index < len(self._lines) else ("", "")
        if not kind:
            return Strip.blank(width, base)
        lead = Segment(BAR, self._styles["bar"]) if kind == "message" else Segment(INDENT, base)
        return Strip([lead, Segment(set_cell_size(text, max(0, width - len(lead.text))), self._styles[kind])], width)
