"""What the inspector's view of tokens has asked the engine for, and what came back; it outlives the view's turn."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.contexts import Contexts
from heretic_tui.engine.inspection.token_view import TokenReading, TokensRead
from heretic_tui.engine.inspection.words import VocabularyRead
from heretic_tui.worker import JobEnded, JobStarted

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.direction import Direction

TOKENS, CONTEXTS, VOCABULARY = "tokens", "contexts", "vocabulary"
"""The titles of the engine's jobs."""


@dataclass
class TokenDesk:
    """A prompt, the readings of it by trial, and what a direction was found to be about."""

    path: Path
    """The run."""
    prompt: str = ""
    system_prompt: str | None = None
    """None is the profile's own."""
    cursor: int | None = None
    """The token that the cursor is to go to once the prompt is read."""
    readings: dict[int, TokenReading] = field(default_factory=dict)
    contexts: Contexts | None = None
    vocabulary: VocabularyRead | None = None
    asked: "dict[str, Direction]" = field(default_factory=dict)
    """The direction that `contexts` and `vocabulary` were asked for last, by title."""
    waiting: dict[str, bool] = field(default_factory=dict)
    """The jobs that were asked for and are not over, and whether the engine has begun with them."""
    number: int = 0
    """Counts what was asked for: an answer to an older question is none."""
    numbers: dict[str, int] = field(default_factory=dict)

    def ask(self, title: str) -> int:
        """Note that something is asked for; gives its number."""
        self.number += 1
        self.numbers[title] = self.number
        self.waiting[title] = False
        return self.number

    def ask_prompt(self, prompt: str, system_prompt: str | None = None, cursor: int | None = None) -> int:
        """Take another prompt; its number."""
        self.prompt, self.system_prompt, self.cursor = prompt, system_prompt, cursor
        self.readings = {}
        return self.ask(TOKENS)

    def is_about(self, title: str, direction: "Direction | None", row: int) -> bool:
        """Whether what is known by a title, or being found out, is about a direction; contexts are of a row, too."""
        asked = self.asked.get(title)
        if asked is None or direction is None or not np.array_equal(asked.vector, direction.vector):
            return False
        if title in self.waiting:
            return True
        if title == CONTEXTS:
            return self.contexts is not None and self.contexts.row == row
        return self.vocabulary is not None

    def apply(self, event: Event) -> None:
        """Take in what the engine tells."""
        match event:
            case TokensRead() if event.number == self.numbers.get(TOKENS):
                self.readings[event.reading.trial] = event.reading
            case Contexts() if event.number == self.numbers.get(CONTEXTS):
                self.contexts = event
            case VocabularyRead() if event.number == self.numbers.get(VOCABULARY):
                self.vocabulary = event
            case JobStarted() if event.title in self.waiting:
                self.waiting[event.title] = True
            case JobEnded() if self.waiting.get(event.title):
                del self.waiting[event.title]
            case _:
                pass
