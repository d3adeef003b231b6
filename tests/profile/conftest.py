from pathlib import Path

import pytest

from heretic_tui import paths


@pytest.fixture
def samples() -> Path:
    return Path(__file__).parent / "samples"


@pytest.fixture
def profiles(tmp_path, monkeypatch) -> Path:
    """The folder of the person's own profiles, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = paths.profiles_dir()
    folder.mkdir(parents=True)
    return folder
