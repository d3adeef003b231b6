"""The search: Optuna's ask and tell over the reference tool's search space, and the Pareto front.

Parameter and attribute names in the journal are the reference tool's, so that each side reads the other's
studies and `optuna-dashboard` shows them.
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.early_end import Counted, Tally, beaten, packed, unpacked
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.front import Objective, pareto_front
from heretic_tui.engine.parameters import EMBEDDINGS, MLP, AblationParameters, Kernel, number_of
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.schemas import in_range
from heretic_tui.engine.storage_address import is_storage_error, opened_with, storage_error
from heretic_tui.engine.style import style_of
from heretic_tui.private import make_file
from heretic_tui.profile.schema import MOST_DIMENSIONS, KLDivergenceSpec, Profile, RefusalsSpec

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "heretic"
SUBSPACE = "subspace_dimensions"
"""Our own parameter and attribute: in a journal only where a profile asks for subspaces."""


@dataclass(frozen=True)
class Suggestion:
    """What the sampler wants to try next, as trial number `trial`."""

    trial: int
    parameters: AblationParameters
    handle: "optuna.trial.Trial"


class Search:
    """A study on disk: asks the sampler, tells it scores, and knows the front."""

    def __init__(self, study: "optuna.Study", profile: Profile) -> None:
        self.study = study
        self.profile = profile
        self.records: list[TrialRecord] = []
        self.tally = Tally()
        self._front: list[TrialRecord] = []
        for record, counted in zip(read_records(study), read_counted(study), strict=True):
            self._take(record, counted)

    def ask(self, components: Sequence[str], layers: int) -> Suggestion:
        """Sample the parameters of the next trial for a model of `layers` decoder layers."""
        number = len(self.records) + 1
        with storage_failures():
            # A sampler of its own for every trial, seeded by its number: a resumed study goes on as if never stopped.
            self.study.sampler = _sampler(self.profile, number)
            handle = self.study.ask()
            style, dimensions = style_of(self.profile), self.profile.subspace_dimensions
            parameters = suggest(handle, style.sampled(components), layers - 1, dimensions, style.layers)
            handle.set_user_attr("index", number)
            handle.set_user_attr("direction_index", parameters.direction_index)
            handle.set_user_attr("parameters", parameters.as_json())
            if parameters.subspace_dimensions != 1:
                handle.set_user_attr(SUBSPACE, parameters.subspace_dimensions)
        return Suggestion(number, parameters, handle)

    def tell(
        self,
        suggestion: Suggestion,
        scores: Mapping[str, Score],
        base: Mapping[str, Score],
        seconds: float,
        *,
        ended_early: bool = False,
        counted: Counted | None = None,
        timing: Mapping[str, float] | None = None,
    ) -> TrialRecord:
        """Write a trial's scores, beside the original model's, to the journal; from then on nothing can lose it.

        Of a trial that ended early the sampler is told the bounds: another trial is better than even these, so that it
        learns what it is to learn, to stay away.
        """
        timing = {name: round(value, 3) for name, value in (timing or {}).items()}
        attributes = self._attributes(scores, base) | {"seconds": round(seconds, 3)}
        attributes |= {"counted": packed(counted)} if counted else {}
        attributes |= {"timing": timing} if timing else {}
        attributes |= {"censored": True} if ended_early else {}
        with storage_failures():
            for name, value in attributes.items():
                suggestion.handle.set_user_attr(name, value)
            self.study.tell(suggestion.handle, self._told(objective_values(self.profile, scores, base)))
        record = TrialRecord(suggestion.trial, suggestion.parameters, scores, seconds, ended_early, timing)
        self._take(record, counted or {})
        return record

    def beaten(self, bounds: Mapping[str, Score]) -> bool:
        """Whether a trial whose scores can become no better than these bounds can no longer come to the front."""
        return beaten(bounds, self._front, self.profile.objectives)

    def _take(self, record: TrialRecord, counted: Counted) -> None:
        self.records.append(record)
        self.tally.add(counted)
        # A trial that is not on the front never comes back to it, so the front and the new one are enough.
        self._front = pareto_front([*self._front, record], self.profile.objectives)

    def drop(self, suggestion: Suggestion) -> None:
        """Close a trial that was stopped halfway."""
        import optuna

        with storage_failures():
            self.study.tell(suggestion.handle, state=optuna.trial.TrialState.FAIL)

    def front(self) -> list[TrialRecord]:
        """The trials of the Pareto front, fewest refusals (or best first objective) first."""
        return list(self._front)

    def set_finished(self, finished: bool) -> None:
        """Note in the study whether the wanted number of trials is reached."""
        with storage_failures():
            self.study.set_user_attr("finished", finished)

    @property
    def wanted(self) -> int:
        """How many trials the study is to have."""
        return wanted(self.study, self.profile)

    def want(self, trials: int) -> None:
        """Change how many trials the study is to have."""
        want(self.study, trials)

    def _told(self, values: Sequence[float]) -> list[float]:
        """The values as Optuna takes them: it would fail a trial with one that is not a number; the worst stands in."""
        worst = (-math.inf if spec.optimization == "maximize" else math.inf for spec in self.profile.objectives)
        return [bad if math.isnan(value) else value for value, bad in zip(values, worst, strict=True)]

    def _attributes(self, scores: Mapping[str, Score], base: Mapping[str, Score]) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "scores": [
                {"name": name, "score": _shown(score), "baseline": _shown(base[name])} for name, score in scores.items()
            ]
        }
        for spec in self.profile.scorer_specs():
            score, before = scores[spec.name], base[spec.name]
            if isinstance(spec, RefusalsSpec) and "refusals" not in attributes:
                attributes |= {"refusals": score.count, "base_refusals": before.count, "n_bad_prompts": score.total}
            elif isinstance(spec, KLDivergenceSpec) and "kl_divergence" not in attributes:
                attributes["kl_divergence"] = score.value
        return attributes


def _shown(score: Score) -> dict[str, Any]:
    return {**score.as_json(), "rich_display": score.text, "md_display": score.text}


def suggest(
    trial: "optuna.trial.Trial",
    components: Sequence[str],
    last: int,
    dimensions: int | str = 1,
    layers: Sequence[int] | None = None,
) -> AblationParameters:
    """Sample one point of the search space; `last` is the index of the last decoder layer.

    Where only some `layers` are ablated, the peak is sought among them. The direction index is sampled whatever the
    scope, so that a multivariate sampler always sees one space. A weight of exactly 0 is reachable for the MLP and for
    the embeddings: the range begins below 0 and is clamped there. The dimensions of the subspace are part of the space
    only where they are to be searched.
    """
    scope = trial.suggest_categorical("direction_scope", ["global", "per layer"])
    index = trial.suggest_float("direction_index", 0.4 * last, 0.9 * last)
    peaks = (float(min(layers)), float(max(layers))) if layers else (0.6 * last, 1.0 * last)
    kernels = {}
    for component in components:
        low = -0.25 if component in {MLP, EMBEDDINGS} else 0.8
        peak = max(0.0, trial.suggest_float(f"{component}.max_weight", low, 1.5))
        if component == EMBEDDINGS:
            kernels[component] = Kernel.of_embeddings(peak)
            continue
        position = trial.suggest_float(f"{component}.max_weight_position", *peaks)
        fraction = trial.suggest_float(f"{component}.min_weight", 0.0, 1.0)
        distance = trial.suggest_float(f"{component}.min_weight_distance", 1.0, max(1.0, 0.6 * last))
        kernels[component] = Kernel(peak, position, fraction * peak, distance)
    if not isinstance(dimensions, int):
        dimensions = trial.suggest_int(SUBSPACE, 1, MOST_DIMENSIONS)
    return AblationParameters(index if scope == "global" else None, kernels, dimensions)


def objective_values(profile: Profile, scores: Mapping[str, Score], base: Mapping[str, Score]) -> list[float]:
    """What the sampler sees, in the order of the profile's objectives.

    In the 1.4.0 form the refusals count against the original model's, and below the KL target the divergence
    gives way to a figure made of the refusals, so that trials that change nothing are not sought.
    """
    target = profile.sampler_objective
    if target is None:
        return [scores[spec.name].value for spec in profile.objectives]
    refusals = next(spec.name for spec in profile.objectives if isinstance(spec, RefusalsSpec))
    remaining = (scores[refusals].count or 0) / max(1, base[refusals].count or 0)
    values = []
    for spec in profile.objectives:
        if isinstance(spec, KLDivergenceSpec):
            divergence = scores[spec.name].value
            near = divergence < target.target
            values.append((remaining * target.target if near else divergence) / target.scale)
        else:
            values.append(remaining)
    return values


def open_study(location: str | None, profile: Profile, journal: Path) -> "optuna.Study":
    """Open or create the study in the run's journal or, with a `location`, in that Optuna storage.

    Trials that an interrupted session left running are closed. Raises `EngineError` for a damaged journal.
    """
    import optuna

    _quiet()
    ways = optuna.study.StudyDirection
    directions = [ways.MAXIMIZE if spec.optimization == "maximize" else ways.MINIMIZE for spec in profile.objectives]
    with storage_failures(journal, location):
        storage = opened_with(location) if location else _journal_storage(journal)
        name = STUDY_NAME if not location else journal.parent.name
        study = optuna.create_study(
            study_name=name, storage=storage, directions=directions, load_if_exists=True, sampler=_sampler(profile, 0)
        )
        if "settings" not in study.user_attrs:
            study.set_user_attr("settings", profile.model_dump_json(exclude={"storage"}))
            study.set_user_attr("finished", False)
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def read_study(location: str | None, journal: Path) -> "optuna.Study":
    """Open a study to read it only; also one that the reference tool wrote. Raises `EngineError`."""
    import optuna

    _quiet()
    if location is None and not journal.is_file():
        raise EngineError(f"There is no study at {journal}.", "The run ended before its first trial; resume it.")
    with storage_failures(journal, location, reading=True):
        storage = opened_with(location) if location else _journal_storage(journal)
        names = optuna.get_all_study_names(storage)
        wanted = journal.parent.name if location else STUDY_NAME
        name = wanted if wanted in names else next(iter(names), None)
        if name is None:
            raise EngineError(
                f"{journal} holds no study.", "If it is a run's journal, resume the run; if not, check the path."
            )
        return optuna.load_study(study_name=name, storage=storage)


def want(study: "optuna.Study", trials: int) -> None:
    """Note in a study how many trials it is to have; whoever runs it reads the number before every trial."""
    with storage_failures():
        study.set_user_attr("n_trials", trials)


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
    for trial in _finished(study):
        try:
            yield _record(trial)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise EngineError(
                f"Trial {trial.number} of the study {study.study_name} is damaged ({error}).",
                "Restore the study from a backup.",
            ) from error


def _record(trial: "optuna.trial.FrozenTrial") -> TrialRecord:
    attributes = trial.user_attrs
    return TrialRecord(
        trial=in_range(attributes["index"], 1),
        parameters=AblationParameters.from_json(
            attributes.get("direction_index"),
            attributes["parameters"],
            in_range(attributes.get(SUBSPACE, 1), 1, MOST_DIMENSIONS),
        ),
        scores=_scores(attributes),
        seconds=number_of(attributes.get("seconds") or _duration(trial)),
        ended_early=bool(attributes.get("censored", False)),
        timing={str(name): number_of(seconds) for name, seconds in attributes.get("timing", {}).items()},
    )


def read_counted(study: "optuna.Study") -> Iterator[Counted]:
    """What each of `read_records` counted; nothing for those of older versions and of the reference tool."""
    for trial in _finished(study):
        yield unpacked(trial.user_attrs.get("counted", {}))


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return [trial for trial in trials if "parameters" in trial.user_attrs]


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


def _sampler(profile: Profile, trial: int) -> "optuna.samplers.TPESampler":
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=None if profile.seed is None else _seed(profile.seed, trial),
            n_startup_trials=profile.n_startup_trials,
            n_ei_candidates=profile.n_ei_candidates,
            multivariate=profile.multivariate,
        )


def _seed(seed: int, trial: int) -> int:
    """A seed for one trial; mixed, so that studies with neighbouring seeds do not share trials."""
    import numpy as np

    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def _journal_storage(journal: Path) -> "optuna.storages.BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class WholeLines(JournalFileBackend):
        """A line that a full disk has cut is taken back, or the next one would be glued to it."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            size = journal.stat().st_size
            try:
                super().append_logs(logs)
            except OSError as error:
                with suppress(OSError):
                    os.truncate(journal, size)
                raise OSError(error.errno, error.strerror, str(journal)) from error

    make_file(journal)
    return JournalStorage(WholeLines(str(journal), lock_obj=JournalFileOpenLock(str(journal))))


