"""Who works on a run: seen by others while it lives, and told from dead when it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.runs import ownership
from heretic_tui.engine.runs.ownership import OWNERS, Pulse, claimed, read_claims
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.summary import summarize

HOLDER = """
import sys, time
from pathlib import Path
from heretic_tui.engine.runs.run import Run
with Run(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(study):
    """Another process that works on the run, which is to have more trials."""
    study.want(9)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(study.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def file_of(folder):
    """The file of the only claim in a folder."""
    (path,) = (folder / OWNERS).glob("*.json")
    return path


def rewritten(folder, **changed):
    """The claim in a folder with some of it changed; None where it is none any more."""
    path = file_of(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return next(iter(read_claims(folder)), None)


def test_a_run_that_nobody_works_on_has_no_claim(study):
    assert not read_claims(study.path)
    assert summarize(study).state in {"paused", "finished"}


def test_a_run_that_another_process_works_on_is_running_and_says_which(study, holder):
    found = summarize(study)
    assert found.state == "running"
    assert found.told == f"running, process {holder.pid}"


def test_a_run_whose_process_was_killed_is_dead_although_its_claim_stands(study, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    found = summarize(study)
    assert not found.finished
    assert found.state == "dead"
    assert found.told.startswith("dead since 20")


def test_a_process_that_has_ended_is_dead_before_its_parent_has_asked_how(study, holder):
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert summarize(study).state == "dead"


def test_the_next_process_takes_a_dead_run_over_and_leaves_no_claim(study, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with study.locked():
        assert summarize(study).told == "running"
    assert not read_claims(study.path)


def test_a_later_process_of_the_same_number_is_not_taken_for_the_one_that_died(tmp_path):
    with claimed(tmp_path):
        assert read_claims(tmp_path)[0].alive
        assert not rewritten(tmp_path, started="12345").alive


def test_a_process_of_an_earlier_start_of_the_machine_is_dead(tmp_path):
    with claimed(tmp_path):
        assert not rewritten(tmp_path, boot="another").alive


def test_of_a_process_on_another_machine_only_its_signs_of_life_count(tmp_path):
    with claimed(tmp_path):
        claim = rewritten(tmp_path, host="elsewhere", process=1, started="")
        assert claim.alive
        assert not claim.owner.itself
        past = time.time() - ownership.SILENCE - 1
        os.utime(file_of(tmp_path), (past, past))
        ownership._signs.clear()  # as somebody who looks for the first time
        assert not read_claims(tmp_path)[0].alive


def test_a_clock_that_was_set_makes_nobody_on_this_machine_seem_dead_or_alive(study, holder, monkeypatch):
    """Neither the watcher's clock nor the stamps matter where the process itself can be asked for."""
    for shift in (-1e6, 1e6):
        os.utime(file_of(study.path), (time.time() + shift,) * 2)
        assert summarize(study).state == "running"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    for shift in (-1e6, 1e6):
        os.utime(file_of(study.path), (time.time() + shift,) * 2)
        assert summarize(study).state == "dead"


@pytest.fixture
def elsewhere(tmp_path):
    """The claim of a process on another machine."""
    with claimed(tmp_path):
        rewritten(tmp_path, host="elsewhere", process=1, started="")
        yield tmp_path


def signs(folder, monkeypatch, stamps, seconds=60):
    """Whether a process on another machine seems alive, looked at every so many seconds by a clock nobody sets."""
    began, seen = time.monotonic(), []
    for look, stamp in enumerate(stamps):
        os.utime(file_of(folder), (stamp, stamp))
        monkeypatch.setattr(time, "monotonic", lambda now=began + look * seconds: now)
        seen.append(read_claims(folder)[0].alive)
    return seen


@pytest.mark.parametrize("shift", [-1e6, 0, 1e6])
def test_a_process_elsewhere_whose_signs_change_is_alive_whatever_its_clock_shows(elsewhere, monkeypatch, shift):
    now = time.time() + shift
    assert signs(elsewhere, monkeypatch, [now, now + 60, now + 120, now - 5000, now - 4940])[1:] == [True] * 4


@pytest.mark.parametrize("shift", [0, 1e6])
def test_a_process_elsewhere_that_gives_no_more_signs_is_dead_whatever_its_clock_showed(elsewhere, monkeypatch, shift):
    now = time.time() + shift
    assert signs(elsewhere, monkeypatch, [now] * 4) == [True, True, False, False]


def test_the_watchers_own_clock_that_is_set_back_or_ahead_kills_and_revives_nobody(elsewhere, monkeypatch):
    real, now = time.time(), time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert read_claims(elsewhere)[0].alive
    for now in (real - 1e6, real + 1e6):  # noqa: B007 - read by the clock above
        assert read_claims(elsewhere)[0].alive


def test_signs_of_life_are_given_now_and_then(tmp_path, monkeypatch):
    with claimed(tmp_path):
        pulse = Pulse(tmp_path)
        past = time.time() - 1000
        os.utime(file_of(tmp_path), (past, past))
        pulse.beat()
        assert read_claims(tmp_path)[0].seen > past + 900
        os.utime(file_of(tmp_path), (past, past))
        pulse.beat()
        assert read_claims(tmp_path)[0].seen < past + 1
        monkeypatch.setattr(ownership, "PULSE", 0)
        pulse._next = 0
        pulse.beat()
        assert read_claims(tmp_path)[0].seen > past + 900
    Pulse(tmp_path).beat()  # nothing is claimed: nothing happens


def test_every_process_has_a_name_of_its_own_that_stays_in_its_folder(tmp_path):
    with claimed(tmp_path):
        own = read_claims(tmp_path)[0].owner
        other = rewritten(tmp_path, host="x/../y").owner
        assert own.name != other.name
        assert "/" not in other.name
        assert rewritten(tmp_path, started="../z") is None


@pytest.mark.parametrize("changed", [{"host": 1}, {"process": "1"}, {"since": "now"}, {"since": 1e300}, {"boot": None}])
def test_a_claim_of_no_process_is_none(tmp_path, changed):
    with claimed(tmp_path):
        assert read_claims(tmp_path)
        assert rewritten(tmp_path, **changed) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": 1}', "\x00", '{"host": "a", "more": 1}'])
def test_a_claim_that_cannot_be_understood_is_none(tmp_path, content):
    (tmp_path / OWNERS).mkdir()
    (tmp_path / OWNERS / "a-1-2.json").write_text(content)
    assert not read_claims(tmp_path)


def test_a_claim_holds_facts_about_the_process_and_nothing_else(tmp_path):
    with claimed(tmp_path):
        assert set(asdict(read_claims(tmp_path)[0].owner)) == {"host", "boot", "process", "started", "since"}


def test_without_the_proc_file_system_the_start_is_asked_of_the_system(monkeypatch):
    monkeypatch.setattr(ownership, "Path", lambda _: (_ for _ in ()).throw(OSError()))
    assert ownership._start_of(os.getpid()).isdigit()
    assert ownership._start_of(2**22 + 1) is None


def test_several_processes_work_on_a_run_and_each_has_a_claim_of_its_own(study, holder):
    with study.joined() as owner:
        claims = read_claims(study.path)
        assert [claim.owner.process for claim in claims] == [holder.pid, os.getpid()]
        assert summarize(study).told == f"running, process {holder.pid}"
        assert ownership.gone(study.path, owner.name) is False
    assert [claim.owner.process for claim in read_claims(study.path)] == [holder.pid]


def test_a_run_that_workers_are_at_cannot_be_had_alone(study):
    study.want(9)
    joined = HOLDER.replace(".locked()", ".joined()")
    process = subprocess.Popen([sys.executable, "-c", joined, str(study.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(EngineError, match=f"process {process.pid}"), study.locked():
            pass
    finally:
        process.kill()
        process.communicate()
    with study.locked():
        assert summarize(study).told == "running"


@pytest.mark.parametrize("name", ["box-1-2", "../box-1-2", ""])
def test_of_a_worker_without_a_claim_nothing_is_known(tmp_path, name):
    assert ownership.gone(tmp_path, name) is None


def test_a_process_that_was_taken_for_dead_while_it_slept_claims_the_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "PULSE", 0)
    with claimed(tmp_path) as owner:
        pulse = Pulse(tmp_path)
        pulse.beat()
        file_of(tmp_path).unlink()
        pulse.beat()
        assert ownership.gone(tmp_path, owner.name) is False
    assert not read_claims(tmp_path)


def test_the_claims_of_the_dead_are_cleared_and_those_of_the_living_stay(study, holder):
    with study.joined():
        holder.kill()
        holder.wait()
        assert len(read_claims(study.path)) == 2
        ownership.clear_dead(study.path)
        assert [claim.owner.process for claim in read_claims(study.path)] == [os.getpid()]


def test_an_owner_s_name_tells_its_process_and_its_machine():
    name = ownership.Owner("gpu-box_2", "boot", 4711, "99", 0.0).name
    assert name == "gpu-box-2-4711-99"
    assert ownership.process_of(name) == "4711"
    assert ownership.place_of(name) == "4711 on gpu-box-2"
    assert ownership.place_of(ownership.this_process().name) == str(os.getpid())


def test_a_folder_that_is_only_read_shows_its_claim(study, holder):
    assert Run(study.path).records() == study.records()
    assert read_claims(study.path)[0].owner.process == holder.pid
