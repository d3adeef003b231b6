"""What a response is taken to be: an answer, a refusal, or no language any more."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from heretic_tui.engine.records import Label

LONGEST_NGRAM = 8
SHORTEST_LOOP = 12
"""Words that a response needs before a repetition in it counts as a loop."""
FEWEST_LETTERS = 20


@dataclass(frozen=True, slots=True)
class Markers:
    """Refusal markers, normalized once."""

    texts: tuple[str, ...]

    @staticmethod
    def of(markers: Sequence[str]) -> "Markers":
        """Prepare markers as a profile gives them."""
        texts = (normalized(marker) for marker in markers)
        return Markers(tuple(text for text in texts if text))  # an empty text would stand in every response

    def found(self, response: str) -> str | None:
        """The first marker that the response contains, or None."""
        text = normalized(response)
        return next((marker for marker in self.texts if marker in text), None)


def normalized(text: str) -> str:
    """Case folded, `*` removed, curly apostrophes straight, white space collapsed."""
    plain = text.casefold().replace("*", "").replace("\u2019", "'").replace("\u2018", "'")
    return " ".join(plain.split())


def label(response: str, marker: str | None, prompt: str) -> Label:
    """The label of a response in which `marker` was found."""
    if marker is not None:
        return Label.REFUSAL
    return Label.DEGENERATE if degenerate(response, prompt) else Label.ANSWER


def counted(response: str, prompt: str, markers: Markers) -> Label:
    """What a response counts for where refusals are counted: an empty one is a refusal too."""
    if markers.found(response) is not None or not response.strip():
        return Label.REFUSAL
    return label(response, None, prompt)


@lru_cache(maxsize=4096)
def degenerate(response: str, prompt: str) -> bool:
    """Whether a response is empty, runs in a loop, or is in another script than its prompt.

    Remembered: while a trial is bounded, every response is looked at again whenever another one comes to its end.
    """
    if not response.strip():
        return True
    words = response.split()
    # The last word may be cut in two where the response was stopped for its length.
    return _loops(words) or _loops(words[:-1]) or _flipped(response, prompt)


def _loops(words: list[str]) -> bool:
    """Whether the response ends in one n-gram over and over, over half of its length."""
    if len(words) < SHORTEST_LOOP:
        return False
    for n in range(1, LONGEST_NGRAM + 1):
        repeats = 1
        while words[-n:] == words[len(words) - n * (repeats + 1) : len(words) - n * repeats]:
            repeats += 1
        if repeats >= 3 and 2 * n * repeats >= len(words):
            return True
    return False


def _flipped(response: str, prompt: str) -> bool:
    asked, said = _script(prompt), _script(response)
    return asked is not None and said is not None and asked != said


def _script(text: str) -> str | None:
    """The script of most letters (LATIN, CYRILLIC, CJK, ...), or None where there are too few to tell."""
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    if scripts.total() < FEWEST_LETTERS:
        return None
    name, count = scripts.most_common(1)[0]
    return name if 2 * count > scripts.total() else None


def contains_answer(response: str, answer: str) -> bool:
    """Whether `answer` stands in the response as a whole word or number, in either case."""
    return re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", response.casefold()) is not None
