"""What a working process tells of itself: little, seldom, to its user alone, and harmless whatever it holds."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heretic_tui.engine.events import Note, Progress, TrialFinished, TrialStarted
from heretic_tui.engine.pipeline import resume_study
from heretic_tui.engine.runs import live
from heretic_tui.engine.runs.live import FOLDER, LONGEST, MOST, Announcer, file_of, read_live, read_others, running
from heretic_tui.engine.runs.ownership import claimed, read_claims
from heretic_tui.engine.runs.run import Run

HOLDER = """
import sys, time
from pathlib import Path
from heretic_tui.engine.events import Progress
from heretic_tui.engine.runs.live import Announcer
from heretic_tui.engine.runs.run import Run
run = Run(Path(sys.argv[1]))
with run.locked():
    Announcer(run.path, "cuda:1").tell(Progress("decoding", 3, 9, "prompts"))
    print("told", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(study):
    """Another process that works on the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(study.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "told\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def told(folder):
    return read_live(folder, read_claims(folder)[0].owner)


def test_phase_trial_device_and_memory_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0)
    with claimed(tmp_path):
        announcer = Announcer(tmp_path, "cuda:0")
        announcer.tell(TrialStarted(7, 40))
        announcer.tell(Progress("trial 7", 12, 40, "prompts", "decoding"))
        found = told(tmp_path)
        assert (found.device, found.trial, found.phase, found.detail) == ("cuda:0", 7, "trial 7", "decoding")
        assert (found.done, found.total, found.unit) == (12, 40, "prompts")
        assert found.memory[-1].device == "host"
        assert 0 < found.memory[-1].used < found.memory[-1].total


def test_it_is_written_about_once_a_second_and_no_oftener(tmp_path):
    with claimed(tmp_path):
        announcer = Announcer(tmp_path)
        for done in range(1000):
            announcer.tell(Progress("phase", done, 1000))
        assert told(tmp_path).done < 999
        announcer._next = 0
        announcer.tell(Progress("phase", 1000, 1000))
        assert told(tmp_path).done == 1000


def test_only_the_user_can_read_it_and_it_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0)
    with claimed(tmp_path):
        announcer = Announcer(tmp_path)
        for number in range(50):
            announcer.tell(Progress(f"{number} {'long ' * 1000}", 1, 2, "unit" * 1000, "detail" * 1000))
        folder, path = tmp_path / FOLDER, file_of(tmp_path, read_claims(tmp_path)[0].owner, "json")
        assert [one.name for one in folder.iterdir()] == [path.name]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size < 8 * LONGEST
        assert told(tmp_path).phase.startswith("49 long")


def test_a_job_tells_nothing_of_a_run_that_another_process_works_on(study, holder):
    before = read_others(study.path)
    announcer = Announcer(study.path)
    announcer.tell(Note("not mine"))
    announcer.end()
    assert read_others(study.path) == before
    assert before[0][0].live.phase == "decoding"


def test_a_worker_is_known_by_process_device_and_sign_of_life(study, holder):
    (worker,), died = read_others(study.path)
    assert died == ()
    assert worker.place == f"process {holder.pid}"
    assert worker.device == "cuda:1"
    assert worker.heard >= worker.owner.since - 1
    assert running([study.path, study.path.parent]) == {study.path: (worker,)}


def test_what_a_killed_process_told_is_kept_until_the_next_one_tells(study, holder):
    holder.kill()
    holder.wait()
    workers, (died,) = read_others(study.path)
    assert workers == ()
    assert died.live.phase == "decoding"
    with study.locked():
        Announcer(study.path).tell(Note("begun"))
        assert len(list((study.path / FOLDER).iterdir())) == 1


def test_a_study_tells_while_it_runs_and_leaves_nothing_behind(study, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0)
    seen = [told(study.path) for event in resume_study(study, 6) if isinstance(event, TrialFinished)]
    assert [one.trial for one in seen] == [None, None]
    assert {one.device for one in seen} == {"cpu"}
    assert not (study.path / FOLDER).exists()


def test_a_place_that_cannot_be_written_costs_the_news_only(study, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0)
    (study.path / FOLDER).write_text("in the way")
    *_, finished = resume_study(study, 5)
    assert finished.trials == 5


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers()))


@given(
    st.one_of(
        st.binary(max_size=300),
        st.dictionaries(st.sampled_from(["device", "trial", "phase", "done", "total", "memory", "other"]), VALUES).map(
            lambda value: json.dumps(value).encode()
        ),
    )
)
def test_whatever_the_file_holds_is_read_as_plain_values_or_not_at_all(content):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with claimed(folder):
            owner = read_claims(folder)[0].owner
            file_of(folder, owner, "json").parent.mkdir()
            file_of(folder, owner, "json").write_bytes(content)
            found = read_live(folder, owner)
            assert found is None or (
                isinstance(found.phase, str)
                and abs(found.done) < float("inf")
                and (found.trial is None or isinstance(found.trial, int))
            )


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with claimed(tmp_path):
        owner = read_claims(tmp_path)[0].owner
        path = file_of(tmp_path, owner, "json")
        path.parent.mkdir()
        path.write_text(json.dumps({"phase": "x" * MOST}))
        assert read_live(tmp_path, owner) is None
        os.truncate(path, 0)
        assert read_live(tmp_path, owner) is None


def test_a_run_on_disk_reads_the_same_beside_what_is_told(study, holder):
    assert Run(study.path).records() == study.records()
