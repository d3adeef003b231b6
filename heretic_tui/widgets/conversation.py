"""One column of a chat: messages, answers as they come, and what is to be said about each."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from heretic_tui.formats import one_line, plain
from heretic_tui.talk import Answer, Exchange
from heretic_tui.transcripts import told


class AnswerText(Static):
    """An answer as data; only what is new of it is made harmless, so that a long one costs no more than a short one."""

    def __init__(self) -> None:
        super().__init__("", markup=False, classes="answer")
        self._raw = self._shown = ""

    def show(self, text: str) -> None:
        """Show the answer as far as it has come."""
        if text == self._raw:
            return
        if text.startswith(self._raw):
            self._shown += plain(text[len(self._raw) :])
        else:
            self._shown = plain(text)
        self._raw = text
        self.update(self._shown)


class ExchangeView(Vertical):
    """A message, its answer, and a line about it."""

    def __init__(self, exchange: Exchange, doing: str) -> None:
        super().__init__(classes="exchange")
        self.exchange, self._doing = exchange, doing
        self._composed = False
        self.settled = False
        """Whether all is shown that will ever be."""

    def compose(self) -> ComposeResult:
        """The three parts."""
        yield Static(plain(self.exchange.message), markup=False, classes="message")
        yield AnswerText()
        yield Static("", markup=False, classes="about")

    def on_mount(self) -> None:
        """Show what there is by now."""
        self._composed = True
        self.show(self._doing)

    def show(self, doing: str) -> None:
        """Show the answer as far as it has come; `doing` tells what goes on where it has not begun."""
        self._doing = doing
        if not self._composed:
            return
        answer = self.exchange.answer
        self.query_one(AnswerText).show(answer.text)
        self.query_one(AnswerText).display = bool(answer.text)
        self.settled = answer.ended not in {"", "waiting"}
        about = self.query_one(".about", Static)
        about.set_class(answer.ended in {"failed", "stopped", "length"}, "-short")
        words = about_answer(answer, doing)
        if words != str(about.content):
            about.update(words)


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


class ConversationColumn(VerticalScroll, can_focus=True):
    """A conversation that follows its end, unless somebody has scrolled away from it."""

    HELP: ClassVar[str] = """
    One conversation. Its title names who answers next; each answer tells beneath it who gave it, how many tokens it
    has, how fast they came, and why it ended. The end is followed while an answer comes, until you scroll up.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="chat.down"),
        Binding("k", "scroll_up", "Up", show=False, id="chat.up"),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes="panel")
        self._views: list[ExchangeView] = []
        self._title = ""

    def compose(self) -> ComposeResult:
        """What is said where nothing was said yet."""
        # As high as the column at least: an anchored container would put a short conversation at its foot.
        with Vertical(classes="conversation"):
            yield Static("", markup=False, classes="empty hint")

    def on_mount(self) -> None:
        """Follow the end."""
        self.anchor()

    def show(self, title: str, exchanges: Sequence[Exchange], doing: str, empty: str) -> None:
        """Show a conversation; what is on the screen already stays, and only an answer under way is drawn again."""
        if title != self._title:
            self._title = title
            self.border_title = Content(one_line(title))
        hint = self.query_one(".empty", Static)
        hint.display = not exchanges
        if not exchanges:
            hint.update(plain(empty))
        inner = self.query_one(".conversation", Vertical)
        same = zip(self._views, exchanges, strict=False)
        kept = next((index for index, (view, exchange) in enumerate(same) if view.exchange is not exchange), None)
        if kept is None:
            kept = min(len(self._views), len(exchanges))
        for view in self._views[:kept]:
            if not view.settled:
                view.show(doing)
        if dropped := self._views[kept:]:
            inner.remove_children(dropped)
        fresh = [ExchangeView(exchange, doing) for exchange in exchanges[kept:]]
        self._views[kept:] = fresh
        if fresh:
            inner.mount_all(fresh)
            self.anchor()
