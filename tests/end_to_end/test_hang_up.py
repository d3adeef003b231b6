"""The line breaks while a study runs in the app: the screen ends, the study does not."""

import os
import signal
import time

import pytest

from heretic_tui.engine.run import list_runs
from heretic_tui.engine.summary import summarize


@pytest.fixture
def studying(tmux, tmp_path):
    """Opens the app in a terminal with the demo study under way; gives the terminal, its process and the run."""

    def begin(preferences=""):
        settings = tmp_path / "config" / "heretic-tui" / "settings.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(preferences)
        terminal = tmux((100, 30))
        terminal.wait_for("demo-llama", 60)
        terminal.press("d")
        run = until(lambda: next(iter(list_runs(tmp_path / "data" / "heretic-tui" / "runs")), None))
        until(lambda: summarize(run).trials >= 2, 120)
        return terminal, summarize(run).alive[0].owner.process, run

    return begin


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)
    return found


def gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("how", ["hang-up", "terminal"])
def test_a_study_goes_on_when_its_terminal_is_gone(studying, how):
    terminal, process, run = studying()
    run.want(8)
    if how == "hang-up":
        os.kill(process, signal.SIGHUP)
    else:
        terminal("kill-server")
    before = summarize(run).trials
    until(lambda: summarize(run).trials > before, 120)
    assert summarize(run).told == f"running, process {process}"
    until(lambda: gone(process), 180)
    found = summarize(run)
    assert (found.trials, found.state) == (8, "finished")


def test_a_study_that_is_to_stop_ends_after_the_trial_under_way(studying):
    terminal, process, run = studying('on_hang_up = "stop"\n')
    terminal("kill-server")
    before = summarize(run).trials
    until(lambda: gone(process), 120)
    found = summarize(run)
    assert found.state == "paused"
    assert before <= found.trials <= before + 2
    assert found.trials < found.wanted


def test_a_study_that_is_left_to_itself_gives_the_shell_its_prompt_back_and_goes_on(studying):
    terminal, process, run = studying('on_hang_up = "stop"\n')
    run.want(7)
    terminal.press("d")
    pane = terminal.wait_for("goes on in process")
    assert f"goes on in process {process}." in pane
    assert terminal.ended.read_text().strip() == "0"
    terminal("kill-server")
    until(lambda: gone(process), 180)
    assert summarize(run).state == "finished"


def test_a_study_that_is_left_to_itself_is_watched_and_paused_from_another_terminal(studying, tmux):
    terminal, process, run = studying()
    run.want(200)
    terminal.press("d")
    terminal.wait_for("goes on in process")
    other = tmux((120, 40))
    other.wait_for(f"○ {run.name}", 60)
    other.press("Tab")
    other.press("Enter")
    other.wait_for(f"process {process} works on it")
    seen = summarize(run).trials
    other.wait_for(rf"{seen + 3}/200 trials", 60)
    other.press("p")
    until(lambda: gone(process), 60)
    other.wait_for("paused: p resumes")
    assert summarize(run).state == "paused"
