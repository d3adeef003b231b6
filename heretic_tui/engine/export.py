"""Export: an ablated model or an adapter as a folder, written aside and renamed when it is whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heretic_tui import __version__
from heretic_tui.engine.ablation import LowRank, ablated, edits, low_rank
from heretic_tui.engine.directions import Directions
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import os_errors
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.profile.schema import Profile


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: bytes and, for an adapter, its rank and worst relative error against the exact edit."""

    size: int
    rank: int | None = None
    error: float | None = None


def check_target(to: Path, needed: int, *, overwrite: bool) -> None:
    """Raise `EngineError` where the target exists and may not be replaced, or the disk has no room."""
    if to.exists() and not overwrite and (not to.is_dir() or any(to.iterdir())):
        raise EngineError(f"{to} exists already.", "Choose another folder, or add --overwrite to replace it.")
    parent = next(folder for folder in to.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise EngineError(
            f"The export needs {needed / 1e9:.1f} GB, and {parent} has {free / 1e9:.1f} GB free.",
            "Free some space or choose another disk.",
        )


@contextmanager
def written_aside(to: Path) -> Iterator[Path]:
    """A fresh folder beside `to` that takes its place when the block ends well, and vanishes when it does not."""
    to = to.absolute()
    aside = to.with_name(f".{to.name}.{os.getpid()}.partial")
    replaced = to.with_name(f".{to.name}.{os.getpid()}.replaced")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        yield aside
        if to.exists():
            to.rename(replaced)
        aside.rename(to)
    except OSError as error:
        raise write_failure(to, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if replaced.exists() and not to.exists():
            _put_back(replaced, to)
        shutil.rmtree(replaced, ignore_errors=True)


def _put_back(replaced: Path, to: Path) -> None:
    try:
        replaced.rename(to)
    except OSError as error:
        raise EngineError(
            f"Could not write {to}: {error.strerror}. What was there before is now in {replaced}.", "Rename it back."
        ) from error


def export_merged(
    model: LanguageModel, directions: Directions, record: TrialRecord, profile: Profile, to: Path
) -> Written:
    """Write the whole ablated model: sharded safetensors, tokenizer, generation settings, model card."""
    with (
        written_aside(to) as folder,
        ablated(
            model,
            directions,
            record.parameters,
            row_normalization=profile.row_normalization,
            gain_aware=profile.gain_aware,
        ),
        os_errors(),
        _no_progress_bar(),
    ):
        model.network.save_pretrained(folder, max_shard_size=profile.max_shard_size)
        model.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(model, record, profile, "merged"), encoding="utf-8")
        size = _size(folder)
    return Written(size)


def export_adapter(
    model: LanguageModel, directions: Directions, record: TrialRecord, profile: Profile, to: Path
) -> Written:
    """Write the ablation as a PEFT adapter: exact at rank 1 for none and pre, the nearest of its rank for full."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    found = edits(model.writers, directions, record.parameters, gain_aware=profile.gain_aware)
    biased = [edit.writer.name for edit in found if edit.writer.bias is not None]
    if biased:
        raise EngineError(
            f"{len(biased)} of the edited weights have a bias, which an adapter cannot change ({biased[0]}).",
            "Export the merged model instead.",
        )
    if not found:
        raise EngineError("This trial edits no weight, so there is nothing to adapt.", "Choose another trial.")
    rank = 1 if profile.row_normalization != "full" else profile.full_normalization_lora_rank
    factors = [
        low_rank(edit, model.pristine(edit.writer).matrix.float(), profile.row_normalization, rank) for edit in found
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=[factor.writer.name for factor in factors],
        base_model_name_or_path=model.name,
        fan_in_fan_out=any(factor.writer.transposed for factor in factors),
        inference_mode=True,
    )
    if model.facts.revision:
        config.revision = model.facts.revision
    with written_aside(to) as folder, os_errors():
        config.save_pretrained(str(folder))
        save_file(_adapter_tensors(factors, rank), folder / "adapter_model.safetensors")
        model.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(model, record, profile, "adapter"), encoding="utf-8")
        size = _size(folder)
    return Written(size, rank, max(factor.error for factor in factors))


def _adapter_tensors(factors: list[LowRank], rank: int) -> dict[str, torch.Tensor]:
    tensors = {}
    for factor in factors:
        padding = rank - factor.down.shape[0]
        prefix = f"base_model.model.{factor.writer.name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.nn.functional.pad(factor.down, (0, 0, 0, padding)).contiguous()
        tensors[f"{prefix}.lora_B.weight"] = torch.nn.functional.pad(factor.up, (0, padding)).contiguous()
    return tensors


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """The library shows a bar over shards of its own; the terminal belongs to whoever runs the job."""
    from transformers.utils import logging as transformers_logging

    def silent(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return factory(*args, **{**options, "disable": True})

    previous = transformers_logging.set_tqdm_hook(silent)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def model_card(model: LanguageModel, record: TrialRecord, profile: Profile, form: str) -> str:
    """A model card that tells what was done, in the hub's format."""
    scores = "\n".join(f"| {_title(name)} | {_figure(score)} |" for name, score in record.scores.items())
    settings = {
        "direction_index": record.parameters.direction_index,
        "row_normalization": profile.row_normalization,
        "orthogonalize_direction": profile.orthogonalize_direction,
        "kernels": record.parameters.as_json(),
    }
    front = f"---\nbase_model: {json.dumps(model.name)}\ntags:\n- abliterated\n- directional-ablation\n---\n"
    kind = "A PEFT adapter for" if form == "adapter" else "An ablated version of"
    return (
        f"{front}\n# {kind} {model.name}\n\n"
        "Made by directional ablation: a direction of the residual stream was taken out of the weights "
        "that write it.\n"
        f"Trial {record.trial} of a study with heretic-tui {__version__}.\n\n"
        f"| score | value |\n| --- | --- |\n{scores}\n\n## Parameters\n\n"
        f"```json\n{json.dumps(settings, indent=2)}\n```\n"
    )


def _title(name: str) -> str:
    return name.replace("_", " ").replace("kl ", "KL ")


def _figure(score: Score) -> str:
    interval = score.interval()
    return score.text if interval is None else f"{score.text} (95%: {interval[0]:.1%} to {interval[1]:.1%})"
