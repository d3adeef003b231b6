"""What a direction does to the vocabulary, as plain values: no model and no torch is needed to show it."""

from dataclasses import asdict, dataclass
from typing import Any

from heretic_tui.engine.events import Event


@dataclass(frozen=True, slots=True)
class Word:
    """A token of the vocabulary and how much its logit changes, more than the average token's."""

    text: str
    token: int
    value: float


@dataclass(frozen=True, slots=True)
class VocabularyRead(Event):
    """The tokens that a direction promotes and suppresses most; `through` names the norm that was taken into account.

    Values are changes of the logit for a step of one along the direction, where the final stream's root mean square
    is 1, less the average over the vocabulary, since what all logits share changes no probability.
    """

    promoted: tuple[Word, ...]
    suppressed: tuple[Word, ...]
    direction: str
    through: str
    spread: float
    """Standard deviation of all the values."""
    number: int = 0

    def as_json(self) -> dict[str, Any]:
        """The lists as plain values."""
        return {"event": "vocabulary_read", **asdict(self)}
