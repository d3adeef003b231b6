"""The demo study killed by SIGKILL in every phase, and gone on with each time: nothing shows that it ever was."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.run import Run, list_runs

SEED = int(os.environ.get("KILLS_SEED", "1"))
TRIALS = 8
PROFILE = f"""
n_trials = {TRIALS}
n_startup_trials = 3
seed = 5
batch_size = 6
response_prefix = ""
max_response_length = 12
save_residuals = true
reuse_measurements = false
[good_prompts]
dataset = "demo:plain_train"
column = "prompt"
split = "train[:10]"
[bad_prompts]
dataset = "demo:restricted_train"
column = "prompt"
split = "train[:10]"
[scorer.KeywordRate.prompts]
dataset = "demo:restricted_test"
column = "prompt"
split = "train[:10]"
[scorer.KLDivergence.prompts]
dataset = "demo:plain_test"
column = "prompt"
split = "train[:10]"
"""


class Nursery:
    """Starts sessions of the command line in an instant."""

    def __init__(self, folder):
        environment = {
            **os.environ,
            **{f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "STATE")},
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.errors = (folder / "errors.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )

    def start(self, *arguments, **more):
        """Begin a session; gives it once it runs."""
        order = {"arguments": [*map(str, arguments), "--json"], **more}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        session = Session(self)
        session.number = next(row["child"] for row in session.rows() if "child" in row)
        return session

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.errors.close()


@dataclass
class Session:
    """One session of the command line, and the events that it has told."""

    nursery: Nursery
    number: int = 0
    events: list = field(default_factory=list)
    times: list = field(default_factory=list)
    ended: int | None = None

    def rows(self):
        """What it tells, to its end."""
        while self.ended is None:
            line = self.nursery.process.stdout.readline()
            assert line, "the nursery has died"
            try:
                row = json.loads(line)
            except ValueError:
                continue  # half a line of one that was killed, or none
            self.ended = row.get("ended")
            yield row

    def told(self):
        """The events that are to come."""
        for row in self.rows():
            if "event" in row:
                self.events.append(row)
                self.times.append(time.monotonic())
                yield row

    def whole(self):
        """Read it to its end; gives its events."""
        began = time.monotonic()
        self.times = []
        for _ in self.told():
            pass
        self.times = [at - began for at in self.times]
        return self.events

    def killed(self, after, delay):
        """Kill it so many seconds after the first event of a kind; at its own end where there is none."""
        if after is None or any(name(event) == after for event in self.told()):
            time.sleep(delay)
            with suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)
        self.whole()

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]


def name(event):
    """An event's kind, with what tells it from others of it."""
    return " ".join(str(part) for part in (event["event"], event.get("phase"), event.get("trial")) if part)


