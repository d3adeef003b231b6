"""The line breaks while a study runs in the app: the screen ends, the study does not."""

import os
import signal
import sys
import time

import pytest

from heretic_tui.engine.runs.listing import list_runs
from heretic_tui.engine.runs.summary import summarize


@pytest.fixture
def studying(tmux, tmp_path):
    """Opens the app in a terminal with the demo study under way; gives the terminal, its process and the run."""

    def begin(preferences=""):
        settings = tmp_path / "config" / "heretic-tui" / "settings.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(preferences)
        terminal = tmux((100, 30))
        terminal.wait_for("demo-llama")
        terminal.press("d")
        run = until(lambda: next(iter(list_runs(tmp_path / "data" / "heretic-tui" / "runs")), None))
        until(lambda: summarize(run).trials >= 2)
        return terminal, summarize(run).alive[0].owner.process, run

    return begin


def until(holds, seconds=180):
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
    until(lambda: summarize(run).trials > before)
    assert summarize(run).told == f"running, process {process}"
    until(lambda: gone(process))
    found = summarize(run)
    assert (found.trials, found.state) == (8, "finished")


def test_a_study_that_is_to_stop_ends_after_the_trial_under_way(studying):
    terminal, process, run = studying('on_hang_up = "stop"\n')
    terminal("kill-server")
    before = summarize(run).trials
    until(lambda: gone(process))
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
    assert terminal.exit_code() == 0
    terminal("kill-server")
    until(lambda: gone(process))
    assert summarize(run).state == "finished"


def test_a_study_that_is_left_to_itself_is_watched_and_paused_from_another_terminal(studying, tmux):
    terminal, process, run = studying()
    run.want(200)
    terminal.press("d")
    terminal.wait_for("goes on in process")
    other = tmux((120, 40))
    other.wait_for(f"○ {run.name}")
    other.press("Tab")
    other.press("Enter")
    other.wait_for(f"process {process} works on it")
    seen = summarize(run).trials
    other.wait_for(rf"{seen + 3}/200 trials")
    other.press("p")
    until(lambda: gone(process))
    other.wait_for("paused: p resumes")
    assert summarize(run).state == "paused"


FAILING = """
from heretic_tui.app import HereticApp

def fails(app):
    address = "postgresql://me:open-sesame@somewhere/studies"
    raise RuntimeError("odd\\x1b[2J")

HereticApp.action_help = fails
from heretic_tui.__main__ import main
main()
"""


@pytest.fixture
def failing(tmux, tmp_path):
    """Opens an app in a terminal whose help fails, with the demo study under way or without."""

    def begin(*, study):
        program = tmp_path / "failing.py"
        program.write_text(FAILING)
        terminal = tmux((100, 30), program=[sys.executable, str(program)])
        terminal.wait_for("demo-llama")
        if study:
            terminal.press("d")
            terminal.wait_for(r"[1-9]/40 trials")
        terminal.press("?")
        log = tmp_path / "state" / "heretic-tui" / "log" / "app.log"
        return terminal, terminal.wait_for("The screen failed: RuntimeError"), log

    return begin


def test_a_screen_that_fails_says_so_and_the_log_tells_where_without_any_values(failing):
    terminal, _, log = failing(study=False)
    assert terminal.exit_code() == 1
    told = " ".join(terminal.pane().split())
    assert r"odd\x1b[2J. This is a bug; its traceback is in" in told
    written = log.read_text()
    assert "in fails" in written and "RuntimeError: odd" in written
    assert "open-sesame@" not in written and " locals " not in written


def test_a_study_goes_on_when_its_screen_fails(failing, tmp_path):
    _, pane, _ = failing(study=True)
    run = next(iter(list_runs(tmp_path / "data" / "heretic-tui" / "runs")))
    process = summarize(run).alive[0].owner.process
    assert f"The study goes on in process {process}." in pane
    run.want(summarize(run).trials + 2)
    until(lambda: gone(process))
    assert summarize(run).state == "finished"
