"""Nothing but the app writes on its terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

NOISE = """
import logging, os, sys, warnings
from heretic_tui.logs import log_file, log_to_file, own_terminal, run_on_terminal
early = logging.getLogger("library")
early.addHandler(logging.StreamHandler())  # made before the app, as Optuna's is
log_to_file()
with own_terminal():
    sys.__stderr__.write("THE SCREEN\\n")
    sys.__stderr__.flush()
    print("noise: print", file=os.fdopen(os.dup(1), "w"), flush=True)
    os.write(1, b"noise: from C on 1\\n")
    os.write(2, b"noise: from C on 2\\n")
    subprocess_code = run_on_terminal([sys.executable, "-c", "print('THE EDITOR')"])
    logging.getLogger("other").warning("logged: one")
print("AFTERWARDS")
"""


def test_what_others_write_goes_to_the_log_and_not_over_the_screen(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", NOISE],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )
    assert process.wait(30) == 0
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed and all is read
        pass
    os.close(ours)
    assert shown.split() == [b"THE", b"SCREEN", b"THE", b"EDITOR", b"AFTERWARDS"]
    log = (Path(tmp_path) / "heretic-tui" / "log" / "app.log").read_text()
    assert all(f"from C on {number}" in log for number in (1, 2))
    assert "logged: one" in log
    assert "noise: print" in log


def test_a_folder_for_logs_that_cannot_be_made_costs_the_log_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = subprocess.run(
        [sys.executable, "-c", NOISE],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "file")},
    )
    assert done.returncode == 0, done.stderr
    assert "AFTERWARDS" in done.stdout
    assert "noise" not in done.stdout + done.stderr
