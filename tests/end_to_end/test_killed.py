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
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.runs.listing import list_runs
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.summary import summarize

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
                yield row

    def whole(self):
        """Read it to its end."""
        for _ in self.told():
            pass

    def killed(self, kind, times, delay):
        """Kill it so many seconds after it began, or after the event of a kind that it tells for the n-th time."""
        for event in self.told() if kind else ():
            times -= event["event"] == kind
            if not times:
                break
        time.sleep(delay)
        with suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)
        self.whole()

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]


@dataclass
class Whole:
    """What a study gives that nobody interrupts, and how long it takes."""

    run: Run
    trials: list
    front: list
    export: str
    start: float
    """Seconds from the opening of the run to its first trial."""
    trial: float
    """Seconds of a trial."""


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
    """The same study, never killed; the nursery learns from it what it needs."""
    session = nursery.start(*started(folder, folder / "whole"), learn=True)
    session.whole()
    assert session.ended == 0, (folder / "errors.txt").read_text()
    (run,) = list_runs(folder / "whole")
    assert {record.get("ended_early", False) for record in records(run)} == {False, True}
    exporting = nursery.start("export", run.path, "--trial", front(run)[0], "--to", folder / "model", learn=True)
    exporting.whole()
    assert exporting.ended == 0
    timing = session.of("study_finished")[0]["timing"]
    trial = sum(record.seconds for record in run.records()) / TRIALS
    return Whole(run, records(run), front(run), digest(folder / "model"), timing["start"], trial)


def started(folder, runs):
    return "run", MODEL_DIR, "--profile", folder / "killed.toml", "--runs-dir", runs


def records(run):
    """All trials as they stand in the journal, but for the time that they took."""
    by_whom = {"seconds": 0, "timing": {}, "worker": "", "device": ""}
    return [{**record.as_json(), **by_whom} for record in run.records()]


def front(run):
    from heretic_tui.engine.storage.front import pareto_front

    return [record.trial for record in pareto_front(run.records(), run.profile.objectives)]


def digest(model):
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def by_time(kind, part, times=1):
    """A moment within a part of a study that begins with an event of this kind, told for the n-th time."""
    return lambda whole, chance: {"moment": (kind, times, chance.uniform(0, getattr(whole, part)))}


def by_file(path, most):
    """A moment at which a file is touched, as it is at least so often."""
    return lambda whole, chance: {"kill": {"path": path, "count": chance.randint(1, most)}}


LOADING = by_time(None, "start")
STARTING = by_time("run_opened", "start")
TRIAL, LATER_TRIAL = by_time("trial_started", "trial"), by_time("trial_started", "trial", 2)
TELLING = by_file("study.journal", 170)
LIVES = [
    [LOADING, by_file("model.json", 4), by_file("directions.safetensors", 3), STARTING],
    [by_file("residuals.safetensors", 3), by_file("trial-0000.jsonl", 4), by_file("baseline", 7), TRIAL],
    [TRIAL, LATER_TRIAL, TRIAL, LATER_TRIAL, LOADING],
    [TELLING, TELLING, TELLING, TELLING, TELLING, TELLING],
    [by_file("profile.toml", 4), by_file("owner", 4), by_file("trial-0002.jsonl", 4), by_file("log.txt", 6)],
    [STARTING, STARTING, LATER_TRIAL, by_file("trial-0005.jsonl", 4)],
]
"""Where each study is killed, one moment after the other; it is gone on with after each."""


HURRIES = 1.0, 0.5, 0.25, 0.1, 0.0
"""The times after which it is killed, of those on a machine that has nothing else to do."""


@pytest.mark.parametrize("life", range(len(LIVES)))
def test_a_study_killed_again_and_again_ends_as_one_that_never_was(life, nursery, whole, folder):
    for hurry in HURRIES:
        runs, kept = folder / f"life-{life}-{hurry}", []
        faster = replace(whole, start=whole.start * hurry, trial=whole.trial * hurry)
        if all((kept := killed(nursery, folder, runs, moment, kept)) is not None for moment in moments(life, faster)):
            break
    else:
        pytest.fail("the study ended before it could be killed")
    session = go_on(nursery, folder, runs)
    assert session.ended == 0, (folder / "errors.txt").read_text()
    check_nothing_lost(session, runs, kept)
    (run,) = list_runs(runs)
    assert session.of("study_finished")[0]["trials"] == TRIALS
    assert records(run) == whole.trials
    assert front(run) == whole.front
    assert not list(run.path.rglob("*.partial"))
    assert not list(run.path.rglob("*.damaged"))
    assert summarize(run).state == "finished"


def moments(life, whole):
    """When a study is killed, one moment after the other."""
    chance = random.Random(f"{SEED} {life}")
    return [moment(whole, chance) for moment in LIVES[life]]


def killed(nursery, folder, runs, moment, before):
    """Go on with a study to the moment at which it is killed; gives its trials, None where that never came.

    On a machine with other work a kill by the clock may come after the end, or so late that what it was to leave undone
    is done, and the file at which to kill it next is not written again.
    """
    session = go_on(nursery, folder, runs, **moment)
    if session.ended == 0:
        return None
    assert session.ended == -signal.SIGKILL, (folder / "errors.txt").read_text()
    return check_nothing_lost(session, runs, before)


def go_on(nursery, folder, runs, moment=None, **kill):
    """Begin the study, or go on with it, up to a moment or to its end."""
    found = list_runs(runs)
    arguments = ("run", "--resume", found[0].path) if found else started(folder, runs)
    session = nursery.start(*arguments, **kill)
    if moment is None:
        session.whole()
    else:
        session.killed(*moment)
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
    chance, place = random.Random(f"{SEED} {moment}"), folder / f"export-{moment.replace(' ', '-')}"
    place.mkdir()
    order = "export", whole.run.path, "--trial", whole.front[0], "--to", place / "out", "--overwrite"
    if moment == "by time":
        for hurry in HURRIES:
            session = nursery.start(*order)
            session.killed("progress", 1, chance.uniform(0, 0.05) * hurry)
            if session.ended != 0:
                break
    else:
        session = nursery.start(*order, kill={"path": moment, "count": chance.randint(1, 4)})
        session.whole()
    assert session.ended == -signal.SIGKILL
    again = nursery.start(*order)
    again.whole()
    assert again.ended == 0
    assert digest(place / "out") == whole.export
    assert [path.name for path in place.iterdir()] == ["out"]
    assert records(whole.run) == whole.trials
