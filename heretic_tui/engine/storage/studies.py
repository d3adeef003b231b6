"""Reading a study, its own or one that the reference tool wrote, without working on it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import AblationParameters, number_of
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.schemas import in_range
from heretic_tui.engine.storage.early_end import Counted, unpacked
from heretic_tui.engine.storage.front import Objective
from heretic_tui.engine.storage.slots import DEVICE, WORKER, Signs
from heretic_tui.engine.storage.space import SUBSPACE
from heretic_tui.engine.storage.storages import INDEX, quiet_optuna, storage_at, storage_failures
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.values import MOST_DIMENSIONS

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STUDY_NAME = "heretic"
PAUSE = "pause"
"""The attribute of a study that holds a number which grows with every wish to pause it."""


def read_study(location: str | None, journal: Path) -> "optuna.Study":
    """Open a study to read it only; also one that the reference tool wrote. Raises `EngineError`."""
    import optuna

    quiet_optuna()
    if location is None and not journal.is_file():
        raise EngineError(f"There is no study at {journal}.", "The run ended before its first trial; resume it.")
    with storage_failures(journal, location, reading=True):
        storage = _reading(location) if location else storage_at(None, journal)
        names = optuna.get_all_study_names(storage)
        wanted = journal.parent.name if location else STUDY_NAME
        name = wanted if wanted in names else next(iter(names), None)
        if name is None:
            raise EngineError(
                f"{journal} holds no study.", "If it is a run's journal, resume the run; if not, check the path."
            )
        return optuna.load_study(study_name=name, storage=storage)


@lru_cache(maxsize=8)
def _reading(location: str) -> "BaseStorage":
    """A storage to read from again and again: it keeps what cannot change, and its connections."""
    import optuna

    return optuna.storages.get_storage(storage_at(location, Path()))


def want(study: "optuna.Study", trials: int) -> None:
    """Note in a study how many trials it is to have; whoever runs it reads the number before every trial."""
    with storage_failures():
        study.set_user_attr("n_trials", trials)


def want_pause(study: "optuna.Study") -> None:
    """Ask all workers of a study to pause; each does before its next trial."""
    with storage_failures():
        study.set_user_attr(PAUSE, int(study.user_attrs.get(PAUSE, 0)) + 1)


def wanted(study: "optuna.Study", profile: Profile) -> int:
    """How many trials a study is to have. Raises `EngineError` where what it says is no number."""
    try:
        return in_range(study.user_attrs.get("n_trials", profile.n_trials), 1)
    except (TypeError, ValueError) as error:
        raise EngineError(f"The study does not say how many trials it is to have ({error}).", "Restore it.") from error


@dataclass(frozen=True, slots=True)
class ForeignObjective:
    """An objective of a study that has no profile of ours."""

    name: str
    label: str
    optimization: str


def read_foreign_study(journal: Path) -> tuple[list[TrialRecord], Sequence[Objective]]:
    """The trials and objectives of a study file that the reference tool wrote."""
    study = read_study(None, journal)
    records = list(read_records(study))
    names = list(records[0].scores) if records else []
    directions = [direction.name.lower() for direction in study.directions]
    return records, [ForeignObjective(name, name, way) for name, way in zip(names, directions, strict=False)]


def read_records(study: "optuna.Study") -> Iterator[TrialRecord]:
    """The finished trials of a study in order, numbered from 1, from its attributes."""
    return map(record_of, finished(study.get_trials(deepcopy=False)))


def record_of(trial: "FrozenTrial") -> TrialRecord:
    """A finished trial as its attributes tell it. Raises `EngineError` where they are damaged."""
    with _damages(trial):
        return _record(trial)


def counted_of(trial: "FrozenTrial") -> Counted:
    """Which prompts a finished trial's scores counted. Raises `EngineError` where that is damaged."""
    with _damages(trial):
        return unpacked(trial.user_attrs.get("counted", {}))


@contextmanager
def _damages(trial: "FrozenTrial") -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EngineError(
            f"Trial {trial.number} of the study is damaged ({error}).", "Restore the study from a backup."
        ) from error


def _record(trial: "FrozenTrial") -> TrialRecord:
    attributes = trial.user_attrs
    return TrialRecord(
        trial=in_range(attributes[INDEX], 1),
        parameters=AblationParameters.from_json(
            attributes.get("direction_index"),
            attributes["parameters"],
            in_range(attributes.get(SUBSPACE, 1), 1, MOST_DIMENSIONS),
        ),
        scores=_scores(attributes),
        seconds=number_of(attributes["seconds"] if "seconds" in attributes else _duration(trial)),
        ended_early=bool(attributes.get("censored", False)),
        timing={str(name): number_of(seconds) for name, seconds in attributes.get("timing", {}).items()},
        worker=str(attributes.get(WORKER, "")),
        device=str(attributes.get(DEVICE, "")),
    )


def under_way(study: "optuna.Study", signs: Signs) -> dict[str, int]:
    """Who is at which trial of a study now, by the names of its workers; without those silent for too long."""
    import optuna

    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    told = [(trial.user_attrs.get(WORKER), trial.user_attrs.get(INDEX)) for trial in running if not signs.silent(trial)]
    at = {worker: number for worker, number in told if isinstance(worker, str) and isinstance(number, int)}
    return signs.lately(at)


def finished(trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
    """The finished ones of a study's trials."""
    import optuna

    done = optuna.trial.TrialState.COMPLETE
    return [trial for trial in trials if trial.state == done and "parameters" in trial.user_attrs]


def _scores(attributes: Mapping[str, Any]) -> dict[str, Score]:
    if "scores" in attributes:
        return {entry["name"]: Score.from_json(entry["score"]) for entry in attributes["scores"]}
    count, total = int(attributes["refusals"]), int(attributes["n_bad_prompts"])
    return {
        "kl_divergence": Score(float(attributes["kl_divergence"])),
        "refusals": Score(count / max(1, total), count, total),
    }


def _duration(trial: "optuna.trial.FrozenTrial") -> float:
    return trial.duration.total_seconds() if trial.duration else math.nan
