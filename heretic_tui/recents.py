"""The models used last, in a small JSON file of the state folder."""

import json
from pathlib import Path

from heretic_tui import paths
from heretic_tui.engine.files import write_text
from heretic_tui.masking import masked

MOST = 20


def recents_file() -> Path:
    """Where the models used last stand: one JSON list, newest first."""
    return paths.state_dir() / "recent-models.json"


def recent_models() -> list[str]:
    """Names of the models used last, newest first, at most 20; none where the file is missing or cannot be used."""
    names, _ = _read()
    return names


def recents_problem() -> str | None:
    """What is wrong with the file, in words; None where nothing is. The next `remember_model` begins a new one."""
    _, problem = _read()
    return problem


def remember_model(name: str) -> None:
    """Put a model first among the recent ones; a folder or file is kept with its whole path.

    Raises `EngineError` where the file cannot be written.
    """
    kept = _whole(name)
    if masked(kept) != kept:  # a secret is in it
        return
    names = [kept, *(other for other in recent_models() if other != kept)]
    write_text(recents_file(), json.dumps(names[:MOST], indent=1) + "\n")


def _whole(name: str) -> str:
    try:
        path = Path(name).expanduser()
        return str(path.absolute()) if path.exists() else name
    except (OSError, RuntimeError):  # too long for a path, or in the home of nobody
        return name


def _read() -> tuple[list[str], str | None]:
    path = recents_file()
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{path} cannot be read, so recent models are not listed: {error.strerror or error}."
    except (ValueError, RecursionError):
        return [], f"{path} is damaged, so recent models are not listed."
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return [], f"{path} holds no list of names, so recent models are not listed."
    return list(dict.fromkeys(name for name in names if name))[:MOST], None
