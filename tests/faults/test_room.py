"""A disk that is full at every write of a study in turn, and a folder that goes away: said, kept, gone on with."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heretic_tui.engine import pipeline
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.runs.run import Run

PAGE = os.sysconf("SC_PAGESIZE")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 512 kB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system; test_disk has limits that stand for it")
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def leave(disk: Path, pages: int) -> None:
    """Fill a disk but for so many pages."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(b"\0" * max(0, free - pages * PAGE))


def told(error: str) -> tuple[str, float]:
    """Which file could not be written, and how many bytes that needs."""
    found = re.search(r"Could not write (\S+): the disk is full(?: \(([\d.]+) (k?B) are needed)?", error)
    assert found, error
    return Path(found[1]).name, float(found[2] or 0) * (1000 if found[3] == "kB" else 1)


def test_a_study_that_gets_a_page_more_each_time_says_what_it_lacks_and_comes_to_its_end(
    heretic, model_dir, profile, small_disk, partial_files, runs_dir
):
    """However far it comes, it stops with a plain word, and goes on from there."""
    written = profile(n_trials=5, save_residuals=True)
    whole = heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir, "--json")
    runs, lacking, finished = small_disk / "runs", set(), []
    for _ in range(60):
        leave(small_disk, 2 + len(finished) % 5)
        run = next((path for path in runs.glob("*") if (path / "profile.toml").is_file()), None)
        start = ("run", "--resume", run) if run else ("run", model_dir, "--profile", written, "--runs-dir", runs)
        outcome = heretic(*start)
        (small_disk / "ballast").unlink()
        assert not partial_files(small_disk)
        finished.append(len(heretic("trials", run, "--json").objects) if run else 0)
        assert finished == sorted(finished)
        if outcome.code == 0:
            break
        outcome.is_plain("the disk is full", small_disk)
        name, needed = told(outcome.err)
        lacking.add(name)
        if name not in {"runs", "run.lock", "study.journal.lock"}:
            assert needed > 0, outcome.err
        if 0 < finished[-1] < 5:
            assert "The trials that are left take about" in outcome.err
            assert f"heretic-tui run --resume {run}" in outcome.err
    assert outcome.code == 0
    assert len(lacking) >= 5, lacking
    assert [row["scores"] for row in heretic("trials", run, "--json").objects] == [
        row["scores"] for row in whole.of("trial_finished")
    ]


def away_at(job, moment: str, go) -> EngineError:
    """Run a study until `go` is called at its second event of a kind; gives the error that it ends with."""
    seen = 0
    with pytest.raises(EngineError) as failure:
        for event in job:
            seen += type(event).__name__ == moment
            if seen == 2:
                go()
                seen += 1
    return failure.value


@pytest.mark.parametrize("moment", ["TrialStarted", "TrialFinished", "PhaseFinished"])
def test_a_run_whose_folder_goes_away_stops_and_is_not_made_anew_elsewhere(model_dir, profile, runs_dir, moment):
    from heretic_tui.profile import store

    found = store.resolve(str(profile(n_trials=4))).profile
    job = pipeline.start_study(str(model_dir), found, "short", runs_dir)
    away = runs_dir.with_name("away")
    error = away_at(job, moment, lambda: next(runs_dir.iterdir()).rename(away))
    assert "is not there any more" in error.cause
    assert "bring that back" in error.remedy
    assert not list(runs_dir.iterdir())
    run = Run(away.rename(runs_dir / "tiny--short--1"))
    assert len(run.records()) == {"TrialStarted": 1, "TrialFinished": 2, "PhaseFinished": 0}[moment]
    *_, finished = pipeline.resume_study(run)
    assert finished.trials == 4
    assert [record.trial for record in run.records()] == [1, 2, 3, 4]


def test_nothing_is_written_to_where_a_share_was_mounted(model_dir, profile, small_disk, tmp_path):
    from heretic_tui.profile import store

    share = tmp_path / "share"
    share.mkdir()
    mount("--bind", small_disk, share)
    found = store.resolve(str(profile(n_trials=4))).profile
    job = pipeline.start_study(str(model_dir), found, "short", share)
    error = away_at(job, "TrialStarted", lambda: subprocess.run(["umount", "-l", share], check=True))
    assert "is not there any more" in error.cause
    assert not list(share.iterdir())
    (path,) = small_disk.iterdir()
    run = Run(path)
    assert [record.trial for record in run.records()] == [1]
    *_, finished = pipeline.resume_study(run)
    assert finished.trials == 4


def test_a_clock_that_is_set_back_during_a_study_makes_no_trial_last_less_than_no_time(
    model_dir, profile, runs_dir, monkeypatch
):
    import time

    from heretic_tui.engine.runs.summary import summarize
    from heretic_tui.profile import store

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1000 * time.perf_counter())
    found = store.resolve(str(profile(n_trials=3))).profile
    for event in pipeline.start_study(str(model_dir), found, "short", runs_dir):
        if type(event).__name__ == "TrialFinished":
            (run,) = (Run(path) for path in runs_dir.iterdir())
            assert summarize(run).state == "running"
    assert summarize(run).state == "finished"
    for record in run.records():
        assert record.seconds > 0
        assert all(seconds >= 0 for seconds in record.timing.values())
    assert event.seconds > 0
