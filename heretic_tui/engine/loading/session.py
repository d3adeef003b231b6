"""The model in memory between jobs: loaded once, and used by every job that wants the same one.

Importing this module loads no torch, so that the app can hold a session from its first moment.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.engine.background import Job
from heretic_tui.engine.events import ModelLoaded
from heretic_tui.profile.schema import Profile

if TYPE_CHECKING:
    from heretic_tui.engine.model.language_model import LanguageModel
    from heretic_tui.engine.records import ModelFacts

Wanted = tuple[str, object, tuple[Any, ...]]


class Session:
    """Holds at most one model; use it from one thread at a time. Jobs put its weights back when they end."""

    def __init__(self) -> None:
        self.model: LanguageModel | None = None
        self._wanted: Wanted | None = None

    def load(self, name: str, profile: Profile) -> "Job[LanguageModel]":
        """The model in memory if it is the one asked for, loaded the same way; else the old one goes first."""
        from heretic_tui.engine.loading import loader

        wanted = _wanted(name, profile)
        if self.model is not None and wanted == self._wanted and self._right_commit(profile):
            # What an earlier job has settled about the model is its own affair.
            self.model.batch_size, self.model.response_prefix = 1, ""
            yield ModelLoaded(self.model.facts)
            return self.model
        self.unload()
        model = yield from loader.load(name, profile)
        self.model, self._wanted = model, wanted
        # What libraries and model have made stays: without this every full collection walks through a million
        # objects again and holds up the screen for a quarter of a second.
        gc.freeze()
        return model

    def outline(self, facts: "ModelFacts", name: str, profile: Profile) -> "Job[LanguageModel]":
        """The model in memory if it is the one asked for; else an outline of it, which leaves memory as it is."""
        from heretic_tui.engine.loading import outline

        held = self.model is not None and _wanted(name, profile) == self._wanted and self._right_commit(profile)
        return self.load(name, profile) if held else outline.outline(facts, name, profile)

    def unload(self) -> None:
        """Let the model go and give its memory back."""
        if self.model is None:
            return
        from heretic_tui.engine.hardware import release_memory

        self.model = self._wanted = None
        gc.unfreeze()
        release_memory()

    def _right_commit(self, profile: Profile) -> bool:
        return self.model is not None and profile.model_commit in {None, self.model.facts.revision}


def _wanted(name: str, profile: Profile) -> Wanted:
    """Everything that decides what a loaded model is, but for the commit, which is known only afterwards."""
    settings = (
        tuple(profile.dtypes),
        profile.quantization,
        profile.device_map,
        profile.max_memory,
        profile.trust_remote_code,
        profile.allow_pickle,
    )
    path = Path(name).expanduser()
    return (str(path.resolve()), _stamp(path), settings) if path.exists() else (name, None, settings)


def _stamp(path: Path) -> object:
    """What changes when a model's files do: a folder may have been exported to in the meantime."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
