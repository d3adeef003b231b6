"""A job on the command line whose terminal is lost goes on without it, or ends after the trial, as the settings say."""

import os
import pty
import subprocess
import sys

import pytest

JOB = """
import fcntl, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that it is this process that the kernel hangs up on
from pathlib import Path
from heretic_tui.commands.console import show_job
from heretic_tui.engine.events import Note, Progress, TrialFinished
from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import TrialRecord

done = Path(sys.argv[1])

def job():
    try:
        yield Note("begun")
        for trial in range(1, 6):
            for part in range(10):
                yield Progress(f"trial {trial}", part, 10)
                time.sleep(0.02)
            yield TrialFinished(TrialRecord(trial, AblationParameters(None, {}), {}, 1.0), False)
    finally:
        done.write_text(f"{trial} trials")

show_job(job(), as_json="--json" in sys.argv)
done.write_text("all of it")
"""


@pytest.mark.parametrize("form", ["", "--json"])
@pytest.mark.parametrize(("settings", "left"), [("", "all of it"), ('on_hang_up = "stop"\n', "1 trials")])
def test_a_job_outlives_its_terminal_as_the_settings_say(tmp_path, settings, left, form):
    (tmp_path / "config" / "heretic-tui").mkdir(parents=True)
    (tmp_path / "config" / "heretic-tui" / "settings.toml").write_text(settings)
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, tmp_path / "done", form],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
    )  # fmt: skip
    os.close(its)
    said = b""
    while b"begun" not in said:
        said += os.read(ours, 4096)
    os.close(ours)  # the line breaks: the kernel hangs up
    process.wait(120)
    assert (tmp_path / "done").read_text() == left
