"""What many workers on one study cost: seconds of asking and telling a trial, by trials done and workers at it.

    python tests/benchmarks/workers.py [--workers 64 ...] [--places 0 10000 ...] [--pause 20] [--window 120]
                                       [--seconds 600] [--storage postgresql|journal|proxy]

Workers are processes with a made-up engine on a PostgreSQL server of the benchmark's own, with its ordinary settings;
the sampler is random but for a few trials, which are timed apart, so that what is shown is the storage's share. Every
row is a study that is filled up to its place with trials made in bulk, and then worked on: first by one worker alone,
while as many trials as there are others are under way, which is what each pays on a machine of its own; then by all of
them on this machine, whose cores they share with the server.
"""

import argparse
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))

import optuna
import psutil
from made_up import BASE, COMPONENTS, LAYERS, scored, search_in, settings, worked
from optuna.storages import RDBStorage
from servers import grpc_proxy, postgres

from heretic_tui.engine.runs.ownership import claimed, companions, gone
from heretic_tui.engine.storage.early_end import packed
from heretic_tui.engine.storage.space import suggest
from heretic_tui.engine.study.search import Search
from heretic_tui.profile.schema import Profile

OWN = 20
"""Trials by which is measured what one costs a worker that has its machine to itself."""


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


def one_worker(folder: Path, study: Search | Profile, pause: float, window: float,
               gate: "multiprocessing.synchronize.Barrier", results: "multiprocessing.Queue[list[float]]",
               ) -> None:  # fmt: skip
    """A worker's trials in a window of seconds that begins once all stand ready; gives what each cost."""
    with claimed(folder) as owner:
        if isinstance(study, Search):
            search = study
            search.worker = owner.name
            search._gone, search._others = lambda name: gone(folder, name), lambda: companions(folder)
        else:
            search = search_in(folder, study, owner.name, gone=lambda name: gone(folder, name))
        gate.wait()
        spent = worked(search, pause, time.monotonic() + window)
    results.put([seconds for _, seconds in spent])


def together(folder: Path, study: Search | Profile, workers: int, pause: float, window: float) -> list[list[float]]:
    """What each trial of each worker costs, with so many at once for `window` seconds.

    All begin at the same moment, so the first trials cost more than those that follow.
    Given a search, all of them are forked from it: on as many machines each would open the study by itself, but on the
    cores of one that takes longer than all that is to be measured. Given a profile, each opens the study anew.
    """
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(workers + 1), context.Queue()
    gc.freeze()  # a collection in each would copy the memory that all share
    given = folder, study, pause, window, gate, results
    crew = [context.Process(target=one_worker, args=given) for _ in range(workers)]
    for one in crew:
        one.start()
    gate.wait()
    spent = [results.get() for _ in crew]
    for one in crew:
        one.join()
    return spent


def beside(search: Search, others: int) -> tuple[float, float]:
    """What a trial costs a worker that has its machine to itself while others are at a trial each.

    Gives seconds of the worker and, of them, of the server's processor.
    """
    held = [asked for _ in range(others) if (asked := search.ask(COMPONENTS, LAYERS)) is not None]
    worked(search, 0.0, count=1)
    before = _server_seconds()
    spent = [seconds for _, seconds in worked(search, 0.0, count=OWN)]
    server = (_server_seconds() - before) / OWN
    for suggestion in held:
        search.drop(suggestion)
    return statistics.median(spent), server


def _server_seconds() -> float:
    servers = (one for one in psutil.process_iter(["name"]) if one.info["name"] == "postgres")
    return sum(sum(one.cpu_times()[:2]) for one in servers)


def sampling(search: Search) -> float:
    """Seconds that Optuna's sampler takes for a trial of this history, beside a random one."""
    costs = []
    profile = search.profile
    for startup in (10**6, 0):
        search.profile = profile.model_copy(update={"n_startup_trials": startup})
        began = time.perf_counter()
        for _ in range(2):
            suggestion = search.ask(COMPONENTS, LAYERS)
            assert suggestion is not None
            search.drop(suggestion)
        costs.append((time.perf_counter() - began) / 2)
    search.profile = profile
    return max(0.0, costs[1] - costs[0])


def measure(url: str | None, by: str | None, given: argparse.Namespace) -> None:
    """Print a table of a study at a URL, or in a journal, where workers come to it `by` another address."""
    until = time.monotonic() + given.seconds
    print(f"\n{given.storage}, {os.cpu_count()} cores, a trial takes {given.pause:g} s by itself\n")
    print(f"{'trials':>7}{'workers':>9}{'alone s':>9}{'server s':>10}{'first s':>9}{'median s':>10}{'95% s':>8}"
          f"{'trials/s':>10}{'of ideal':>10}{'sampler s':>11}{'opening s':>11}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        folder.mkdir()
        profile = settings(10**6, url, n_startup_trials=10**6)
        for place in sorted(given.places):
            if time.monotonic() > until:
                print("(the time is up)")
                return
            filled(search_in(folder, profile, alone=True), place)
            began = time.perf_counter()
            search = search_in(folder, profile, "looking-1-1", alone=True)
            opening = time.perf_counter() - began
            sampler = sampling(search)
            # A journal and a proxy know processes apart by what each is given when it opens them.
            study = search if url and not by else profile.model_copy(update={"storage": by})
            for workers in given.workers:
                if time.monotonic() > until:
                    print("(the time is up)")
                    return
                alone, server = beside(search, workers - 1)
                search.close()
                if isinstance(search._storage, RDBStorage):
                    search._storage.engine.dispose()  # a connection is of one process alone
                spent = together(folder, study, workers, given.pause, given.window)
                first = statistics.median(one[0] for one in spent if one)
                later = sorted(seconds for one in spent for seconds in one[1:])
                rate = sum(map(len, spent)) / given.window
                print(f"{place:>7}{workers:>9}{alone:>9.3f}{server:>10.3f}{first:>9.2f}{statistics.median(later):>10.3f}"
                      f"{later[int(len(later) * 0.95)]:>8.3f}"
                      f"{rate:>10.2f}{rate * given.pause / workers:>10.0%}{sampler:>11.2f}"
                      f"{opening:>11.1f}", flush=True)  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--places", type=int, nargs="+", default=[0, 1000, 10000], help="trials that are there before")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--pause", type=float, default=20.0, help="seconds that a trial takes by itself, on average")
    parser.add_argument("--window", type=float, default=120.0, help="seconds that each row is measured for")
    parser.add_argument("--storage", choices=["postgresql", "journal", "proxy"], default="postgresql")
    given = parser.parse_args()
    if given.storage == "journal":
        measure(None, None, given)
        return
    with ExitStack() as servers:
        url = servers.enter_context(postgres("max_connections=300"))
        proxy = servers.enter_context(grpc_proxy(url)) if given.storage == "proxy" else None
        measure(url, proxy, given)


if __name__ == "__main__":
    main()
