"""Where things live on disk: the XDG folders of the person who runs the program. Nothing is created here."""

import os
from pathlib import Path

import platformdirs

APP = "heretic-tui"


def _folder(variable: str, otherwise: Path) -> Path:
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get(variable, ""))
    return base / APP if base.is_absolute() else otherwise


def config_dir() -> Path:
    """Settings of the person."""
    return _folder("XDG_CONFIG_HOME", platformdirs.user_config_path(APP, appauthor=False))


def profiles_dir() -> Path:
    """The person's own profiles, a TOML file each."""
    return config_dir() / "profiles"


def runs_dir() -> Path:
    """Runs, a folder each."""
    return _folder("XDG_DATA_HOME", platformdirs.user_data_path(APP, appauthor=False)) / "runs"


def chats_dir() -> Path:
    """Chats with models that no run is about; a run keeps its own."""
    return _folder("XDG_DATA_HOME", platformdirs.user_data_path(APP, appauthor=False)) / "chats"


def directions_dir() -> Path:
    """The library of directions, which all runs see."""
    return _folder("XDG_DATA_HOME", platformdirs.user_data_path(APP, appauthor=False)) / "directions"


def own_folders() -> tuple[Path, ...]:
    """The folders that are this person's alone, whoever could read them before."""
    return config_dir(), runs_dir().parent, state_dir()


def cache_dir() -> Path:
    """What can be fetched or computed again."""
    return _folder("XDG_CACHE_HOME", platformdirs.user_cache_path(APP, appauthor=False))


def state_dir() -> Path:
    """What the program keeps from one time to the next without being asked."""
    return _folder("XDG_STATE_HOME", platformdirs.user_state_path(APP, appauthor=False))


def log_dir() -> Path:
    """Logs of the program itself; a run's log stands in the run's folder."""
    return state_dir() / "log"


def drafts_dir() -> Path:
    """Changes to profiles that are not saved yet, a file each."""
    return state_dir() / "drafts"
