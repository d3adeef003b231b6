"""A whole model as the library lays it out, where the source's own files cannot be edited."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import edits
from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.checkpoints.origins import origins
from heretic_tui.engine.dtypes import export_size
from heretic_tui.engine.events import Event, Progress, Tick
from heretic_tui.engine.export.merging import edited_parameters
from heretic_tui.engine.export.target import filled, let_others_read, size_of
from heretic_tui.engine.export.verification import Verification, place
from heretic_tui.engine.export.verification import verify as verify_export
from heretic_tui.engine.files import os_errors
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.model.progress_bars import bars_made_by, reported
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile


@dataclass(frozen=True, slots=True)
class States:
    """All tensors of a network by its own names: as they were and as a trial has them, both in the export's dtype."""

    original: Mapping[str, Tensor]
    ablated: Mapping[str, Tensor]


def ablated_states(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    dtype: str | None,
    report: Report,
) -> States:
    """The network's state without and with a trial's edits, in `dtype` or as it was loaded.

    The edits are those of `ablated`, rounded as they were when the trial was measured and only then cast.
    """
    with torch.no_grad():
        plain = dict(model.network.state_dict())
        held = dict(plain)
        for edit in edits(model, directions, record.parameters, style_of(profile)):
            report(Tick())
            writer = edit.writer
            bias = None if writer.bias is None else writer.bias.detach()
            weight, bias = edited_parameters(
                edit, writer.weight.detach(), bias, profile.row_normalization, transposed=writer.transposed
            )
            made = weight.to("cpu", writer.weight.dtype).contiguous()
            held |= dict.fromkeys((writer.weight_name, *writer.tied), made)
            if writer.bias is not None and writer.bias_name is not None and bias is not None:
                held[writer.bias_name] = bias.to("cpu", writer.bias.dtype)
        if dtype is None:
            return States(plain, held)
        cast: dict[tuple[Any, ...], Tensor] = {}
        wanted = getattr(torch, dtype)
        return States(*({name: _cast(model, state[name], wanted, cast) for name in state} for state in (plain, held)))


def _cast(model: LanguageModel, tensor: Tensor, dtype: torch.dtype, known: dict[tuple[Any, ...], Tensor]) -> Tensor:
    """The tensor in another dtype, on the host; tied ones stay tied, and what has a dtype of its own keeps it."""
    if tensor.dtype != model.dtype or tensor.dtype == dtype:
        return tensor
    key = place(tensor)
    if key not in known:
        known[key] = tensor.to("cpu", dtype)
    return known[key]


def export_plainly(
    model: LanguageModel,
    states: States,
    dtype: str | None,
    shard: int,
    card: str,
    folder: Path,
    verify: bool,
) -> Job[Verification | None]:
    """Write the loaded class's tensors with the library's own means."""
    total = export_size(model.facts, dtype)

    def progress() -> Progress:
        return Progress("export", min(size_of(folder), total), total, "B")

    yield from in_background(partial(_write_merged, model, states.ablated, card, shard, folder, progress), progress)
    yield Progress("export", total, total, "B")
    return (yield from in_background(partial(_verify, model, states, folder))) if verify else None


def _write_merged(
    model: LanguageModel,
    state: Mapping[str, Tensor],
    card: str,
    max_shard_size: int,
    folder: Path,
    progress: Callable[[], Event],
    report: Report,
) -> None:
    def silent(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return reported(factory, args, options, lambda *_: report(progress()))

    with filled(folder, report), os_errors(), bars_made_by(silent):
        model.network.save_pretrained(folder, state_dict=dict(state), max_shard_size=max_shard_size)
        report(progress())
        _tell_dtype(folder / "config.json", model, state)
        model.tokenizer.save_pretrained(folder)
        report(progress())
        (folder / "README.md").write_text(card, encoding="utf-8")
        let_others_read(folder)


def _tell_dtype(path: Path, model: LanguageModel, state: Mapping[str, Tensor]) -> None:
    """Let the configuration name the dtype of the file's weights; the library writes that of the live ones."""
    written = state[model.writers[0].weight_name].dtype
    old, new = (str(dtype).removeprefix("torch.") for dtype in (model.dtype, written))
    if old == new:
        return

    def told(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: told(item, name) for name, item in value.items()}
        return new if key in {"dtype", "torch_dtype"} and value == old else value

    path.write_text(json.dumps(told(json.loads(path.read_text(encoding="utf-8"))), indent=2) + "\n", encoding="utf-8")


def _verify(model: LanguageModel, states: States, folder: Path, report: Report) -> Verification:
    return verify_export(
        folder,
        stored_names(model, states.ablated),
        stored_names(model, states.original),
        model.source,
        lambda done, total: report(Progress("verify", done, total, "tensors")),
        lambda names: {name for origin in origins(model.network, names).values() for name in origin.names},
    )


def stored_names(model: LanguageModel, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state by the names of the architecture's checkpoints, which the library may have changed while loading."""
    from transformers.core_model_loading import revert_weight_conversion

    unsaved = model.network._keys_to_ignore_on_save or ()
    saved = {name: tensor for name, tensor in state.items() if name not in unsaved}
    names: Mapping[str, Tensor] = revert_weight_conversion(model.network, saved)
    return names
