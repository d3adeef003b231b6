"""Ctrl+C, a termination signal and `kill -9` in the middle of a trial: nothing finished is lost."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture
def slow(profile) -> Path:
    """A profile whose trials take long enough to be interrupted in the middle."""
    return profile(n_trials=400, max_response_length=60, batch_size=3)


def until(process: "subprocess.Popen[str]", event: str, trial: int) -> list[dict]:
    """Read a process's events up to that of a trial."""
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == event and seen[-1].get("trial") == trial:
            return seen
    raise AssertionError(f"ended early: {process.stderr.read()}")


def resumed(heretic, run: Path, finished: int) -> None:
    """Go on with a run: it has its finished trials, and gets the number asked for."""
    outcome = heretic("run", "--resume", run, "--trials", finished + 2, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.of("run_opened")[0]["finished"] == finished
    assert outcome.of("study_finished")[0]["trials"] == finished + 2
    listed = [row["trial"] for row in heretic("trials", run, "--json").objects]
    assert listed == list(range(1, finished + 3))
    assert len(list((run / "responses").iterdir())) == finished + 3


def test_ctrl_c_during_a_trial_stops_cleanly(heretic, processes, model_dir, slow, runs_dir, partial_files):
    process = processes.start("run", model_dir, "--profile", slow, "--runs-dir", runs_dir, "--json")
    until(process, "trial_started", 3)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    (run,) = runs_dir.iterdir()
    assert "Traceback" not in err
    assert err.splitlines() == [
        "Interrupted. All finished trials are saved. Go on with:",
        f"  heretic-tui run --resume {run.name} --runs-dir {runs_dir}",
    ]
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1] == {"event": "failed", "error": err.strip(), "exit_code": 130}
    assert not partial_files(runs_dir)
    finished = 2 + len([event for event in events if event["event"] == "trial_finished"])
    resumed(heretic, run, finished)


def test_kill_9_during_a_trial_loses_at_most_that_trial(heretic, processes, model_dir, slow, runs_dir):
    process = processes.start("run", model_dir, "--profile", slow, "--runs-dir", runs_dir, "--json")
    until(process, "trial_started", 3)
    time.sleep(0.05)
    process.kill()
    process.communicate(timeout=100)
    (run,) = runs_dir.iterdir()
    finished = len(heretic("trials", run, "--json").objects)
    assert finished >= 2
    resumed(heretic, run, finished)


def interrupt_at(monkeypatch, wanted: str, kind: int = signal.SIGINT, times: int = 1) -> None:
    """Send this process a signal, Ctrl+C if not another, when an event of that kind is shown."""
    from heretic_tui.commands import console

    shown = console.json_lines

    def listener():
        show, left = shown(), times

        def also_interrupt(event):
            nonlocal left
            show(event)
            if type(event).__name__ == wanted and left:
                left -= 1
                os.kill(os.getpid(), kind)

        return also_interrupt

    monkeypatch.setattr(console, "json_lines", listener)


@pytest.mark.parametrize(
    "event", ["ModelLoaded", "RunOpened", "PhaseFinished", "BaselineMeasured", "TrialStarted", "TrialFinished"]
)
def test_ctrl_c_at_every_stage(heretic, model_dir, profile, runs_dir, monkeypatch, event, partial_files):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, event)
        outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", runs_dir, "--json")
    assert outcome.code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert not partial_files(runs_dir)
    if event == "ModelLoaded":
        assert "nothing was changed" in outcome.err
        assert not runs_dir.exists()
        return
    (run,) = runs_dir.iterdir()
    assert f"heretic-tui run --resume {run.name} --runs-dir {runs_dir}" in outcome.err
    again = heretic("run", "--resume", run.name, "--runs-dir", runs_dir, "--json")
    assert again.code == 0, again.err
    assert again.of("study_finished")[0]["trials"] == 2


def test_a_termination_signal_is_like_ctrl_c(heretic, study, monkeypatch):
    interrupt_at(monkeypatch, "TrialStarted", signal.SIGTERM)
    outcome = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert outcome.code == 130
    assert "All finished trials are saved" in outcome.err
    assert len(heretic("trials", study, "--json").objects) == 2


def test_an_interrupted_study_gives_what_an_uninterrupted_one_gives(heretic, model_dir, profile, runs_dir):
    written = profile(n_trials=5)
    whole = heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir / "a", "--json")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, "TrialFinished")
        heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir / "b", "--json")
    (run,) = (runs_dir / "b").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, "TrialStarted")
        assert heretic("run", "--resume", run, "--json").code == 130
    assert heretic("run", "--resume", run, "--json").code == 0
    (first,) = (runs_dir / "a").iterdir()
    records = [
        [{**row, "seconds": 0, "timing": {}} for row in heretic("trials", folder, "--json").objects]
        for folder in (first, run)
    ]
    assert whole.code == 0
    assert records[0] == records[1]
    assert len(records[0]) == 5


@pytest.mark.parametrize("event", ["Note", "Progress", "Verified"])
def test_ctrl_c_during_an_export_leaves_what_was_there(
    heretic, study, tmp_path, contents, partial_files, monkeypatch, event
):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    interrupt_at(monkeypatch, event)
    outcome = heretic("export", study, "--trial", 1, "--to", target, "--overwrite", "--json")
    assert outcome.code == 130
    assert "nothing was changed" in outcome.err
    assert contents(target) == {"old.txt": b"old"}
    assert not partial_files(tmp_path)


def test_ctrl_c_before_the_job_begins(heretic, monkeypatch, study):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("heretic_tui.engine.runs.listing.open_run", interrupted)
    heretic("trials", study).is_plain("Interrupted", code=130)


def test_a_reader_that_goes_away_is_no_error_to_complain_about(processes, study):
    process = processes.start("trials", study, "--json")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=100) == 1
