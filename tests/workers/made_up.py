"""A worker with a made-up engine: it claims trials of a study, scores them at once or after a while, and tells them."""

import json
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score
from heretic_tui.engine.runs.ownership import claimed, companions, gone
from heretic_tui.engine.storage.storages import storage_at
from heretic_tui.engine.study.search import Search, open_study
from heretic_tui.profile.schema import Profile

LAYERS = 30
COMPONENTS = ("attn.o_proj", "mlp.down_proj")
PROMPTS = 100
BASE = {"refusals": Score(0.9, 90, PROMPTS), "kl_divergence": Score(0.0)}


def settings(trials: int, storage: str | None = None, **changes: object) -> Profile:
    """The profile of a made-up study."""
    return Profile(**{"seed": 1, "n_trials": trials, "n_startup_trials": trials, "storage": storage, **changes})


def scored(parameters: AblationParameters) -> dict[str, Score]:
    """Scores with a trade-off that depend on the parameters alone."""
    kernels = parameters.kernels
    strength = kernels["attn.o_proj"].max_weight + kernels["mlp.down_proj"].max_weight
    count = round(PROMPTS * max(0.0, 1 - strength / 3))
    return {"refusals": Score(count / PROMPTS, count, PROMPTS), "kl_divergence": Score(strength**2 / 5)}


def search_in(
    folder: Path,
    profile: Profile,
    worker: str = "",
    *,
    alone: bool = False,
    gone: Callable[[str], bool | None] | None = None,
) -> Search:
    """The search of a worker of this name on the study of a folder."""
    journal = folder / "study.journal"
    storage = storage_at(profile.storage, journal)
    study = open_study(profile, journal, storage)
    search = Search(
        study,
        profile,
        storage=storage,
        worker=worker,
        device="cpu",
        gone=gone or (lambda name: False),
        others=lambda: companions(folder),
    )
    if alone:
        search.take_back(all_here=True)
    return search


def work(folder: Path, profile: Profile, seconds: float = 0.0) -> list[tuple[int, float]]:
    """Work until the study is done; gives each trial's number and what asking and telling it cost in seconds."""
    with claimed(folder) as owner:
        search = search_in(folder, profile, owner.name, gone=lambda name: gone(folder, name))
        return worked(search, seconds)


def worked(search: Search, seconds: float, until: float = math.inf, count: float = math.inf) -> list[tuple[int, float]]:
    """The trials that a search does until its study is done, a moment of the monotonic clock, or their count."""
    spent: list[tuple[int, float]] = []
    chance = random.Random(search.worker)
    while not search.done and time.monotonic() < until and len(spent) < count:
        began = time.perf_counter()
        suggestion = search.ask(COMPONENTS, LAYERS)
        asked = time.perf_counter() - began
        if suggestion is None:
            time.sleep(0.05)
            continue
        # As long as it takes on the average, but never all at the same moment.
        over = time.monotonic() + (chance.expovariate(1 / seconds) if seconds else 0.0)
        time.sleep(max(0.0, min(over, until) - time.monotonic()))
        if over > until:
            search.drop(suggestion)
            break
        began = time.perf_counter()
        refused = [index % 3 == 0 for index in range(PROMPTS)]
        record = search.tell(suggestion, scored(suggestion.parameters), BASE, seconds, counted={"refusals": refused})
        if record is not None:
            spent.append((record.trial, asked + time.perf_counter() - began))
    return spent


if __name__ == "__main__":
    place, asked_for, pause = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # all begin together, however long each took to get here
    done = work(Path(place), Profile.model_validate_json(asked_for), float(pause))
    sys.stdout.write(json.dumps(done) + "\n")
