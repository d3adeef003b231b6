"""The demo model under several real workers: a database and a proxy, a death in the middle, a pause for all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.runs.listing import list_runs
from heretic_tui.engine.runs.ownership import read_claims
from heretic_tui.engine.runs.requests import Request, ask
from heretic_tui.engine.runs.summary import summarize
from heretic_tui.engine.storage.front import pareto_front

PROGRAM = [sys.executable, "-m", "heretic_tui"]
SCORERS = ("KeywordRate", "KLDivergence", "Accuracy_accuracy_restricted", "Accuracy_accuracy_plain")
SETS = ("good_prompts", "bad_prompts", *(f"scorer.{one}.prompts" for one in SCORERS))
FEW = [option for prompts in SETS for option in ("--set", f"{prompts}.split=[:24]")]


@pytest.fixture
def begin(tmp_path):
    """Starts the program in a process of its own, what it says going to a file; ends what is left after the test."""
    started = []

    def start(*arguments):
        said = tmp_path / f"said-{len(started)}.txt"
        with said.open("wb") as file:
            command = [*PROGRAM, *map(str, arguments), "--runs-dir", tmp_path / "runs", "--json"]
            one = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        one.said = said
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.wait()


def until(true, *processes, seconds=240):
    """Wait until something is so, while these processes live; gives it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        for process in processes:
            assert process.poll() is None, process.said.read_text()
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)
    return found


def begun(tmp_path, *processes):
    """The run, once its start is measured."""
    run = until(lambda: next(iter(list_runs(tmp_path / "runs")), None), *processes)
    until(lambda: run.path.joinpath("baseline.json").is_file(), *processes)
    return run


def ended_well(process):
    assert process.wait(300) == 0, process.said.read_text()
    return [json.loads(line) for line in process.said.read_text().splitlines() if line.startswith("{")]


def test_four_workers_by_database_and_proxy_one_killed_in_the_middle(begin, tmp_path, database, proxy):
    study = begin("run", MODEL_DIR, "--profile", "demo", "--trials", 500, "--set", f"storage={database}", *FEW)
    run = begun(tmp_path, study)
    others = [begin("worker", run.name), *(begin("worker", run.name, "--storage", proxy) for _ in range(2))]
    doomed = others[-1]

    def at_work():
        trials = run.read_study().get_trials(deepcopy=False)
        return [t for t in trials if t.state.name == "RUNNING" and f"-{doomed.pid}-" in t.user_attrs.get("worker", "")]

    held = until(lambda: len(read_claims(run.path)) == 4 and at_work(), *others)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    # Before few are left to do: who has nothing to do any more is not there any more.
    assert {claim.owner.process for claim in read_claims(run.path)} >= {doomed.pid}
    at_it = summarize(run).told
    assert all(f"process {process.pid}" in at_it for process in (study, *others[:2]))
    assert f"process {doomed.pid}" not in at_it
    wanted = 12 + max(trial.user_attrs.get("index", 0) for trial in run.read_study().get_trials(deepcopy=False))
    run.want(wanted)
    for process in (study, others[0], others[1]):
        assert ended_well(process)[-1]["event"] == "study_finished"

    records = run.records()
    assert sorted(record.trial for record in records) == list(range(1, wanted + 1))
    assert summarize(run).state == "finished"
    assert not read_claims(run.path)
    redone = [record for record in records if record.trial == held[0].user_attrs["index"]]
    assert len(redone) == 1
    assert len({record.worker for record in records}) >= 3
    told = Counter(
        event["trial"]
        for line in (run.path / "log.txt").read_text().splitlines()
        if (event := json.loads(line.partition(" ")[2]))["event"] == "trial_finished"
    )
    assert max(told.values()) == 1
    front = pareto_front(records, run.profile.objectives)
    base = run.base_scores()["refusals"].value
    assert front[0].scores["refusals"].value < base / 2
    assert not any(record.ended_early for record in front)


def test_workers_that_one_command_starts_pause_together_and_go_on_to_exactly_the_number(begin, tmp_path):
    study = begin("run", MODEL_DIR, "--profile", "demo", "--trials", 200, "--workers", 2, *FEW)
    run = begun(tmp_path, study)
    until(lambda: len({record.worker for record in run.records()}) == 2, study)
    assert len(ask(run.path, Request("pause"))) == 2
    assert study.wait(180) == 1
    assert "paused" in study.said.read_text()
    assert not read_claims(run.path)
    assert summarize(run).state == "paused"
    done = len(run.records())
    again = begin("run", "--resume", run.name, "--trials", done + 3, "--workers", 2)
    assert ended_well(again)[-1]["trials"] == done + 3
    # Several draw from the next few numbers: one that is beyond what is wanted now counts as well.
    numbers = [record.trial for record in run.records()]
    assert len(numbers) == len(set(numbers)) == done + 3
