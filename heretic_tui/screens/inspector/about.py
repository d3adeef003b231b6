"""The drawer that tells what a direction is about: tokens in context, or the vocabulary that it promotes."""

from typing import Literal

from textual.app import ComposeResult
from textual.containers import Vertical

from heretic_tui.engine.inspection.contexts import Context, Contexts
from heretic_tui.engine.inspection.direction import layer_name
from heretic_tui.engine.inspection.token_view import signed
from heretic_tui.engine.inspection.words import VocabularyRead
from heretic_tui.formats import one_line
from heretic_tui.token_desk import TokenDesk
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.text import data
from heretic_tui.widgets.token_text import token

Pane = Literal["", "contexts", "vocabulary"]
TITLES = {"contexts": "Tokens in context", "vocabulary": "Vocabulary"}
KEYS = {"contexts": "a", "vocabulary": "u"}
FIGURE, TIMES, WORD = 8, 4, 14
"""Cells of a value, a count and a token."""


class AboutDrawer(Vertical):
    """One of the two lists, or none."""

    def __init__(self) -> None:
        super().__init__(id="about", classes="drawer")
        self.pane: Pane = ""
        """The list that is shown."""
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """The list."""
        yield Rows(id="listed")

    @property
    def listed(self) -> Rows:
        """The list."""
        return self.query_one("#listed", Rows)

    def show(self, pane: Pane, desk: TokenDesk | None, *, fresh: bool) -> None:
        """Show a list, or none; one that is not `fresh` is about another direction or layer than the one shown."""
        self.pane = pane
        self.set_class(bool(pane), "-shown")
        if not pane or desk is None:
            return
        known = desk.contexts if pane == "contexts" else desk.vocabulary
        now = (pane, known, fresh, desk.waiting.get(pane), self.listed.size.width)
        if now == self._drawn:
            return
        self._drawn = now
        hint = "" if fresh else f" · {KEYS[pane]}: for what is shown now"
        match known:
            case Contexts():
                self._show_contexts(known)
                over = f"over {known.prompts} prompts, {known.tokens} tokens"
                self.border_title = data(f"{known.direction} at layer {layer_name(known.row)} {over}{hint}")
            case VocabularyRead():
                self._show_words(known)
                norm = f"with the gain of {known.through}" if known.through else "no final norm"
                self.border_title = data(f"{known.direction} · {norm} · spread {known.spread:.2f}{hint}")
            case _:
                self._show_waiting(desk, pane)

    def _show_waiting(self, desk: TokenDesk, pane: str) -> None:
        self.border_title = TITLES[pane]
        doing = "Looking …  x stops it." if desk.waiting.get(pane) else "Waits for the engine …"
        if pane not in desk.waiting:
            doing = f"It was not finished. {KEYS[pane]} begins it again."
        self.listed.set_columns(Column(""))
        self.listed.show([Row(None, (doing,), "rows--dim")])

    def _show_words(self, read: VocabularyRead) -> None:
        self.listed.set_columns(
            Column("promotes", least=10), Column("", 6, "right"), Column("suppresses", least=10), Column("", 6, "right")
        )
        pairs = enumerate(zip(read.promoted, read.suppressed, strict=True))
        self.listed.show(
            [
                Row(place, (_visible(up.text), f"{up.value:+.2f}", _visible(down.text), f"{down.value:+.2f}"))
                for place, (up, down) in pairs
            ]
        )

    def _show_contexts(self, contexts: Contexts) -> None:
        """The tokens in the middle, what stands around them at both sides."""
        room = max(10, (self.listed.size.width - FIGURE - TIMES - WORD - 4) // 2)
        self.listed.set_columns(
            Column("", FIGURE, "right"), Column("", TIMES, "right", drop=1), Column("", 0, "right", least=6),
            Column("", WORD), Column("", 0, least=6),
        )  # fmt: skip
        rows = []
        for side, title in (("positive", "highest"), ("negative", "lowest")):
            rows.append(Row(None, (title, "", "", "", ""), "rows--heading"))
            for place, one in enumerate(getattr(contexts, side)):
                times = f"×{one.times}" if one.times > 1 else ""
                before = one_line(one.before)[-room:]
                cells = (signed(one.value), times, before, f"[{_visible(one.text)}]", one.behind)
                rows.append(Row((side, place), cells))
        self.listed.show(rows)

    @staticmethod
    def context(contexts: Contexts, key: object) -> Context | None:
        """The token in context that a row of the list stands for."""
        if not isinstance(key, tuple):
            return None
        side, place = key
        found: Context = getattr(contexts, side)[place]
        return found


def _visible(text: str) -> str:
    """A token with its white space visible."""
    return token(text).text
