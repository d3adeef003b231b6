"""The installed program on a real terminal: tmux shows what a person sees, and is sent what a person types."""

import json
import re

import pytest


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_person_starts_the_demo_watches_pauses_and_leaves(tmux, tmp_path, size):
    terminal = tmux(size)
    pane = terminal.wait_for("demo-llama")
    assert "1 Models" in pane
    assert len(pane.rstrip("\n").splitlines()) == size[1]

    terminal.press("?")
    terminal.wait_for("esc: close")
    terminal.press("Escape")
    terminal.wait_for("demo-llama")

    for key, name in (("2", "Profile"), ("4", "Inspector"), ("5", "Chat"), ("6", "Export"), ("1", "Models")):
        terminal.press(f"F{key}")
        terminal.wait_for(f"{key} {name}")

    terminal.press("d")
    terminal.wait_for("3 Study")
    pane = terminal.wait_for(r"[2-9]/40 trials")
    for shown in ("refusals", "KL", "orig", "★", "KL, nats", "attn.o_proj", "host"):
        assert shown in pane

    # The terminal changes its size under the running program.
    terminal("resize-window", "-x", size[0] + 13, "-y", size[1] - 3)
    terminal.wait_for(r"trials")
    terminal("resize-window", "-x", size[0], "-y", size[1])

    terminal.press("r")
    terminal.wait_for("Original model")
    terminal.press("Escape")  # followed at once by a letter it would be alt and that letter
    terminal.wait_for("Layers")
    terminal.press("p")
    terminal.wait_for("paused: p resumes")

    terminal.press("q")
    assert terminal.exit_code() == 0
    pane = terminal.wait_for("icanon")
    assert re.search(r"(?<!-)icanon", pane), "the terminal is as it was before"

    runs = list((tmp_path / "data" / "heretic-tui" / "runs").iterdir())
    assert len(runs) == 1
    log = [json.loads(line.split(" ", 1)[1]) for line in (runs[0] / "log.txt").read_text().splitlines()]
    assert sum(event["event"] == "trial_finished" for event in log) >= 2


def test_sixteen_colours_and_a_poor_terminal_are_enough(tmux):
    terminal = tmux((80, 24), term="screen")
    terminal.wait_for("1 Models")
    terminal.press("3")
    assert "No run is open." in terminal.wait_for("3 Study")


def test_quitting_asks_while_a_study_runs(tmux):
    terminal = tmux((80, 24))
    terminal.wait_for("demo")
    terminal.press("d")
    terminal.wait_for(r"[1-9]/40 trials")
    terminal.press("q")
    terminal.wait_for("Quit while the study runs")
    terminal.press("n")
    terminal.wait_for(r"trial \d+/40")
    terminal.press("q")
    terminal.wait_for("Quit while the study runs")
    terminal.press("y")
    assert terminal.exit_code() == 0
