"""What a chat is made of: who answers, what was said so far, and how tokens are drawn. No model is needed here."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from heretic_tui.engine.chat.steering import Steered
from heretic_tui.engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn: greedily at temperature 0; raises `EngineError` for values without a meaning.

    `top_p` 1 and `top_k` 0 leave nothing out; without a `seed` every answer is another one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise EngineError(f"The temperature cannot be {self.temperature}.", "Give 0 (greedy) or a number above it.")
        if not 0 < self.top_p <= 1:
            raise EngineError(f"Top-p cannot be {self.top_p}.", "Give a number above 0 and up to 1; 1 is off.")
        if self.top_k < 0:
            raise EngineError(f"Top-k cannot be {self.top_k}.", "Give a number of tokens; 0 is off.")
        if self.max_tokens < 1:
            raise EngineError(f"An answer of {self.max_tokens} tokens is none.", "Allow at least one token.")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise EngineError(f"The seed cannot be {self.seed}.", "Give a whole number from 0, or none.")


@dataclass(frozen=True, slots=True)
class Original:
    """The model as it was loaded."""

    @property
    def label(self) -> str:
        """The candidate's name for people."""
        return "original"


@dataclass(frozen=True, slots=True)
class OfTrial:
    """The model as a trial of the run ablates it."""

    trial: int

    @property
    def label(self) -> str:
        """The candidate's name for people."""
        return f"trial {self.trial}"


Candidate: TypeAlias = Original | OfTrial | Steered


@dataclass(frozen=True, slots=True)
class Turn:
    """A candidate and the conversation that it is to go on with; the last message is the user's."""

    candidate: Candidate
    messages: tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a candidate said, in how many tokens and seconds; `ended` is `eos`, or `length` at the limit of tokens."""

    candidate: Candidate
    text: str
    tokens: int
    seconds: float
    ended: str
