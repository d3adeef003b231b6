"""Over a real ssh connection: a study outlives it, and is watched, asked and exported from the next one."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from heretic_tui.engine.runs.listing import list_runs
from heretic_tui.engine.runs.summary import summarize

PROMPT = "logged-in>"
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/sshd.pid
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
PrintLastLog no
"""


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)
    return found


class Server:
    """An ssh server of our own on the loopback, with keys, settings and a port of its own; the user may log in."""

    def __init__(self, folder):
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        assert program, "sshd is needed: apt-get install openssh-server"
        self.folder = folder
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a root's server keeps the strangers
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "config").write_text(CONFIG.format(port=self.port, folder=folder))
        command = [program, "-D", "-E", folder / "log", "-f", folder / "config"]
        self.process = psutil.Popen(command)
        until(self.answers)

    def answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def sessions(self):
        """The server's processes for the connections that there are."""
        return [one for one in self.process.children(recursive=True) if one.name().startswith("sshd")]

    def login(self, shell):
        """The command that logs in with a terminal and begins a shell there."""
        options = {
            "IdentityFile": self.folder / "user", "IdentitiesOnly": "yes", "IdentityAgent": "none",
            "StrictHostKeyChecking": "no", "UserKnownHostsFile": self.folder / "known", "LogLevel": "ERROR",
        }  # fmt: skip
        told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        place = ["-p", str(self.port), f"{getpass.getuser()}@127.0.0.1"]
        return f"exec {shlex.join(['ssh', '-F', 'none', '-tt', *told, *place, shell])}"

    def stop(self):
        for one in [*self.sessions(), self.process]:
            one.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("sshd"))
    yield one
    one.stop()


@pytest.fixture
def log_in(server, tmux, tmp_path, variables):
    """Logs in from a terminal; gives the terminal, at the prompt of a shell that knows the program by its name."""
    program = tmp_path / "bin" / "heretic-tui"
    program.parent.mkdir()
    path = f"PYTHONPATH={os.environ['PYTHONPATH']}" if "PYTHONPATH" in os.environ else ""
    program.write_text(f'#!/bin/sh\nexec env {path} {sys.executable} -m heretic_tui "$@"\n')
    program.chmod(0o755)
    shell = (
        f"cd {tmp_path} && exec env {variables} PATH={program.parent}:$PATH LC_ALL=C.UTF-8 "
        f"OMP_NUM_THREADS=1 PS1='{PROMPT} ' ENV= sh -i"
    )

    def connect(size=(100, 30)):
        terminal = tmux(size, command=server.login(shell))
        terminal.wait_for(PROMPT)
        return terminal

    return connect


@pytest.fixture
def runs_dir(tmp_path):
    """Where the runs are; whoever still works on one when the test is over is ended."""
    folder = tmp_path / "data" / "heretic-tui" / "runs"
    yield folder
    for run in list_runs(folder):
        for worker in summarize(run).alive:
            os.kill(worker.owner.process, signal.SIGKILL)


def begun(runs_dir):
    """The run that was begun, once it has a trial, and the process that works on it; it is not to end by itself."""
    run = until(lambda: next(iter(list_runs(runs_dir)), None))
    until(lambda: summarize(run).trials >= 1, 120)
    run.want(900)
    return run, summarize(run).alive[0].owner.process


def goes_on(run, process):
    """See to it that trials are finished although nobody looks."""
    before = summarize(run).trials
    until(lambda: summarize(run).trials >= before + 2)
    assert summarize(run).told == f"running, process {process}"


def gone(process):
    return not psutil.pid_exists(process)


def test_a_study_of_the_app_outlives_its_connection_and_is_ended_and_exported_from_the_next(
    server, log_in, runs_dir, tmp_path
):
    terminal = log_in()
    terminal.type("heretic-tui")
    terminal.wait_for("demo-llama")
    terminal.press("d")
    run, process = begun(runs_dir)
    terminal.wait_for(r"[1-9]/(40|900) trials")
    for session in server.sessions():
        session.kill()
    goes_on(run, process)

    again = log_in((120, 40))
    again.type("heretic-tui")
    again.wait_for(f"{run.name} is running · a: watch it")
    again.press("a")
    again.wait_for(f"process {process} works on it · cpu · heard of just now")
    seen = summarize(run).trials
    pane = again.wait_for(rf"{seen + 1}/900 trials")
    for shown in ("refusals", "orig", "KL, nats", "attn.o_proj", "host", "trial"):
        assert shown in pane

    again.press("e")
    again.wait_for("End the study with")
    again.press("y")
    again.wait_for(f"Process {process} has answered: it ends the study")
    again.wait_for("front first · finished")
    until(lambda: gone(process))
    found = summarize(run)
    assert found.state == "finished"
    # The trial under way is finished, too: it may have been told between the question and the answer.
    assert found.wanted <= found.trials <= found.wanted + 1

    again.press("x")
    again.wait_for("6 Export")
    again.wait_for("needs .* free")
    again.press("x")
    again.wait_for("Verified: 65 tensors")
    exported = until(lambda: list(tmp_path.rglob("heretic-tui-export.json")))
    assert (exported[0].parent / "model.safetensors").is_file()


def test_a_headless_study_outlives_its_connection_and_is_watched_by_two(server, log_in, runs_dir, tmux):
    terminal = log_in()
    terminal.type("heretic-tui demo")
    run, process = begun(runs_dir)
    client = int(terminal("list-panes", "-F", "#{pane_pid}"))
    assert psutil.Process(client).name() == "ssh"
    os.kill(client, signal.SIGKILL)
    goes_on(run, process)

    one = log_in((80, 24))
    one.type("heretic-tui attach")
    other = tmux((120, 40), arguments=f"attach {run.name}")
    for viewer in (one, other):
        viewer.wait_for(f"process {process} works on it")
    one.press("+")
    one.wait_for("How many more trials")
    one.press("Enter")
    one.wait_for(f"Process {process} has answered")
    other.wait_for("/920 trials")

    other.press("p")
    other.wait_for(f"Process {process} has answered: it pauses")
    for viewer in (one, other):
        viewer.wait_for("paused: p resumes")
    until(lambda: gone(process))
    assert summarize(run).state == "paused"

    one.press("c")
    one.wait_for("5 Chat")
    one.type("Hello there")
    one.wait_for("tokens/s")  # beneath a whole answer
