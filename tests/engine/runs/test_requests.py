"""Requests to a process that works on a run: taken once, by the one that they are meant for, and known to be taken."""

import json
import stat
import subprocess
import sys
import time

import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, TrialFinished
from heretic_tui.engine.pipeline import resume_study
from heretic_tui.engine.runs import requests
from heretic_tui.engine.runs.live import FOLDER, file_of, write_private
from heretic_tui.engine.runs.ownership import claimed, read_claims
from heretic_tui.engine.runs.requests import KINDS, Listener, Request, ask

HOLDER = """
import sys, time
from pathlib import Path
from heretic_tui.engine.runs.requests import Listener
from heretic_tui.engine.runs.run import Run
run = Run(Path(sys.argv[1]))
with run.locked():
    listener = Listener(run.path)
    print("held", flush=True)
    sys.stdin.readline()
    while True:
        for request in listener.requests():
            print(request.kind, request.trials, flush=True)
        time.sleep(0.05)
"""


@pytest.fixture
def holder(study):
    """Another process that works on the run, and hears requests once a line was sent to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(study.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def listen(holder):
    holder.stdin.write("\n")
    holder.stdin.flush()


def own_request(folder, kind, content=None):
    """Put a request to this process into the folder, as another process would."""
    told = json.dumps({"kind": kind, "trials": 9}) if content is None else content
    write_private(file_of(folder, read_claims(folder)[0].owner, kind), told)


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_asks_sees_that_the_request_was_taken(study, holder, kind):
    (asked,) = ask(study.path, Request(kind, 12))
    assert stat.S_IMODE(asked.file.stat().st_mode) == 0o600
    assert not asked.taken
    listen(holder)
    assert holder.stdout.readline() == f"{kind} 12\n"
    assert asked.taken
    assert asked.worker_now().owner.process == holder.pid


def test_several_that_ask_for_the_same_are_all_answered(study, holder):
    asked = [ask(study.path, Request("pause"))[0] for _ in range(3)]
    listen(holder)
    assert holder.stdout.readline() == "pause None\n"
    assert all(one.taken for one in asked)


def test_of_a_process_that_died_it_is_known_that_nobody_answers(study, holder):
    (asked,) = ask(study.path, Request("pause"))
    holder.kill()
    holder.wait()
    assert not asked.taken
    assert asked.worker_now() is None
    asked.withdraw()
    assert asked.taken


def test_nobody_is_asked_where_nobody_works(study):
    assert ask(study.path, Request("pause")) == ()
    assert not (study.path / FOLDER).exists()


def test_a_request_to_an_earlier_process_does_not_pause_the_next(study, holder):
    ask(study.path, Request("pause"))
    holder.kill()
    holder.wait()
    with study.locked():
        assert list(Listener(study.path).requests()) == []


def test_a_request_is_heard_once(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "LISTEN", 0)
    with claimed(tmp_path):
        listener = Listener(tmp_path)
        own_request(tmp_path, "trials")
        assert list(listener.requests()) == [Request("trials", 9)]
        assert list(listener.requests()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "\x00", '{"kind": "shell"}', '{"kind": "end"}', '{"kind": "pause", "trials": "x"}']
)
def test_what_is_no_request_is_put_away_and_does_nothing(tmp_path, monkeypatch, content):
    monkeypatch.setattr(requests, "LISTEN", 0)
    with claimed(tmp_path):
        own_request(tmp_path, "pause", content)
        assert list(Listener(tmp_path).requests()) == []
        assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_study_that_is_asked_to_pause_says_so_in_its_log_and_keeps_its_trials(study, monkeypatch):
    monkeypatch.setattr(requests, "LISTEN", 0)
    said = []
    with pytest.raises(EngineError, match="paused from another process"):
        for event in resume_study(study, 9):
            said.append(event)
            if isinstance(event, TrialFinished):
                own_request(study.path, "pause")
    assert said[-1] == Note("Another process asked for a pause.")
    assert len(study.records()) == 5
    assert said[-1].text in (study.path / "log.txt").read_text()
    assert not read_claims(study.path)


def test_a_study_goes_on_to_the_trials_that_are_asked_for(study, monkeypatch):
    monkeypatch.setattr(requests, "LISTEN", 0)
    said = []
    for event in resume_study(study, 5):
        said.append(event)
        if isinstance(event, TrialFinished) and event.record.trial == 5:
            study.want(7)
            own_request(study.path, "trials")
    assert said[-1].trials == 7
    assert Note("Another process asked for 9 trials in all.") in said


def test_looking_for_requests_is_seldom(tmp_path):
    with claimed(tmp_path):
        listener = Listener(tmp_path)
        assert list(listener.requests()) == []
        own_request(tmp_path, "pause")
        assert list(listener.requests()) == []
        time.sleep(requests.LISTEN)
        assert list(listener.requests()) == [Request("pause", 9)]
