"""An export as the screen knows it: what is asked for, where it goes, how it went. No screen and no torch is needed."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from heretic_tui.engine import events
from heretic_tui.engine.dtypes import export_size
from heretic_tui.engine.events import Event
from heretic_tui.engine.records import ModelFacts, Score
from heretic_tui.formats import duration, heading, one_line, size
from heretic_tui.names import file_name
from heretic_tui.worker import Failure, JobEnded, JobStarted

EXPORT = "export"
"""The title of the engine's job."""
SHARDS = ("1GB", "2GB", "5GB", "10GB", "50GB")


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What is to be exported, and how; `measure` has the written model loaded afresh and measured like a trial."""

    trial: int
    to: Path
    adapter: bool = False
    overwrite: bool = False
    dtype: str | None = None
    max_shard_size: str | None = None
    measure: bool = False


@dataclass
class ExportView:
    """An export that was asked for: what the engine has told of it so far."""

    run: Path
    order: ExportOrder
    began: float | None = None
    seconds: float | None = None
    stopping: bool = False
    verified: events.Verified | None = None
    exported: events.Exported | None = None
    evaluated: events.Evaluated | None = None
    ended: JobEnded | None = None

    @property
    def underway(self) -> bool:
        """Whether the engine has it still to do, or does it."""
        return self.ended is None

    @property
    def measuring(self) -> bool:
        """Whether the written model is being measured."""
        return self.underway and self.exported is not None

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return self.ended.failure if self.ended else None

    def apply(self, event: Event) -> None:
        """Take in what the engine tells."""
        if not self.underway:
            return
        match event:
            case JobStarted(title=title) if title == EXPORT:
                self.began = time.monotonic()
            case events.Verified() if self.began:
                self.verified = event
            case events.Exported() if self.began:
                self.exported, self.seconds = event, time.monotonic() - self.began
            case events.Evaluated() if self.began:
                self.evaluated = event
            case JobEnded(title=title) if title == EXPORT and self.began:
                self.ended = event
            case _:
                pass


# Where it goes


@dataclass(frozen=True, slots=True)
class Place:
    """What there is at a place: in words, whether it can be written, and how many bytes are free there."""

    path: Path | None
    words: str
    usable: bool = True
    filled: bool = False
    """Whether an earlier export stands there, which is only replaced if that is asked for."""
    free: int | None = None


def default_place(model: str, trial: int, *, adapter: bool) -> str:
    """A folder in the current directory, named after model and trial."""
    stem = file_name(model.rstrip("/").rpartition("/")[2].removesuffix(".gguf"), "model")
    return f"./{stem}-trial-{trial}{'-adapter' if adapter else ''}"


def look_at(text: str, source: str = "") -> Place:
    """Look at a place to write to; touches the disk. `source` is the model's own folder, which is never replaced."""
    if not text.strip() or "\0" in text:
        return Place(None, "Say where it is to go.", usable=False)
    try:
        path = Path(text.strip()).expanduser().absolute()
        return _looked_at(Path(os.path.normpath(path)), source)
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return Place(None, f"This place cannot be used: {one_line(str(reason))}.", usable=False)


def _looked_at(path: Path, source: str) -> Place:
    parent = next(folder for folder in path.parents if folder.exists()) if path != path.parent else path
    if not parent.is_dir():
        return Place(path, f"{parent} is a file, not a folder.", usable=False)
    free = shutil.disk_usage(parent).free
    place = Place(path, "A new folder.", free=free)
    if not os.access(parent, os.W_OK | os.X_OK):
        return replace(place, words=f"You may not write to {parent}.", usable=False)
    if path.is_file():
        return replace(place, words="There is a file of that name.", usable=False)
    if not path.exists() or not any(path.iterdir()):
        return replace(place, words="An empty folder." if path.exists() else place.words)
    if source and path == Path(source).expanduser().absolute():
        return replace(place, words="That is the original model itself.", usable=False)
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        # Replacing a folder takes away all that is in it: only an export may be lost, never anything else.
        return replace(place, words="There are other things than a model in that folder.", usable=False)
    return replace(place, words="A model is there already.", filled=True)


def needed(facts: ModelFacts, order: ExportOrder, rank: int) -> int:
    """Bytes that an export takes: a merged model's exactly, an adapter's about."""
    if not order.adapter:
        return export_size(facts, order.dtype)
    # A pair of factors for each: attention output (width x width) and MLP output (about 4 widths x width).
    return round(sum(facts.writers.values()) * rank * 3.5 * facts.width * 4)


# How it went


def verification(found: events.Verified) -> str:
    """What was checked, in words."""
    words = (
        f"Verified: {found.tensors} tensors, {found.changed} changed as the trial says, {found.identical} identical "
        "to the original."
    )
    if found.kept:
        words += f" {found.kept} of these are kept though the loaded class does not know them."
    if found.tied:
        words += f" {len(found.tied)} of the source's are stored under the name that they share."
    if found.unknown:
        words += f" {len(found.unknown)} of the source's are not in it: the loaded class does not know them."
    return words


def written(found: events.Exported, seconds: float | None) -> str:
    """What was written, in words; the place is to follow."""
    form = "The adapter of trial" if found.form == "adapter" else "Trial"
    facts = [size(found.size)]
    if seconds is not None:
        facts.append(duration(seconds))
    if found.rank is not None:
        facts.append(f"rank {found.rank}")
        facts.append(f"up to {found.error:.1%} off the exact edit" if found.error else "exact")
    return f"{form} {found.trial} is written ({', '.join(facts)}) to"


def measured(found: events.Evaluated, expected: Mapping[str, Score]) -> str:
    """The scores of the written model, loaded afresh, and whether they are the trial's; weights in 4 bits differ."""
    figures = ", ".join(f"{heading(name)} {score.text}" for name, score in found.scores.items())
    differing = [name for name, score in found.scores.items() if name in expected and score.text != expected[name].text]
    if found.trial_weights != found.weights:
        trial = ", ".join(f"{heading(name)} {score.text}" for name, score in expected.items())
        return f"Trial measured in {found.trial_weights}: {trial}; export in {found.weights}: {figures}."
    if not differing:
        return f"Measured again: {figures}, as in the trial."
    trial = ", ".join(f"{heading(name)} {expected[name].text}" for name in differing)
    return f"Measured again: {figures}; the trial had {trial}."


def in_python(found: events.Exported) -> str:
    """How to load what was written: two lines of Python."""
    if found.form == "adapter":
        return (
            "from peft import AutoPeftModelForCausalLM\n"
            f"model = AutoPeftModelForCausalLM.from_pretrained({str(found.to)!r})"
        )
    return f'from transformers import pipeline\nchat = pipeline("text-generation", model={str(found.to)!r})'
