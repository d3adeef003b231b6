"""The pane of the view of tokens: what they are shaded by, the tokens, and the number under the cursor."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from heretic_tui.engine.inspection.token_view import TokenReading
from heretic_tui.formats import plain
from heretic_tui.screens.inspector.painted import Painted, shaded_by, shown_tokens, under_cursor
from heretic_tui.widgets.token_text import Token, TokenText


class TokenPane(Vertical):
    """Tokens in colours, or words where there are none."""

    DEFAULT_CSS: ClassVar[str] = """
    TokenPane { height: 1fr; }
    TokenPane #said { height: 2; color: $foreground-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    TokenPane #empty { height: 1fr; color: $text-muted; padding: 1 0; }
    TokenPane #under { height: auto; max-height: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._painted: Painted | None = None
        self._other = ""
        self._tokens: tuple[TokenReading | None, tuple[Token, ...]] = (None, ())

    def compose(self) -> ComposeResult:
        """A line of words above, the tokens or what stands in their place, and a line below."""
        yield Static("", id="said", markup=False)
        yield TokenText(id="tokens-text")
        yield Static("", id="empty", markup=False)
        yield Static("", id="under", markup=False)

    @property
    def text(self) -> TokenText:
        """The tokens."""
        return self.query_one(TokenText)

    def show(self, reading: TokenReading, painted: Painted | None, problem: str, other: str) -> None:
        """Show a reading, without colours where there is a `problem`; `other` names the state that is not shown."""
        if self._tokens[0] is not reading:
            self._tokens = reading, shown_tokens(reading)
        self._painted, self._other = painted, other
        self._place(tokens=True)
        self.text.show(self._tokens[1], painted.shares if painted is not None else [0.0] * len(reading.pieces))
        self.say(problem)
        self._say_under()

    def show_words(self, words: str, problem: str) -> None:
        """Show words in place of tokens."""
        self._painted = None
        self._place(tokens=False)
        self.query_one("#empty", Static).update(plain(words))
        self.say(problem)
        self._say_under()

    def _place(self, *, tokens: bool) -> None:
        self.text.display = tokens
        self.query_one("#empty", Static).display = not tokens

    def say(self, problem: str) -> None:
        """Say what the tokens are shaded by, or the problem where they are not."""
        painted = self._painted
        self.query_one("#said", Static).update(plain(problem) if painted is None else shaded_by(painted))

    def _say_under(self) -> None:
        """The number under the cursor."""
        painted, place = self._painted, self.text.cursor
        under = self.query_one("#under", Static)
        if painted is None or place >= len(painted.values):
            under.update("")
        else:
            under.update(under_cursor(painted, place, self.text.tokens[place], self._other))

    def on_token_text_moved(self, event: TokenText.Moved) -> None:
        """The cursor stands on another token."""
        event.stop()
        self._say_under()
