"""The search: Optuna's ask and tell over the reference tool's search space, and the Pareto front.

Parameter and attribute names in the journal are the reference tool's, so that each side reads the other's
studies and `optuna-dashboard` shows them.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.storage.early_end import Counted, Tally, beaten, packed
from heretic_tui.engine.storage.front import pareto_front
from heretic_tui.engine.storage.slots import WORKER, Signs, claim, give_back, let_fall, over
from heretic_tui.engine.storage.space import SUBSPACE, objective_values, suggest
from heretic_tui.engine.storage.storages import HEARTBEAT, INDEX, heartbeats, quiet_optuna, storage_at, storage_failures
from heretic_tui.engine.storage.studies import PAUSE, STUDY_NAME, counted_of, finished, record_of, want, wanted
from heretic_tui.profile.schema import KLDivergenceSpec, Profile, RefusalsSpec

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

IDENTITY = "identity"
"""The attribute of a study that tells what its workers have in common."""
LOOK = 2.0
"""Seconds between two looks, within a trial, at what other workers have finished."""
SHARE = 30
"""How many times as long as a look took there is none."""


class StudyExists(EngineError):
    """A new study would bear the name of one that its storage has."""


@dataclass(frozen=True)
class Suggestion:
    """What the sampler wants to try next, as trial number `trial`."""

    trial: int
    parameters: AblationParameters
    handle: "optuna.trial.Trial"


class Search:
    """A study that this process works on, alone or as one of several workers: asks, tells, and knows the front.

    `gone` tells whether a worker lives no more, or None where that is not known; `others` how many more are known of.
    """

    def __init__(
        self,
        study: "optuna.Study",
        profile: Profile,
        *,
        storage: "BaseStorage | None" = None,
        worker: str = "",
        device: str = "",
        gone: Callable[[str], bool | None] = lambda worker: False,
        others: Callable[[], int] = lambda: 0,
    ) -> None:
        self.study = study
        self.profile = profile
        self.worker = worker
        self.records: list[TrialRecord] = []
        self.tally = Tally()
        self._storage = storage
        self._device = device
        self._gone = gone
        self._others = others
        self._front: list[TrialRecord] = []
        self._known: set[int] = set()
        self._news: list[TrialRecord] = []
        self._signs = Signs()
        self._look_again = self._listened = 0.0
        self._beating = ExitStack()
        self.refresh()
        self._news.clear()
        self._pauses = self._pauses_asked()

    def ask(self, components: Sequence[str], layers: int) -> Suggestion | None:
        """Sample the parameters of the next trial for a model of `layers` decoder layers.

        None while other workers have all the trials that are left.
        """
        import optuna

        with storage_failures():
            # A sampler of its own for every trial, seeded by its number: a resumed study goes on as if never stopped.
            self.study.sampler = _seeded_sampler(self.profile)
            trials = self._cleared()
            handle, trials = claim(self.study, trials, self.wanted, self.worker, self._device, self._others())
            self._take_in(trials)
            if handle is None:
                return None
            self._beating.close()
            try:
                if self._storage is not None:
                    self._beating.enter_context(heartbeats(self._storage, self.study.study_name, handle.number))
                return self._sampled(handle, components, layers)
            except optuna.exceptions.UpdateFinishedTrialError:
                self._beating.close()  # it was given to another
                return None
            except BaseException:
                self._beating.close()
                let_fall(self.study, handle.number)
                raise

    def _sampled(self, handle: "optuna.trial.Trial", components: Sequence[str], layers: int) -> Suggestion:
        style, dimensions = style_of(self.profile), self.profile.subspace_dimensions
        parameters = suggest(handle, style.sampled(components), layers - 1, dimensions, style.layers)
        handle.set_user_attr("direction_index", parameters.direction_index)
        handle.set_user_attr("parameters", parameters.as_json())
        if parameters.subspace_dimensions != 1:
            handle.set_user_attr(SUBSPACE, parameters.subspace_dimensions)
        return Suggestion(handle.user_attrs[INDEX], parameters, handle)

    def _cleared(self) -> "list[FrozenTrial]":
        """The trials of the study, after those were given back that nobody works on any more."""
        import optuna

        now = time.monotonic()
        if now - self._listened > HEARTBEAT / 3:
            self._listened = now
            optuna.storages.fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        return self.study.get_trials(deepcopy=False) if give_back(self.study, trials, self._without_worker) else trials

    def _without_worker(self, trial: "FrozenTrial") -> bool:
        """Whether nobody works on a running trial any more, as far as can be told here."""
        known = self._gone_from(trial)
        if known is not None:
            return known
        # One that took the trial and has put no name to it yet, one whose claim is not seen, or one that comes from
        # elsewhere: it is there as long as it gives signs.
        return self._signs.silent(trial)

    def _gone_from(self, trial: "FrozenTrial") -> bool | None:
        worker = trial.user_attrs.get(WORKER)
        return None if worker is None else self._gone(worker)

    def take_back(self, *, all_here: bool) -> None:
        """Free at once the trials that an earlier session left; where `all_here`, also those of unknown workers."""
        import optuna

        with storage_failures():
            for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                known = self._gone_from(trial)
                own = trial.user_attrs.get(WORKER) == self.worker  # a session of this very process that failed
                if own or known or (known is None and all_here):
                    let_fall(self.study, trial.number)

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
    ) -> TrialRecord | None:
        """Write a trial's scores, beside the original model's, to the journal; from then on nothing can lose it.

        None where the trial was given to another worker, because this one was silent for too long.

        Of a trial that ended early the sampler is told the bounds: another trial is better than even these, so that it
        learns what it is to learn, to stay away.
        """
        timing = {name: round(value, 3) for name, value in (timing or {}).items()}
        attributes = self._attributes(scores, base) | {"seconds": round(seconds, 3)}
        attributes |= {"counted": packed(counted)} if counted else {}
        attributes |= {"timing": timing} if timing else {}
        attributes |= {"censored": True} if ended_early else {}
        values = self._told(objective_values(self.profile, scores, base))
        with storage_failures():
            told = self._write(suggestion.handle, attributes, values)
        self._beating.close()
        if not told:
            return None
        self._known.add(suggestion.handle.number)
        record = TrialRecord(
            suggestion.trial, suggestion.parameters, scores, seconds, ended_early, timing, self.worker, self._device
        )
        self._take(record, counted or {})
        return record

    def _write(self, handle: "optuna.trial.Trial", attributes: Mapping[str, Any], values: Sequence[float]) -> bool:
        import optuna

        try:
            for name, value in attributes.items():
                handle.set_user_attr(name, value)
            self.study.tell(handle, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        except ValueError:
            if not over(self.study, handle.number):
                raise
            return False
        return True

    def holds(self, suggestion: Suggestion) -> bool:
        """Whether a trial is still this worker's to tell."""
        with storage_failures():
            return not over(self.study, suggestion.handle.number)

    def beaten(self, bounds: Mapping[str, Score]) -> bool:
        """Whether a trial whose scores can become no better than these bounds can no longer come to the front."""
        if time.monotonic() >= self._look_again:
            self.refresh()
        return beaten(bounds, self._front, self.profile.objectives)

    def refresh(self) -> None:
        """Take in what other workers have finished."""
        began = time.monotonic()
        with storage_failures():
            self._take_in(self.study.get_trials(deepcopy=False))
        # Of a database with many workers a look takes long: it must stay a small part of the time.
        now = time.monotonic()
        self._look_again = now + max(LOOK, SHARE * (now - began))

    def _take_in(self, trials: "Sequence[FrozenTrial]") -> None:
        for trial in finished(trials):
            if trial.number not in self._known:
                self._known.add(trial.number)
                record = record_of(trial)
                self._take(record, counted_of(trial))
                self._news.append(record)

    def news(self) -> list[TrialRecord]:
        """The trials of other workers that were taken in since the last call."""
        news, self._news = self._news, []
        return news

    @property
    def done(self) -> bool:
        """Whether all trials that the study is to have are finished, as far as was read."""
        return len(self.records) >= self.wanted

    def asked_to_pause(self) -> bool:
        """Whether somebody has asked all workers of the study to pause since this one began."""
        with storage_failures():
            return self._pauses_asked() != self._pauses

    def _pauses_asked(self) -> int:
        return int(self.study.user_attrs.get(PAUSE, 0))

    def _take(self, record: TrialRecord, counted: Counted) -> None:
        self.records.append(record)
        self.tally.add(counted)
        # A trial that is not on the front never comes back to it, so the front and the new one are enough.
        self._front = pareto_front([*self._front, record], self.profile.objectives)

    def drop(self, suggestion: Suggestion) -> None:
        """Close a trial that was stopped halfway."""
        self._beating.close()
        with storage_failures():
            let_fall(self.study, suggestion.handle.number)

    def front(self) -> list[TrialRecord]:
        """The trials of the Pareto front, fewest refusals (or best first objective) first."""
        return list(self._front)

    def on_front(self, record: TrialRecord) -> bool:
        """Whether a trial is on the front."""
        return any(found.trial == record.trial for found in self._front)

    def close(self) -> None:
        """Give no more signs of life."""
        self._beating.close()

    def give_back(self) -> None:
        """Free the trials of workers that are gone."""
        with storage_failures():
            self._cleared()

    @property
    def sketch(self) -> dict[str, Any] | None:
        """What the workers of the study have in common; None before the first."""
        with storage_failures():
            found: dict[str, Any] | None = self.study.user_attrs.get(IDENTITY)
        return found

    def set_sketch(self, sketch: Mapping[str, Any]) -> None:
        """Keep what the workers of the study are to have in common."""
        with storage_failures():
            self.study.set_user_attr(IDENTITY, dict(sketch))

    def set_finished(self, finished: bool) -> None:
        """Note in the study whether the wanted number of trials is reached."""
        with storage_failures():
            self.study.set_user_attr("finished", finished)

    @property
    def wanted(self) -> int:
        """How many trials the study is to have."""
        with storage_failures():
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


