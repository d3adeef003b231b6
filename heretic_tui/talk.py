"""A talk: one or two candidates answer the same messages, each with a conversation of its own. No screen is needed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from heretic_tui.engine.chat.conversation import Candidate, ChatMessage, Original, Sampling, Turn
from heretic_tui.engine.events import AnswerFinished, Event, TextGenerated
from heretic_tui.worker import JobEnded, JobStarted

CHAT = "chat"
"""The title of the engine's job."""

Ended = Literal["", "waiting", "eos", "length", "stopped", "failed"]


def fitting(context: int | None) -> Sampling:
    """Sampling whose longest answer leaves most of the model's context to the conversation."""
    usual = Sampling()
    return usual if context is None else Sampling(max_tokens=max(1, min(usual.max_tokens, context // 4)))


@dataclass
class Answer:
    """What a candidate has said so far; `ended` is empty while it speaks, and `waiting` before it was asked."""

    candidate: Candidate
    text: str = ""
    ended: Ended = ""
    pieces: int = 0
    """How many pieces of text have come: about as many as tokens."""
    began: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    problem: str = ""

    @property
    def underway(self) -> bool:
        """Whether more may come."""
        return not self.ended

    @property
    def whole(self) -> bool:
        """Whether it ended by itself or at its limit."""
        return self.ended in {"eos", "length"}

    def add(self, text: str) -> None:
        """Take in a piece."""
        self.began = self.began or time.monotonic()
        self.text += text
        self.pieces += 1

    def finish(self, event: AnswerFinished) -> None:
        """Take in the end."""
        self.text, self.tokens, self.seconds = event.text, event.tokens, event.seconds
        self.ended = "length" if event.ended == "length" else "eos"

    def break_off(self, problem: str | None) -> None:
        """End before the end: stopped, or failed because of `problem`."""
        self.ended = "stopped" if problem is None else "failed"
        self.problem = problem or ""
        self.tokens = self.pieces or None
        self.seconds = time.monotonic() - self.began if self.began else None


@dataclass
class Exchange:
    """A message and its answer; one that was asked again or edited is `replaced`, and only the transcript shows it."""

    message: str
    answer: Answer
    round: int
    """Counts the messages of the talk; answers of the two columns to one message share it."""
    replaced: bool = False


@dataclass
class Conversation:
    """What one column holds: who answers next, and what was said."""

    candidate: Candidate = field(default_factory=Original)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def shown(self) -> list[Exchange]:
        """All but what was replaced."""
        return [exchange for exchange in self.exchanges if not exchange.replaced]

    @property
    def last(self) -> Exchange | None:
        """The last exchange."""
        return next((exchange for exchange in reversed(self.exchanges) if not exchange.replaced), None)

    @property
    def wanting(self) -> bool:
        """Whether the last answer is not whole, or another candidate's."""
        last = self.last
        return last is not None and (not last.answer.whole or last.answer.candidate != self.candidate)

    def ask(self, message: str, number: int) -> None:
        """Add a message that the candidate is to answer."""
        self.exchanges.append(Exchange(message, Answer(self.candidate), number))

    def ask_again(self, message: str | None, number: int) -> None:
        """Put the last message, or another text in its place, to the candidate anew."""
        last = self.last
        if last is None:
            return
        if last.answer.ended == "waiting" and message is None:
            last.answer = Answer(self.candidate)
            return
        last.replaced = True
        self.ask(last.message if message is None else message, number)

    def turn(self, system: str) -> Turn:
        """What the engine needs to answer; messages that never got an answer are left out, but for the last."""
        said = [ChatMessage("system", system)] if system.strip() else []
        *before, last = self.shown
        for exchange in before:
            if exchange.answer.text:
                said += [ChatMessage("user", exchange.message), ChatMessage("assistant", exchange.answer.text)]
        return Turn(self.candidate, (*said, ChatMessage("user", last.message)))


@dataclass
class Talk:
    """The conversations of the two columns, their settings, and the answers under way."""

    columns: tuple[Conversation, Conversation] = field(default_factory=lambda: (Conversation(), Conversation()))
    two: bool = False
    """Whether the second column answers too."""
    system: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    name: str = field(default_factory=lambda: time.strftime("%Y-%m-%d-%H%M%S"))
    rounds: int = 0
    """How many times something was asked."""
    asked: tuple[int, ...] = ()
    """The columns that the engine's job is about, in its order; none when nothing is under way."""
    started: bool = False
    """Whether the engine has begun with it."""
    stopping: bool = False
    version: int = 0
    """Grows with every change of what was said."""
    saved: int = 0
    """The version that is on disk."""

    @property
    def open(self) -> Sequence[Conversation]:
        """The conversations that are shown and asked."""
        return self.columns if self.two else self.columns[:1]

    @property
    def busy(self) -> bool:
        """Whether answers are under way, or wait for the engine."""
        return bool(self.asked)

    @property
    def empty(self) -> bool:
        """Whether nothing was said yet."""
        return not any(conversation.exchanges for conversation in self.columns)

    @property
    def unsaved(self) -> bool:
        """Whether something was said that is not on disk."""
        return self.version != self.saved and not self.empty

    def choose(self, column: int, candidate: Candidate) -> None:
        """Let another candidate answer from here on."""
        self.columns[column].candidate = candidate

    def compare(self, two: bool) -> None:
        """Open or close the second column; a fresh one takes over the talk up to the last message."""
        left, right = self.columns
        self.two = two
        if two and not right.shown and (shown := left.shown):
            right.exchanges += [
                *shown[:-1],
                Exchange(shown[-1].message, Answer(right.candidate, ended="waiting"), shown[-1].round),
            ]

    def ask(self, message: str) -> list[Turn]:
        """Put a message to every open column."""
        for conversation in self.open:
            conversation.ask(message, self.rounds)
        return self._asking(range(len(self.open)))

    def ask_again(self, message: str | None = None) -> list[Turn]:
        """Put the last message anew, edited if a text is given: to those who owe an answer, else to all."""
        having = [index for index, conversation in enumerate(self.open) if conversation.last is not None]
        owing = [index for index in having if self.columns[index].wanting]
        chosen = having if message is not None else owing or having
        for index in chosen:
            self.columns[index].ask_again(message, self.rounds)
        return self._asking(chosen)

    def _asking(self, columns: Sequence[int]) -> list[Turn]:
        self.asked, self.started, self.stopping = tuple(columns), False, False
        self.version += 1
        self.rounds += 1
        return [self.columns[index].turn(self.system) for index in columns]

    def apply(self, event: Event) -> None:
        """Take in what the engine tells of the answers under way."""
        if not self.asked:
            return
        match event:
            case JobStarted(title=title) if title == CHAT:
                self.started = True
            case TextGenerated() if self.started:
                self._answer(event.column).add(event.text)
            case AnswerFinished() if self.started:
                self._answer(event.column).finish(event)
            case JobEnded(title=title) if title == CHAT and self.started:
                self._over(event)
            case _:
                return
        self.version += 1

    def _answer(self, column: int) -> Answer:
        last = self.columns[self.asked[column]].last
        assert last is not None, "a column that was asked has a last exchange"
        return last.answer

    def _over(self, event: JobEnded) -> None:
        problem = None
        if event.failure is not None:
            problem = f"{event.failure.cause} {event.failure.remedy}".strip()
        for column in range(len(self.asked)):
            answer = self._answer(column)
            if answer.underway:
                answer.break_off(problem)
        self.asked, self.started, self.stopping = (), False, False

    def afresh(self) -> "Talk":
        """A new talk between the same two, with the same settings."""
        fresh = Talk(two=self.two, system=self.system, sampling=self.sampling)
        for index, conversation in enumerate(self.columns):
            fresh.columns[index].candidate = conversation.candidate
        if fresh.name == self.name:
            fresh.name = f"{self.name}-2"
        return fresh
