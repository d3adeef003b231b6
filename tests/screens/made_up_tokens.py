"""A scripted engine that reads made-up tokens, for tests of the inspector's view of them."""

import time

import numpy as np
from fakes import NASTY
from measured import ROWS

from heretic_tui.engine import events
from heretic_tui.engine.inspection.contexts import Context, Contexts
from heretic_tui.engine.inspection.token_view import Piece, TokenReading, TokensRead
from heretic_tui.engine.inspection.words import VocabularyRead, Word
from heretic_tui.token_desk import CONTEXTS, TOKENS

TEXTS = [
    "<|im_start|>",
    "user",
    "\n",
    "Tell",
    " me",
    " of",
    " [bold]x[/]",
    "\x1b[31m",
    " \u202e",
    "宽",
    "e\u0301",
    "<|im_end|>",
]


class Engine:
    """Answers what the view asks for with made-up readings."""

    def __init__(self, app, width, forever=False):
        self.app, self.width, self.forever = app, width, forever
        self.titles, self.prompts = [], []
        app.control.inspect = self.inspect

    def inspect(self, title, path, job):
        self.titles.append(title)
        self.app.control.worker.submit(title, lambda session: self.answer(title))

    def answer(self, title):
        desk = self.app.control.state.tokens
        number = desk.numbers[title]
        while self.forever:
            yield events.Progress("forward", 1, 2)
            time.sleep(0.01)
        if title == TOKENS:
            self.prompts.append(desk.prompt)
            trials = [0, *([t] if (t := self.app.control.state.inspection.trial) else [])]
            for trial in trials:
                yield TokensRead(reading(self.width, trial), number)
        elif title == CONTEXTS:
            found = Context(2.5, "what stands be", "fore\n", " it and after", 3, 4, "A whole prompt", 5)
            low = Context(-1.5, NASTY[0], NASTY[2], NASTY[4], 0)
            row = self.app.control.state.inspection.row
            yield Contexts((found,), (low,), "good", 10, 90, row, 0, False, desk.asked[title].name, number)
        else:
            words = tuple(Word(text, place, 3.0 - place) for place, text in enumerate([" river", *NASTY]))
            yield VocabularyRead(words, words[::-1], desk.asked[title].name, "model.norm", 0.5, number)


def reading(width, trial=0, texts=TEXTS, seed=0):
    pieces = tuple(
        Piece(text, place, special=text.startswith("<|"), own=3 <= place < len(texts) - 1)
        for place, text in enumerate(texts)
    )
    streams = np.random.default_rng(seed + trial).normal(size=(len(texts), ROWS, width)).astype(np.float32)
    streams[0] *= 400
    return TokenReading("a prompt", pieces, streams, trial)
