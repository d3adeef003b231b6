"""Who can answer, and which trial comes first: the choices of the chat and the export, as plain rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heretic_tui.engine.chat.conversation import Candidate, OfTrial, Original
from heretic_tui.engine.chat.steering import OPERATIONS, OfLayer, Saved
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.storage.front import best_compromise
from heretic_tui.formats import heading
from heretic_tui.state import StudyView


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
    """All that can answer: the front, the original and the directions, then the trials that others beat.

    A direction's key is what is done with it; which one, how much and where is asked next.
    """
    blank = ("",) * len(study.objectives) if study else ()
    steered = [Choice(operation, (f"  a direction {operation} …", *blank)) for operation in OPERATIONS]
    if study is None:
        return [Choice(Original(), ("  original",)), *steered]
    found = trials(study)
    others = [Choice(Original(), ("  original", *figures(None, study))), *steered]
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


def directions(run: Path | None) -> list[Choice]:
    """The directions to steer with, of a run and of the library, with what is known of each.

    Reads files: call it off the screen's thread. Raises `EngineError` where the run's are damaged.
    """
    return [*(_of_run(run) if run is not None else ()), *_saved()]


def _of_run(path: Path) -> list[Choice]:
    from heretic_tui.engine.inspection.run_directions import load_run_directions
    from heretic_tui.engine.runs.run import DIRECTIONS

    if not (path / DIRECTIONS).is_file():
        return []
    found = load_run_directions(path / DIRECTIONS)
    rows = range(1, len(found.vectors))
    known = {
        OfLayer(row - 1): f"cosine of the two means {cosine:.3f}, {distance:.3g} apart"
        for row, cosine, distance in zip(rows, found.cosines[1:], found.distances[1:], strict=True)
    }
    known |= {
        OfLayer(row - 1, good=True): f"the good prompts' centre, {length:.3g} long"
        for row, length in zip(rows, found.lengths[1:], strict=True)
    }
    return [Choice(source, (source.label, told)) for source, told in known.items()]


def _saved() -> list[Choice]:
    from heretic_tui import paths
    from heretic_tui.engine.inspection.direction_library import DirectionLibrary

    entries = DirectionLibrary(paths.directions_dir()).entries()
    return [Choice(Saved(one.name), (one.name, one.problem or one.note or one.made or one.model)) for one in entries]