@dataclass
class Whole:
    """What a study gives that nobody interrupts, and when it told what."""

    trials: list
    front: list
    export: str
    times: dict
    export_seconds: float

    def between(self, first, last):
        """Seconds from one event to another; the first may be None, the beginning."""
        return self.times[last] - (self.times[first] if first else 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("killed")
    (found / "killed.toml").write_text(PROFILE)
    return found


@pytest.fixture(scope="module")
def nursery(folder):
    made = Nursery(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(nursery, folder):
    """The same study, never killed: once to learn what it needs, and once as it runs in a child that has all of it."""
    nursery.start(*started(folder, folder / "first"), learn=True).whole()
    (first,) = list_runs(folder / "first")
    nursery.start("export", first.path, "--trial", 1, "--to", folder / "first-model", learn=True).whole()
    session = nursery.start(*started(folder, folder / "whole"))
    session.whole()
    assert session.ended == 0, (folder / "errors.txt").read_text()
    (run,) = list_runs(folder / "whole")
    assert records(run) == records(first)
    assert {record.get("ended_early", False) for record in records(run)} == {False, True}
    exporting = nursery.start("export", run.path, "--trial", front(run)[0], "--to", folder / "model")
    exporting.whole()
    assert exporting.ended == 0
    times = dict(zip(map(name, session.events), session.times, strict=True))
    return Whole(records(run), front(run), digest(folder / "model"), times, exporting.times[-1])


def started(folder, runs):
    return "run", MODEL_DIR, "--profile", folder / "killed.toml", "--runs-dir", runs


def records(run):
    """All trials as they stand in the journal, but for the time that they took."""
    return [{**record.as_json(), "seconds": 0, "timing": {}} for record in run.records()]


def front(run):
    from heretic_tui.engine.front import pareto_front

    return [record.trial for record in pareto_front(run.records(), run.profile.objectives)]


def digest(model):
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def by_time(first, last):
    """A moment somewhere between two events."""
    return lambda whole, chance: {"after": first, "delay": chance.uniform(0, whole.between(first, last))}


def by_file(path, most):
    """A moment at which a file is touched, which happens so often at least."""
    return lambda whole, chance: {"kill": {"path": path, "count": chance.randint(1, most)}}


LOADING = by_time(None, "run_opened")
RESIDUALS = by_time("run_opened", "phase_finished directions")
BASELINE = by_time("phase_finished directions", "baseline_measured")
LIVES = [
    [LOADING, by_file("model.json", 3), RESIDUALS, by_file("directions.safetensors", 4), BASELINE],
    [RESIDUALS, by_file("residuals.safetensors", 4), by_file("baseline", 8), by_file("trial-0000.jsonl", 4)],
    [by_time(f"trial_started {number}", f"trial_finished {number}") for number in (1, 3, 4, 6)],
    [by_file("study.journal", most) for most in (30, 120, 120, 120, 120, 120)],
    [by_file(path, 4) for path in ("profile.toml", "owner.json", "trial-0002.jsonl", "trial-0005.jsonl", "log.txt")],
    [LOADING, by_file("study.journal", 200), by_time("trial_started 5", "trial_finished 5"), by_file("log.txt", 20)],
]
"""Where each study is killed, one moment after the other; it is gone on with after each."""


@pytest.mark.parametrize("life", range(len(LIVES)))
def test_a_study_killed_again_and_again_ends_as_one_that_never_was(life, nursery, whole, folder):
    chance, runs = random.Random(f"{SEED} {life}"), folder / f"life-{life}"
    kept = []
    for moment in LIVES[life]:
        session = go_on(nursery, folder, runs, **moment(whole, chance))
        kept = check_nothing_lost(session, runs, kept)
    session = go_on(nursery, folder, runs)
    assert session.ended == 0, (folder / "errors.txt").read_text()
    check_nothing_lost(session, runs, kept)
    (run,) = list_runs(runs)
    assert session.of("study_finished")[0]["trials"] == TRIALS
    assert records(run) == whole.trials
    assert front(run) == whole.front
    assert not list(run.path.rglob("*.partial"))
    assert not list(run.path.rglob("*.damaged"))
    assert not (run.path / "owner.json").exists()


def go_on(nursery, folder, runs, after=None, delay=None, **kill):
    """Begin the study, or go on with it, up to a moment or to its end."""
    found = list_runs(runs)
    arguments = ("run", "--resume", found[0].path) if found else started(folder, runs)
    session = nursery.start(*arguments, **kill)
    if delay is None:
        session.whole()
    else:
        session.killed(after, delay)
    assert session.ended in {0, -signal.SIGKILL}, (folder / "errors.txt").read_text()
    return session


def check_nothing_lost(session, runs, before):
    """Every trial that was told stands in the journal, once, and what stood in it before is as it was."""
    found = list_runs(runs)
    now = records(found[0]) if found else []
    assert len(found) <= 1
    assert now[: len(before)] == before
    assert [record["trial"] for record in now] == list(range(1, len(now) + 1))
    told = [event["trial"] for event in session.of("trial_finished")]
    assert told == list(range(len(before) + 1, len(before) + len(told) + 1))
    assert len(before) + len(told) <= len(now) <= len(before) + len(told) + 1
    for opened in session.of("run_opened"):
        assert opened["finished"] == len(before)
    return now


@pytest.mark.parametrize("moment", ["by time", "model.safetensors", "README.md", "export-"])
def test_an_export_that_was_killed_is_made_again_and_leaves_nothing_behind(moment, nursery, whole, folder):
    (run,) = list_runs(folder / "whole")
    chance, place = random.Random(f"{SEED} {moment}"), folder / f"export-{moment.replace(' ', '-')}"
    place.mkdir()
    order = "export", run.path, "--trial", whole.front[0], "--to", place / "out", "--overwrite"
    if moment == "by time":
        nursery.start(*order).killed(None, chance.uniform(0, whole.export_seconds))
    else:
        nursery.start(*order, kill={"path": moment, "count": chance.randint(1, 4)}).whole()
    again = nursery.start(*order)
    again.whole()
    assert again.ended == 0
    assert digest(place / "out") == whole.export
    assert [path.name for path in place.iterdir()] == ["out"]
    assert records(Run(run.path)) == whole.trials
