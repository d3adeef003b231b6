import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for fakes: with importlib's import mode pytest adds no folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Every test has folders of its own for settings, runs and logs."""
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path
