"""Which sampler finds the better front: `python tests/benchmarks/samplers.py MODEL PROFILE [options]`.

A study for every sampler and seed on one loaded model; what is compared is the area that the front covers between no
refusals at no KL divergence (1) and all refusals, or as much divergence as `--kl` says (0): after a number of trials,
and after a number of seconds since the first trial began. The seconds are the processor's, of all its threads, so that
other work on the machine does not stretch them; `OMP_NUM_THREADS=1` makes them those of a clock. Short answers make a
trial cheap:

    python tests/benchmarks/samplers.py heretic_tui/demo/demo-llama demo
    python tests/benchmarks/samplers.py SMOLLM2 tests/end_to_end/disclaimers.toml --set max_response_length=24
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from heretic_tui.engine.events import TrialFinished, TrialStarted
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import start_study
from heretic_tui.engine.storage.front import hypervolume
from heretic_tui.profile import store
from heretic_tui.profile.schema import KLDivergenceSpec

SAMPLERS = {
    "reference": ["n_startup_trials=60", "n_ei_candidates=128", "multivariate=true"],
    "random": ["n_startup_trials=1000000"],
    "TPE, start-up 10": ["n_startup_trials=10", "n_ei_candidates=128", "multivariate=true"],
    "TPE, start-up 20": ["n_startup_trials=20", "n_ei_candidates=128", "multivariate=true"],
    "univariate, 10": ["n_startup_trials=10", "n_ei_candidates=128", "multivariate=false"],
    "univariate, 20": ["n_startup_trials=20", "n_ei_candidates=128", "multivariate=false"],
    "TPE, 10, 24 candidates": ["n_startup_trials=10", "n_ei_candidates=24", "multivariate=true"],
    "GP, start-up 10": ["n_startup_trials=10", "sampler=gp"],
}


def study(session, model, profile):
    """The trials of one study with the seconds, since the first began, when each was finished; and the objectives."""
    began, found = None, []
    with tempfile.TemporaryDirectory() as folder:
        for event in start_study(model, profile, "sampler", Path(folder), load=session.load):
            if isinstance(event, TrialStarted) and began is None:
                began = time.process_time()
            if isinstance(event, TrialFinished):
                found.append((event.record, time.process_time() - began))
    kl = next(spec for spec in profile.objectives if isinstance(spec, KLDivergenceSpec))
    return found, [next(spec for spec in profile.objectives if spec is not kl), kl]


def area(found, objectives, limit):
    """Area under the front, of 1."""
    return hypervolume([record for record, _ in found], objectives, (1.0, limit)) / limit


def main() -> None:
    """Print two rows for each sampler: mean area after so many trials, and after so many seconds."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    asked.add_argument("model")
    asked.add_argument("profile")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--trials", type=int, default=100)
    asked.add_argument("--kl", type=float, default=1.0, help="divergence that counts as much as all refusals")
    asked.add_argument("--set", action="append", default=[], help="a setting for all, NAME=VALUE")
    asked.add_argument("--only", help="samplers, separated by semicolons")
    given = asked.parse_args()
    counts = [given.trials * part // 5 for part in range(1, 6)]
    print(f"{Path(given.model).name}, {given.profile} {' '.join(given.set)}, {given.trials} trials, "
          f"seeds 1 to {given.seeds}, KL to {given.kl}")  # fmt: skip
    print(f"{'after trials':33}" + "".join(f"{count:>14}" for count in counts), flush=True)
    session, seconds = Session(), []
    for name, settings in SAMPLERS.items():
        if given.only and name not in given.only.split(";"):
            continue
        runs = []
        for seed in range(1, given.seeds + 1):
            settings_of_all = [*given.set, f"n_trials={given.trials}", f"seed={seed}"]
            profile = store.resolve(given.profile, [*settings_of_all, *settings]).profile
            runs.append(study(session, given.model, profile))
        # The clock of the first sampler sets the seconds at which all are compared.
        whole = statistics.mean(found[-1][1] for found, _ in runs)
        seconds = seconds or [whole * part / 5 for part in range(1, 6)]
        by_trials = [[area(found[:count], aims, given.kl) for found, aims in runs] for count in counts]
        by_seconds = [
            [area([one for one in found if one[1] <= limit], aims, given.kl) for found, aims in runs]
            for limit in seconds
        ]
        for label, rows in (("trials", by_trials), ("seconds", by_seconds)):
            cells = [f"{statistics.mean(row):.4f} ±{statistics.stdev(row) if len(row) > 1 else 0:.3f}" for row in rows]
            print(f"{name:24} {label:8}" + "".join(f"{cell:>14}" for cell in cells))
        told = ", ".join(f"{limit:.0f}" for limit in seconds)
        print(f"{'':24} seconds: {told}; a study took {whole:.0f}", flush=True)


if __name__ == "__main__":
    main()
