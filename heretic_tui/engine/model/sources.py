"""Where a model's files are: on disk, or on the hub and downloaded from there."""

import logging
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.checkpoints.permissions import NOTHING, Permissions, permissions_for
from heretic_tui.engine.errors import EngineError, first_line
from heretic_tui.engine.events import Progress
from heretic_tui.profile.schema import Profile

SAFE_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*"]
PICKLED_FILES = ["*.bin", "*.pt", "*.pth"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's files are: a folder on disk, one GGUF file in it perhaps, and the hub's commit.

    `permissions` say what they may do besides being read.
    """

    folder: Path
    gguf: str | None = None
    revision: str | None = None
    permissions: Permissions = NOTHING


def find_source(name: str, profile: Profile) -> Job[Source]:
    """Find the model's files: on disk, or by downloading them from the hub with progress.

    Raises `NotAllowed` where the profile asks for more than reading them, and nobody has said yes to that.
    """
    source = yield from _found(name, profile)
    if source.gguf:
        return source
    asked = Permissions(profile.trust_remote_code, profile.allow_pickle)
    return replace(source, permissions=permissions_for(name, source.folder, source.revision, asked))


def _found(name: str, profile: Profile) -> Job[Source]:
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise EngineError(f"There is no file {name}.", "Check the path of the GGUF file.")
        return Source(path.parent.resolve(), gguf=path.name)  # in the hub's cache the file itself is a link
    if path.is_dir():
        return _folder_source(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise EngineError(
            f"There is no folder {name}, and it is not the id of a model on the hub either.",
            "Give a folder, a .gguf file, or an id such as organisation/model.",
        )
    return (yield from in_background(partial(_download, name, profile)))


def _folder_source(path: Path) -> Source:
    if (path / "config.json").is_file():
        return Source(path.resolve())
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return Source(path.resolve(), gguf=ggufs[0].name)
    if ggufs:
        raise EngineError(f"{path} holds {len(ggufs)} GGUF files.", f"Name one, for instance {ggufs[0]}.")
    raise EngineError(f"{path} holds no config.json, so it is not a model.", "Give the folder that holds config.json.")


def _download(name: str, profile: Profile, report: Report) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging as hub_logging
    from tqdm.auto import tqdm

    hub_logging.set_verbosity(logging.ERROR)  # its retries are not for the terminal

    class Bar(tqdm):  # type: ignore[type-arg]
        """Passes the hub's byte counts on as events, and prints nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            self.seen = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.seen += n or 0
            report(Progress("download", self.seen, self.total or None, "B", name))
            return None

    patterns = [*SAFE_FILES]
    patterns += PICKLED_FILES if profile.allow_pickle else []
    patterns += ["*.py"] if profile.trust_remote_code else []
    try:
        folder = snapshot_download(name, revision=profile.model_commit, allow_patterns=patterns, tqdm_class=Bar)
    except GatedRepoError as error:
        raise EngineError(
            f"{name} is gated: its owner wants you to accept terms first.",
            "Accept them on the model's page, then log in with `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise EngineError(f"{name} has no commit {profile.model_commit}.", "Check model_commit.") from error
    except RepositoryNotFoundError as error:
        raise EngineError(
            f"There is no model {name} on the hub, or it is private.",
            "Check the spelling, or log in with `hf auth login`.",
        ) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise EngineError(
            f"{name} is neither a folder here nor in the local cache, and the hub could not be reached.",
            "Check the spelling and the network connection, or give the path of a model's folder.",
        ) from error
    except OSError as error:
        raise EngineError(
            f"Downloading {name} failed: {first_line(error)}.", "Check the network and the disk."
        ) from error
    return Source(Path(folder), revision=Path(folder).name)
