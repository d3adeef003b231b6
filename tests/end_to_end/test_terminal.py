"""The installed program on a real terminal: tmux shows what a person sees, and is sent what a person types."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid

import pytest

PROGRAM = [sys.executable, "-m", "heretic_tui"]


class Tmux:
    """A tmux server of its own with one window that runs the program."""

    def __init__(self, home, size, term="screen-256color"):
        assert shutil.which("tmux"), "tmux is needed: apt-get install tmux"
        self.name = f"heretic-tui-{uuid.uuid4().hex[:8]}"
        self.ended = home / "ended"
        folders = " ".join(f"XDG_{name}_HOME={home}/{name.lower()}" for name in ("CONFIG", "DATA", "STATE", "CACHE"))
        command = f"env {folders} HF_HOME={home}/hub {' '.join(PROGRAM)}; echo $? > {self.ended}; stty -a; exec cat"
        columns, rows = size
        self("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, "-c", home, f"TERM={term} {command}")

    def __call__(self, *arguments):
        command = ["tmux", "-L", self.name, *map(str, arguments)]
        # A size in the environment, as parallel test processes have, would stand for the terminal's own.
        kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        done = subprocess.run(command, capture_output=True, text=True, env={**kept, "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def press(self, *keys):
        for key in keys:
            self("send-keys", key)
            time.sleep(0.05)

    def pane(self):
        return self("capture-pane", "-p")

    def wait_for(self, pattern, seconds=30.0):
        """Wait until the pane shows something; gives the pane."""
        end = time.monotonic() + seconds
        while not re.search(pattern, pane := self.pane()):
            assert time.monotonic() < end, f"{pattern!r} did not appear:\n{pane}"
            time.sleep(0.1)
        return pane


@pytest.fixture
def tmux(tmp_path):
    opened = []

    def open_one(size, **options):
        opened.append(Tmux(tmp_path, size, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        subprocess.run(["tmux", "-L", one.name, "kill-server"], capture_output=True)


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
    pane = terminal.wait_for(r"[2-9]/40 trials", 90)
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
    terminal.wait_for("paused: p resumes", 10)

    terminal.press("q")
    terminal.wait_for("applications off|stty|speed|-echo|echo", 20)
    assert terminal.ended.read_text().strip() == "0"
    pane = terminal.pane()
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
    terminal.wait_for(r"[1-9]/40 trials", 90)
    terminal.press("q")
    terminal.wait_for("Stop the study and quit")
    terminal.press("n")
    terminal.wait_for(r"trial \d+/40")
    terminal.press("q")
    terminal.wait_for("Stop the study and quit")
    terminal.press("y")
    end = time.monotonic() + 15
    while not terminal.ended.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert terminal.ended.read_text().strip() == "0"
