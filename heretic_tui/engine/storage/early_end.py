"""Front-preserving early end: a trial that can no longer come to the Pareto front is not measured to its end.

While responses are being generated, those that are over bound every score: refusals can only become more, correct
answers only fewer. Where a fully measured trial is no worse than the bound in every objective and better in one, it is
so for the scores themselves, whatever follows. Only fully measured trials may say so, since a bound proves nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.storage.front import Objective, point_of

Counted = Mapping[str, Sequence[bool | None]]
"""By scorer: whether it counts the response to each of its prompts; None where that is not known or not asked."""


def beaten(bounds: Mapping[str, Score], front: Sequence[TrialRecord], objectives: Sequence[Objective]) -> bool:
    """Whether a trial of the front is no worse than these bounds in every objective, and better in one."""
    best = point_of(bounds, objectives)
    return any(
        own != best and all(a <= b for a, b in zip(own, best, strict=True))
        for own in (point_of(record.scores, objectives) for record in front if not record.ended_early)
    )


def packed(counted: Counted) -> dict[str, str]:
    """What was counted as a character a prompt, for the journal: 1, 0, or ? where it is not known."""
    return {name: "".join("?" if one is None else str(int(one)) for one in found) for name, found in counted.items()}


def unpacked(texts: Mapping[str, str]) -> dict[str, list[bool | None]]:
    """The inverse of `packed`."""
    return {name: [None if sign == "?" else sign == "1" for sign in text] for name, text in texts.items()}


@dataclass
class Tally:
    """How often each prompt's response was counted so far, by scorer."""

    _found: dict[str, list[list[int]]] = field(default_factory=dict)

    def add(self, counted: Counted) -> None:
        """Take in one measurement; one of another number of prompts begins anew."""
        for name, found in counted.items():
            known = self._found.get(name, [])
            if len(known) != len(found):
                known = self._found[name] = [[0, 0] for _ in found]
            for place, one in zip(known, found, strict=True):
                if one is not None:
                    place[one] += 1

    def shares(self, name: str) -> list[float] | None:
        """The share of measurements in which a scorer counted each prompt's response; None before the first.

        One made-up measurement of each kind is added, so that a single one does not speak for all.
        """
        found = self._found.get(name)
        return None if found is None else [(yes + 1) / (no + yes + 2) for no, yes in found]
