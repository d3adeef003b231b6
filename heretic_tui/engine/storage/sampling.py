"""A sampler whose randomness is that of the trial, not of the process: seeded anew for every trial by its number."""

import warnings
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial

from heretic_tui.engine.storage.storages import INDEX
from heretic_tui.profile.schema import Profile


class SeededSampler(BaseSampler):
    """Optuna's TPE or GP; whichever worker asks, a trial of the same number on the same history samples the same."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._inner = _sampler(profile, 0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin a trial with its own seed."""
        self._inner = _sampler(self._profile, int(trial.user_attrs.get(INDEX, 0)))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is sampled together."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample together."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


def _sampler(profile: Profile, trial: int) -> BaseSampler:
    seed = None if profile.seed is None else _seed(profile.seed, trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if profile.sampler == "gp":
            # Greedy decoding gives the same scores every time.
            return GPSampler(seed=seed, n_startup_trials=profile.n_startup_trials, deterministic_objective=True)
        return TPESampler(
            seed=seed,
            n_startup_trials=profile.n_startup_trials,
            n_ei_candidates=profile.n_ei_candidates,
            multivariate=profile.multivariate,
        )


def _seed(seed: int, trial: int) -> int:
    """A seed for one trial; mixed, so that studies with neighbouring seeds do not share trials."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
