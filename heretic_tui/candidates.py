"""Who can answer, and which trial comes first: the choices of the chat and the export, as plain rows."""

from dataclasses import dataclass
from typing import Any, Literal

from heretic_tui.engine.chat import Candidate, OfTrial, Original
from heretic_tui.engine.front import best_compromise
from heretic_tui.engine.records import TrialRecord
from heretic_tui.formats import heading
from heretic_tui.state import StudyView

Steered = Literal["removed", "added"]
"""What is chosen before layer and strength are known."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of a list to pick from: what it stands for, its cells, and whether it is on the front."""

    key: Any
    cells: tuple[str, ...]
    best: bool = False


def figures(record: TrialRecord | None, study: StudyView) -> tuple[str, ...]:
    """The objectives' scores of a trial, or of the original model."""
    scores = study.base if record is None else record.scores
    return tuple(scores[one.name].text if one.name in scores else "" for one in study.objectives)


def titles(study: StudyView) -> tuple[str, ...]:
    """What the figures are called."""
    return tuple(heading(one.name) for one in study.objectives)


def trials(study: StudyView) -> list[Choice]:
    """The front, then all other trials."""
    front = study.on_front
    rest = [record for record in study.records.values() if record.trial not in front]
    return [
        Choice(OfTrial(one.trial), (f"{'★' if one.trial in front else ' '} trial {one.trial}", *figures(one, study)),
               one.trial in front)
        for one in [*study.front, *rest]
    ]  # fmt: skip


def candidates(study: StudyView | None) -> list[Choice]:
    """All that can answer: the front, the original and the directions, then the trials that others beat."""
    if study is None:
        return [Choice(Original(), ("  original",))]
    blank = ("",) * len(study.objectives)
    found = trials(study)
    others = [
        Choice(Original(), ("  original", *figures(None, study))),
        Choice("removed", ("  a direction removed …", *blank)),
        Choice("added", ("  a direction added …", *blank)),
    ]
    return [*(one for one in found if one.best), *others, *(one for one in found if not one.best)]


def chosen_trial(study: StudyView | None, chosen: int | None) -> int | None:
    """The trial to begin with: the one that is selected, else the front's best compromise; 0 is the original."""
    if study is None:
        return None
    if chosen is not None and (chosen == 0 or chosen in study.records):
        return chosen
    return best_compromise(study.front, study.objectives).trial if study.front else None


def first_candidates(study: StudyView | None, chosen: int | None) -> tuple[Candidate, Candidate]:
    """Who answers at first, left and right: a trial beside the original, or the original beside a trial."""
    trial = chosen_trial(study, chosen)
    best = chosen_trial(study, None)
    if not trial:
        return Original(), OfTrial(best) if best else Original()
    return OfTrial(trial), Original()


def caption(candidate: Candidate, study: StudyView | None, *, short: bool = False) -> str:
    """A candidate's name, with a star for the front and its scores; `short` leaves out what a count is called."""
    if study is None or not isinstance(candidate, OfTrial | Original):
        return candidate.label
    trial = candidate.trial if isinstance(candidate, OfTrial) else 0
    record = study.records.get(trial)
    if trial and record is None:
        return candidate.label
    named = [
        f"{title} {figure}" if not (short and "/" in figure) else figure
        for title, figure in zip(titles(study), figures(record, study), strict=True)
        if figure
    ]
    star = "★ " if trial in study.on_front else ""
    return " · ".join([f"{star}{candidate.label}", *named])
