"""What a person has said yes to: code and pickled weights of a model at one revision, and places of studies.

A yes in a profile alone is none: the profile, or the run that it stands in, may have come from anybody. It counts once
it was said on this machine, to this model as it is now; a model that has changed since asks again.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from heretic_tui import paths
from heretic_tui.engine.checkpoints.model_files import WEIGHTS
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.files import write_text
from heretic_tui.private import Refused, read_own, tell_once

What = Literal["code", "pickles", "storage"]
SETTINGS: dict[What, str] = {"code": "trust_remote_code", "pickles": "allow_pickle", "storage": "storage"}
"""The setting of a profile that each is asked for with."""
PICKLES = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt)", re.IGNORECASE)
NAMING_CODE = ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")
"""Files of a model that may name Python code of its own."""
MOST = 1 << 20
"""Bytes of the file of what was allowed."""

_said: set[tuple[What, str]] = set()
"""What was said yes to since this program began; it is kept once the revision is known that it was said to."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What loading a model may do besides reading numbers and text."""

    code: bool = False
    pickles: bool = False


NOTHING = Permissions()


class NotAllowed(EngineError):
    """Something needs a yes that nobody has said; `model` and `what` say which."""

    def __init__(self, model: str, what: What, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.model, self.what = model, what


def say_yes(what: What, subject: str) -> None:
    """Allow a model (by its name) code or pickles at the revision that is loaded next, or a storage to be used."""
    _said.add((what, _whole(subject)))
    if what == "storage":
        _keep(what, subject, "")


def known(what: What, subject: str, revision: str = "") -> bool:
    """Whether a person has said yes to this, on this machine."""
    return (what, _whole(subject), revision) in _kept()


def permissions_for(name: str, folder: Path, revision: str | None, asked: Permissions) -> Permissions:
    """What the model `name` with its files in `folder` may do; `asked` is what the profile has.

    Code is only run, and pickles are only read, where the model has some. Raises `NotAllowed` where the profile asks
    for it and nobody has said yes to that for this model at this revision.
    """
    code = asked.code and names_code(folder)
    if (adapter := has_pickled_adapter(folder)) and not asked.pickles:
        raise not_allowed(name, "pickles")  # the library would read it with the model, and ask nobody
    pickles = asked.pickles and (adapter or not has_weights(folder)) and any(pickled(folder))
    return Permissions(
        code=code and _allowed("code", name, folder, revision),
        pickles=pickles and _allowed("pickles", name, folder, revision),
    )


def _allowed(what: What, name: str, folder: Path, revision: str | None) -> Literal[True]:
    mark = revision_of(what, folder, revision)
    if known(what, name, mark):
        return True
    if (what, _whole(name)) not in _said:
        raise not_allowed(name, what)
    if what != "code" or not code_elsewhere(folder):
        _keep(what, _whole(name), mark)
    return True


def _whole(subject: str) -> str:
    """A folder by its whole path, however it was named; anything else as it is."""
    try:
        path = Path(subject).expanduser()
        return str(path.resolve()) if path.exists() else subject
    except (OSError, RuntimeError, ValueError):  # no name that a file can have
        return subject


def not_allowed(name: str, what: What) -> NotAllowed:
    """What is said where a model needs a yes."""
    needs = {
        "code": f"{name} needs code from its repository to be run on this machine",
        "pickles": f"{name} holds no safetensors weights, only pickled ones, which may run code while they are read",
    }[what]
    look = "Read that code; if you trust it" if what == "code" else "If you trust its authors"
    return NotAllowed(
        name,
        what,
        f"{needs}, and nobody has said yes to that for this model as it is now.",
        f"{look}, add --set {SETTINGS[what]}=true to the command that runs or resumes a study, or say so when the app "
        "asks.",
    )


def names_code(folder: Path) -> bool:
    """Whether a model's files name Python code that is to be run with them."""
    return any(_auto_map(folder / name) for name in NAMING_CODE)


def code_elsewhere(folder: Path) -> bool:
    """Whether that code lies in another repository, of which no revision is known: a yes to it cannot be kept."""
    return any("--" in json.dumps(_auto_map(folder / name)) for name in NAMING_CODE)


def has_weights(folder: Path) -> bool:
    """Whether a model has weights that are only numbers."""
    return any(WEIGHTS.fullmatch(path.name) for path in folder.iterdir())


def has_pickled_adapter(folder: Path) -> bool:
    """Whether an adapter lies in a model's folder that can only be had by reading a pickle."""
    files = {path.name for path in folder.iterdir()}
    return {"adapter_config.json", "adapter_model.bin"} <= files and "adapter_model.safetensors" not in files


def pickled(folder: Path) -> list[Path]:
    """The pickled weight files of a model."""
    return sorted(path for path in folder.iterdir() if PICKLES.fullmatch(path.name) and path.is_file())


def revision_of(what: What, folder: Path, revision: str | None) -> str:
    """What tells this state of a model from any other: the hub's commit, or what is in the files of a folder."""
    if revision is not None:
        return revision
    digest = hashlib.sha256()
    if what == "code":
        files = [*sorted(folder.rglob("*.py")), *(folder / name for name in NAMING_CODE)]
        for path in files:
            if path.is_file():
                digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    else:
        for path in pickled(folder):
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _auto_map(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("auto_map") if isinstance(content, dict) else None


def recalled(name: str, folder: Path, revision: str | None) -> list[What]:
    """What a model was allowed before, and still is: it has not changed since."""
    kinds: list[What] = ["code", "pickles"]
    try:
        return [what for what in kinds if folder.is_dir() and known(what, name, revision_of(what, folder, revision))]
    except (OSError, ValueError):  # it is not there, or may not be read: loading will tell
        return []


# What is kept


def permissions_file() -> Path:
    """Where it stands what was allowed: one JSON list, to be looked at and shortened by hand."""
    return paths.state_dir() / "allowed.json"


def _kept() -> set[tuple[str, str, str]]:
    path = permissions_file()
    try:
        content = json.loads(read_own(path, MOST)[0])
    except FileNotFoundError:
        return set()
    except (OSError, Refused, ValueError, RecursionError) as error:
        tell_once(path, error)
        return set()
    rows = content if isinstance(content, list) else []
    return {
        (row["what"], row["subject"], row["revision"])
        for row in rows
        if isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("what", "subject", "revision"))
    }


def _keep(what: What, subject: str, revision: str) -> None:
    rows = _kept()
    if (what, subject, revision) in rows:
        return
    fresh = (what, subject, revision)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = [
        {"what": row[0], "subject": row[1], "revision": row[2], **({"said": now} if row == fresh else {})}
        for row in [*sorted(rows), fresh]
    ]
    write_text(permissions_file(), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
