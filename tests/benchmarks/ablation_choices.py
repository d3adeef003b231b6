"""Which ways to ablate find the better front: `python tests/benchmarks/ablation_choices.py MODEL PROFILE [options]`.

Every choice is a study of its own for every seed; what is compared is the area that the front covers between no
refusals at no KL divergence (1) and all refusals, or as much divergence as `--kl` says (0). The choices differ from the
profile in one setting each. Seeds are the same for all, so that differences can be taken seed by seed:

    python tests/benchmarks/ablation_choices.py heretic_tui/demo/demo-llama demo --seeds 3 --trials 40
    python tests/benchmarks/ablation_choices.py SMOLLM2 tests/end_to_end/disclaimers.toml --seeds 3 --trials 40
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import start_study
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.storage.front import hypervolume
from heretic_tui.profile import store

CHOICES = {
    "as the profile says": [],
    "rows none": ["row_normalization=none"],
    "rows full": ["row_normalization=full"],
    "columns": ["row_normalization=columns"],
    "not orthogonalized": ["orthogonalize_direction=false"],
    "three directions": ["subspace_dimensions=3"],
    "searched directions": ["subspace_dimensions=search"],
    "two passes": ["passes=2"],
    "geometric median": ["direction_estimator=geometric_median"],
    "one at a time": ["sequential_extraction=true"],
}


def volume(session, model, profile, limit):
    """Area under the front of one study, of 1, and its fewest refusals within the limit of divergence."""
    with tempfile.TemporaryDirectory() as folder:
        *_, finished = start_study(model, profile, "choice", Path(folder), load=session.load)
        records = Run(finished.path).records()
    kl = next(spec for spec in profile.objectives if "kl" in spec.name)
    others = [spec for spec in profile.objectives if spec is not kl]
    near = [one.scores[others[0].name].value for one in records if one.scores[kl.name].value < limit]
    return hypervolume(records, [others[0], kl], (1.0, limit)) / limit, min(near, default=1.0)


def main() -> None:
    """Print a row for each choice: mean area, its spread over the seeds, the difference from the profile's own."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    asked.add_argument("model")
    asked.add_argument("profile")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--trials", type=int, default=40)
    asked.add_argument("--kl", type=float, default=1.0, help="divergence that counts as much as all refusals")
    asked.add_argument("--only", help="choices, separated by commas; the profile's own is always there")
    given = asked.parse_args()
    names = [name for name in CHOICES if not given.only or name in given.only.split(",") or not CHOICES[name]]
    session, own = Session(), []
    print(f"{Path(given.model).name}, {given.profile}, {given.trials} trials, seeds 1 to {given.seeds}, "
          f"KL to {given.kl}")  # fmt: skip
    print(f"{'choice':22} {'area':>7} {'spread':>7} {'difference':>11} {'better':>7} {'refusals':>9}")
    for name in names:
        changes = [*CHOICES[name], f"n_trials={given.trials}"]
        found = []
        for seed in range(1, given.seeds + 1):
            profile = store.resolve(given.profile, [*changes, f"seed={seed}"]).profile
            found.append(volume(session, given.model, profile, given.kl))
        areas = [area for area, _ in found]
        own = own or areas
        apart = [area - other for area, other in zip(areas, own, strict=True)]
        spread = statistics.stdev(areas) if len(areas) > 1 else 0.0
        better = f"{sum(one > 0 for one in apart)}/{len(apart)}"
        print(f"{name:22} {statistics.mean(areas):7.4f} {spread:7.4f} {statistics.mean(apart):+11.4f} {better:>7} "
              f"{statistics.mean(least for _, least in found):9.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
