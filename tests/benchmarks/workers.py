"""What many workers on one study cost: seconds of asking and telling a trial, by trials done and workers at it.

    python tests/benchmarks/workers.py [--workers 64 ...] [--places 0 10000 ...] [--seconds 600] [--pause 5] [--journal]

Workers are processes with a made-up engine on a PostgreSQL server of the benchmark's own, with its ordinary settings;
the sampler is random but for a few trials, which are timed apart, so that what is shown is the storage's share. All
share the cores of this machine with the server, so a figure for many workers says when that becomes too few. Every row
is a study that is filled up to its place with trials made in bulk, and then worked on.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))

import optuna
from made_up import BASE, COMPONENTS, LAYERS, scored, search_in, settings, work
from servers import postgres

from heretic_tui.engine.early_end import packed
from heretic_tui.engine.search import Search
from heretic_tui.engine.space import suggest
from heretic_tui.profile.schema import Profile

OWN = 3
"""Trials that each worker does at a place."""


def filled(search: Search, up_to: int) -> None:
    """Add finished trials to a study until it has so many, each in one step."""
    states = optuna.trial.TrialState
    for number in range(len(search.records) + 1, up_to + 1):
        made_up = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(seed=number))
        trial = made_up.ask()
        parameters = suggest(trial, COMPONENTS, LAYERS - 1)
        scores = scored(parameters)
        attributes = {
            "index": number,
            "direction_index": parameters.direction_index,
            "parameters": parameters.as_json(),
            "worker": "filler-1-1",
            "device": "cpu",
            "seconds": 1.0,
            "counted": packed({"refusals": [index % 3 == 0 for index in range(100)]}),
            "scores": [
                {"name": name, "score": score.as_json(), "baseline": BASE[name].as_json()}
                for name, score in scores.items()
            ],
        }
        search.study.add_trial(
            optuna.trial.create_trial(
                state=states.COMPLETE,
                values=[score.value for score in scores.values()],
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )


def one_worker(folder: Path, profile: Profile, pause: float, gate: "multiprocessing.synchronize.Barrier",
               results: "multiprocessing.Queue[list[float]]") -> None:  # fmt: skip
    """A worker's trials once all workers stand ready; gives what each but the first cost."""
    spent = work(folder, profile, pause, OWN, gate.wait)
    results.put([seconds for _, seconds in spent[1:]])


def together(folder: Path, profile: Profile, workers: int, pause: float) -> tuple[list[float], float]:
    """What a trial costs with so many workers at once, and how many trials a second they do."""
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(workers + 1), context.Queue()
    crew = [context.Process(target=one_worker, args=(folder, profile, pause, gate, results)) for _ in range(workers)]
    for one in crew:
        one.start()
    gate.wait()
    began = time.perf_counter()
    spent = [seconds for _ in crew for seconds in results.get()]
    rate = workers * OWN / (time.perf_counter() - began)
    for one in crew:
        one.join()
    return spent, rate


def sampling(search: Search) -> float:
    """Seconds that Optuna's sampler takes for a trial of this history, beside a random one."""
    costs = []
    for startup in (10**6, 0):
        search.profile = search.profile.model_copy(update={"n_startup_trials": startup})
        began = time.perf_counter()
        for _ in range(2):
            suggestion = search.ask(COMPONENTS, LAYERS)
            assert suggestion is not None
            search.drop(suggestion)
        costs.append((time.perf_counter() - began) / 2)
    return max(0.0, costs[1] - costs[0])


def measure(kind: str, url: str | None, counts: list[int], places: list[int], pause: float, until: float) -> None:
    """Print a table."""
    print(f"\n{kind}, {os.cpu_count()} cores, a trial takes {pause:g} s by itself\n")
    print(f"{'trials':>7}{'workers':>9}{'median s':>10}{'95% s':>8}{'trials/s':>10}{'of ideal':>10}"
          f"{'sampler s':>11}{'opening s':>11}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"{kind.split(maxsplit=1)[0].lower()}-{os.getpid()}"
        folder.mkdir()
        profile = settings(10**6, url, n_startup_trials=10**6)
        for place in sorted(places):
            if time.monotonic() > until:
                print("(the time is up)")
                return
            filled(search_in(folder, profile, alone=True), place)
            began = time.perf_counter()
            search = search_in(folder, profile, "looking-1-1", alone=True)
            opening = time.perf_counter() - began
            sampler = sampling(search)
            if url is not None:
                search._storage.engine.dispose()  # a connection is of one process alone
            for workers in counts:
                if time.monotonic() > until:
                    print("(the time is up)")
                    return
                spent, rate = together(folder, profile, workers, pause)
                spent.sort()
                print(f"{place:>7}{workers:>9}{statistics.median(spent):>10.3f}{spent[int(len(spent) * 0.95)]:>8.3f}"
                      f"{rate:>10.2f}{rate / (workers / pause) if pause else 0:>10.0%}{sampler:>11.2f}"
                      f"{opening:>11.1f}", flush=True)  # fmt: skip


def main() -> None:
    """Measure PostgreSQL, and the journal where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--places", type=int, nargs="+", default=[0, 1000, 10000], help="trials that are there before")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--journal", action="store_true")
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    if given.journal:
        measure("Journal", None, given.workers, given.places, given.pause, until)
        return
    with postgres("max_connections=300") as url:
        measure("PostgreSQL", url, given.workers, given.places, given.pause, until)


if __name__ == "__main__":
    main()