def _seeded_sampler(profile: Profile) -> "optuna.samplers.BaseSampler":
    """The sampler of a study."""
    from heretic_tui.engine.storage.sampling import SeededSampler

    return SeededSampler(profile)


def open_study(
    profile: Profile, journal: Path, storage: "BaseStorage | None" = None, *, new: bool = False
) -> "optuna.Study":
    """Open or create the study in the run's journal or in the storage that the profile names; or in one that is open.

    Raises `EngineError` for a damaged journal, and `StudyExists` where a `new` one has the name of another.
    """
    import optuna

    quiet_optuna()
    ways = optuna.study.StudyDirection
    directions = [ways.MAXIMIZE if spec.optimization == "maximize" else ways.MINIMIZE for spec in profile.objectives]
    with storage_failures(journal, profile.storage):
        name = STUDY_NAME if profile.storage is None else journal.parent.name
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage or storage_at(profile.storage, journal),
                directions=directions,
                load_if_exists=not new,
                sampler=_seeded_sampler(profile),
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise StudyExists(
                f"The storage has a study {name} already.",
                f"Work on that one with: heretic-tui worker {name} --storage URL; or call the profile otherwise.",
            ) from error
        if "settings" not in study.user_attrs:
            study.set_user_attr("settings", profile.model_dump_json(exclude={"storage"}))
            study.set_user_attr("finished", False)
    return study
