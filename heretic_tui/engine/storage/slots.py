"""Who runs which trial: numbers are claimed through the storage, so that no two workers ever count for the same one.

A slot is a trial of Optuna's with a number of ours in its attributes from the moment it is made. Making a slot and
setting it from waiting to running are Optuna's own atomic steps. Two workers may make slots of the same number at the
same time; of these the one that was made first holds the number, and whoever claims another lets it fall. So at most
one trial of a number can ever be told: for a later slot to hold it, all earlier ones must have failed, and a trial
that has failed can never be told.
"""

import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from heretic_tui.engine.storage.storages import INDEX, PULSE

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

WORKER = "worker"
DEVICE = "device"
UNHEARD = 60.0
"""Seconds without a change after which a trial whose worker is not known counts as given up."""
BETWEEN = 5.0
"""Seconds after which a worker that was at a trial and is at none any more counts as gone."""


class Signs:
    """How long workers have given no sign of life, as far as somebody has looked: nobody's clock is asked."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[object, float]] = {}
        self._at: dict[str, tuple[int, float]] = {}

    def silent(self, trial: "FrozenTrial") -> bool:
        """Whether a trial's worker has given none for too long."""
        now, sign = time.monotonic(), (trial.user_attrs.get(WORKER), trial.user_attrs.get(PULSE))
        last = self._last.get(trial.number)
        if last is None or last[0] != sign:
            last = self._last[trial.number] = sign, now
        return now - last[1] > UNHEARD

    def lately(self, at: "dict[str, int]") -> "dict[str, int]":
        """Who is at which trial; with those who were a moment ago, since a worker is at none between two of its own."""
        now = time.monotonic()
        self._at |= {worker: (trial, now) for worker, trial in at.items()}
        self._at = {worker: (trial, seen) for worker, (trial, seen) in self._at.items() if now - seen <= BETWEEN}
        return {worker: trial for worker, (trial, _) in self._at.items()}


def holders(trials: "Iterable[FrozenTrial]") -> "dict[int, FrozenTrial]":
    """The trial that holds each number: of those that have not failed, the one that was made first."""
    import optuna

    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        number = trial.user_attrs.get(INDEX)
        if number is None or trial.state == optuna.trial.TrialState.FAIL:
            continue
        if number not in found or trial.number < found[number].number:
            found[number] = trial
    return found


def claim(
    study: "optuna.Study", trials: "list[FrozenTrial]", wanted: int, worker: str, device: str, others: int = 0
) -> "tuple[optuna.trial.Trial | None, list[FrozenTrial]]":
    """Take the next number that nobody holds; None where all that are wanted are taken.

    `trials` are those of the study as they were read last; gives them as they were read then. Of a database every
    reading costs as much as several writings, so none is done twice. `others` is how many other workers are known of.
    """
    import optuna

    states = optuna.trial.TrialState
    while True:
        held = holders(trials)
        # Who is alone takes the numbers in their order. Several draw from the next few, or all would want the same one.
        rivals = max(others, sum(trial.state == states.RUNNING for trial in held.values()))
        if numbers := _free(held, wanted, 1 + 3 * rivals):
            # Everyone adds what it takes away, so that the queue is never empty for somebody else.
            number = random.choice(numbers)
            study.add_trial(optuna.trial.create_trial(state=states.WAITING, user_attrs={INDEX: number}))
        elif not any(trial.state == states.WAITING for trial in held.values()):
            return None, trials
        taken = study.ask()
        trials = study.get_trials(deepcopy=False)
        own = next((number for number, holder in holders(trials).items() if holder.number == taken.number), None)
        if own is not None and own <= wanted:
            # One that was queued again bears the name of its dead worker until now, and may have been freed for that.
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                taken.set_user_attr(WORKER, worker)
                taken.set_user_attr(DEVICE, device)
                return taken, trials
        let_fall(study, taken.number)
        trials = study.get_trials(deepcopy=False)


def _free(held: "dict[int, FrozenTrial]", wanted: int, most: int) -> list[int]:
    free = (number for number in range(1, wanted + 1) if number not in held)
    # Where fewer are wanted than once were, trials of higher numbers count as well.
    return list(islice(free, max(0, min(most, wanted - len(held)))))


def let_fall(study: "optuna.Study", trial: int) -> None:
    """Close a trial without a result, so that its number is free again; one that is closed already stays as it is."""
    import optuna

    try:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        return
    except ValueError:
        if not over(study, trial):
            raise


def over(study: "optuna.Study", trial: int) -> bool:
    """Whether a trial is told or has failed, by whomever."""
    return any(one.number == trial and one.state.is_finished() for one in study.get_trials(deepcopy=False))


def give_back(study: "optuna.Study", trials: "Iterable[FrozenTrial]", gone: Callable[["FrozenTrial"], bool]) -> bool:
    """Free the numbers of workers that are gone; gives whether there were any."""
    import optuna

    found = [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING and gone(trial)]
    for trial in found:
        let_fall(study, trial.number)
    return bool(found)
