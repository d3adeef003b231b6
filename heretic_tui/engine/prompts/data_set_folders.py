"""Folders of data sets that others may write to: what they name must lie in them, or anything here would be prompts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from heretic_tui.engine.errors import EngineError
from heretic_tui.names import in_folder

CARDS = ("README.md", ".huggingface.yaml")
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---", re.DOTALL | re.MULTILINE)
MOST = 1 << 20
"""Characters of a card that are read."""


def check_data_set(folder: Path) -> None:
    """Raise `EngineError` where a data set's own files name data outside of it: of this machine or the net."""
    for card in CARDS:
        for named in _texts(_configs(folder / card)):
            if _leads_out(named):
                raise _elsewhere(folder / card, named)
    for state in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for named in _saved_files(state / "state.json"):
            if not in_folder(named):
                raise _elsewhere(state / "state.json", named)
    for named in _texts(_json(folder / "dataset_dict.json")):
        if not in_folder(named):
            raise _elsewhere(folder / "dataset_dict.json", named)


def _elsewhere(path: Path, named: str) -> EngineError:
    return EngineError(
        f"{path} names data outside of its folder: {named[:80]!r}.",
        "Name the files themselves in the profile, if they are meant.",
    )


def _leads_out(named: str) -> bool:
    return "://" in named or named.startswith(("/", "~", "\\")) or ".." in PurePosixPath(named.replace("\\", "/")).parts


def _configs(card: Path) -> Any:
    """What a card says of where the data are; nothing where there is no such card, or it cannot be read."""
    import yaml  # type: ignore[import-untyped] # its types are a package of their own

    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST)
        front = _FRONT.match(text) if card.suffix == ".md" else None
        content = yaml.safe_load(front[1] if front else "" if card.suffix == ".md" else text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # the library that reads it will say so
        return None
    return content.get("configs") if isinstance(content, dict) else None


def _saved_files(state: Path) -> Iterator[str]:
    content = _json(state)
    files = content.get("_data_files") if isinstance(content, dict) else None
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict):
            yield str(file.get("filename"))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