def repair_journal(journal: Path) -> bool:
    """Make a journal that a crash left behind writable again; call it only while holding the run's lock.

    A line that was cut in the middle is moved to a file beside the journal, and a stale lock is removed.
    Returns whether a line was cut off.
    """
    if not journal.is_file():
        return False
    content = journal.read_bytes()
    whole = _whole_lines(content)
    try:
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
        if whole == len(content):
            return False
        cut = journal.with_name(f"{journal.name}.cut")
        make_file(cut)
        cut.write_bytes(content[whole:])
        with journal.open("r+b") as file:
            file.truncate(whole)
    except OSError as error:
        raise write_failure(journal, error) from error
    return True


def _whole_lines(content: bytes) -> int:
    """Length of a journal without a last line that was cut, or whose end never reached the disk."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    try:
        json.loads(content[start:end] or b"{}")
    except ValueError:
        return start
    return end


@contextmanager
def storage_failures(
    journal: Path | None = None, location: str | None = None, *, reading: bool = False
) -> Iterator[None]:
    """Turn what a storage raises into errors that say what to do; `reading` it, nothing else than it can be wrong."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename) if error.filename else journal or Path("the run's journal")
        raise write_failure(path, error) from error
    except (KeyError, TypeError, ValueError) as error:
        told = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        told = told or any(words in str(error) for words in ("log format", "integer string"))
        if journal is None or (isinstance(error, ValueError) and not (told or reading)):
            raise
        raise _damaged_journal(journal, error) from error
    except EngineError:
        raise
    except Exception as error:
        if is_storage_error(error):
            raise storage_error(location or "of the study", error) from error
        if journal is None or location is not None:
            raise
        raise _damaged_journal(journal, error) from error  # what a journal may hold is anything, and fails anyhow


def _damaged_journal(journal: Path, error: Exception) -> EngineError:
    return EngineError(
        f"The journal {journal} is damaged ({error or type(error).__name__}).",
        "Restore it from a backup; its intact lines can be copied to a new file.",
    )


def _quiet() -> None:
    """Optuna logs to the terminal on its own; a screen or a JSON stream must not be written over."""
    import optuna

    optuna.logging.disable_default_handler()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
