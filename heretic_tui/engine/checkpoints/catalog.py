"""The models on this machine: the demonstration model, the local Hugging Face cache, folders and GGUF files."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.checkpoints.model_files import INDEX, PICKLED, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

Kind = Literal["demo", "hub", "folder", "gguf"]
NO_MODEL = re.compile(r"mmproj.*\.gguf|.*-(?!0*1-)\d+-of-\d+\.gguf", re.IGNORECASE)
"""GGUF files that are only a part: image projectors, and all but the first of a split file."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that was found: `name` is what loading takes, `size` is in bytes, `modified` in seconds of the epoch."""

    name: str
    kind: Kind
    path: Path
    size: int
    modified: float


def demo_model() -> ModelEntry:
    """The model that comes with the program."""
    files = [file.stat() for file in MODEL_DIR.iterdir() if file.is_file()]
    size, modified = sum(file.st_size for file in files), max(file.st_mtime for file in files)
    return ModelEntry(str(MODEL_DIR), "demo", MODEL_DIR, size, modified)


def cached_models() -> list[ModelEntry]:
    """Models in the local Hugging Face cache, newest first, without the network.

    A cache that is not there is empty; a repository in it that is broken is left out.
    """
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError, ValueError):
        return []
    found = [entry for repository in repositories for entry in _cached(repository)]
    return sorted(found, key=lambda entry: (-entry.modified, entry.name))


def _cached(repository: "CachedRepoInfo") -> Iterator[ModelEntry]:
    """A cached repository as a hub id, and each GGUF file in it by its path: ids do not say which one to load."""
    if repository.repo_type != "model" or not repository.revisions:
        return
    # Loading by id takes the commit that `main` points to, where it is here.
    revision = max(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
    folder = revision.snapshot_path
    if any(file.file_path == folder / "config.json" for file in revision.files):
        yield ModelEntry(repository.repo_id, "hub", folder, revision.size_on_disk, revision.last_modified)
    for file in revision.files:
        if _is_gguf(file.file_name):
            path = file.file_path
            yield ModelEntry(str(path), "gguf", path, file.size_on_disk, file.blob_last_modified)


def models_below(place: Path, depth: int = 4) -> Iterator[ModelEntry]:
    """Folders with config.json and weights, and GGUF files, at most `depth` folders below `place`, nearest first.

    Hidden folders are skipped, a folder reached twice through links is looked at once, and what may not be read
    is passed over.
    """
    level, seen = [place.expanduser().absolute()], set[str]()
    for _ in range(depth + 1):
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real not in seen:
                seen.add(real)
                items = _items(folder)
                yield from _models_in(folder, items)
                below += [Path(item) for item in items if not item.name.startswith(".") and _is_folder(item)]
        level = below


def _items(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:  # not there, no folder, or none of our business
        return []


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _models_in(folder: Path, items: Iterable[os.DirEntry[str]]) -> Iterator[ModelEntry]:
    files = {item.name: status for item in items if (status := _file_status(item)) is not None}
    weights = [status for name, status in files.items() if WEIGHTS.fullmatch(name) or PICKLED.fullmatch(name)]
    if "config.json" in files and (weights or INDEX in files):
        size = sum(status.st_size for status in weights)
        modified = max(status.st_mtime for status in [*weights, files["config.json"]])
        yield ModelEntry(str(folder), "folder", folder, size, modified)
    for name, status in files.items():
        if _is_gguf(name):
            yield ModelEntry(str(folder / name), "gguf", folder / name, status.st_size, status.st_mtime)


def _file_status(item: os.DirEntry[str]) -> os.stat_result | None:
    """Status of a file behind `item`; None for folders, for pipes and sockets, and for links to nowhere."""
    try:
        return item.stat() if item.is_file() else None
    except OSError:
        return None


def _is_gguf(name: str) -> bool:
    # Loading knows the ending in small letters alone.
    return name.endswith(".gguf") and not name.startswith(".") and NO_MODEL.fullmatch(name) is None
