"""Export: an ablated model or an adapter as a folder, written aside and renamed when it is whole."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heretic_tui import __version__
from heretic_tui.engine.ablation import edits
from heretic_tui.engine.adapters import Adapter, Bias, Part, config_of, parts_of, tensors_of
from heretic_tui.engine.aside import written_aside
from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.directions import Directions
from heretic_tui.engine.dtypes import export_size
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, Note, Progress, Tick, Verified
from heretic_tui.engine.files import os_errors
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.merging import (
    CARD,
    Merge,
    Merged,
    check_source,
    edited_parameters,
    plan,
    pulse,
    verify_merge,
    write_merge,
    write_side_files,
)
from heretic_tui.engine.origins import UnknownOrigin, origins
from heretic_tui.engine.progress_bars import bars_made_by, reported
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.style import style_of
from heretic_tui.engine.verification import Verification, place
from heretic_tui.engine.verification import verify as verify_export
from heretic_tui.profile.schema import Profile

REPORT = "heretic-tui-export.json"
"""What the file that tells what was exported and checked is called."""


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
    _check_room(next(folder for folder in to.resolve().parents if folder.exists()), needed)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EngineError(
            f"The export needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free.",
            "Free some space or choose another disk.",
        )


def _spare_source(model: LanguageModel, to: Path) -> None:
    """Raise `EngineError` where putting something at `to` would take the source away."""
    source, target = model.source and model.source.resolve(), to.resolve()
    if source and (source == target or target in source.parents):
        raise EngineError(
            f"{to} is, or holds, the original model itself, which an export never replaces.", "Choose another folder."
        )


def shard_bytes(size: str | int) -> int:
    """Bytes of a size such as `5GB`, `500 MB` or `2GiB`. Raises `EngineError` for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", str(size), re.IGNORECASE)
    if isinstance(size, int):
        count = size
    elif found:
        count = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))
    else:
        count = 0
    if count < 1:
        raise EngineError(f"A file cannot be {size} large.", 'Give a size such as "5GB" or "500MB".')
    return count


@dataclass(frozen=True, slots=True)
class States:
    """All tensors of a network by its own names: as they were and as a trial has them, both in the export's dtype."""

    original: Mapping[str, Tensor]
    ablated: Mapping[str, Tensor]


def export_merged(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    to: Path,
    *,
    dtype: str | None = None,
    max_shard_size: str | int | None = None,
    verify: bool = True,
) -> Job[Written]:
    """Write the whole ablated model: the source's files with the edits in them, model card and report.

    Where the source has no safetensors, or its tensors cannot be told apart, the loaded class is saved in their place;
    of a model that is only outlined that raises `UnknownOrigin`. The live weights are only read, so the model is free
    for other work as soon as the job is closed, whatever its thread still does. Nothing takes the place of `to` that
    has not passed its verification.
    """
    asked = shard_bytes(max_shard_size or profile.max_shard_size)
    # The profile's own size, unless somebody has set it, is for models that have no files to go by.
    kept = max_shard_size is None and profile.max_shard_size == Profile().max_shard_size
    _spare_source(model, to)
    check_source(model)
    found = edits(model, directions, record.parameters, style_of(profile))
    with written_aside(to) as folder:
        card = model_card(model, record, profile, "merged")
        verified, why = None, "the model does not come from safetensors files"
        try:
            merge = yield from in_background(lambda _: plan(model, found, folder, dtype, None if kept else asked))
            if merge is not None:
                _check_room(folder.parent, merge.size)
                merged = yield from in_background(partial(_merge, model, merge, profile, card, dtype, folder, not kept))
                yield Progress("export", merge.size, merge.size, "B")
                check_source(model)
                if verify:
                    verified = yield from in_background(partial(verify_merge, merge, merged))
                why = ""
        except UnknownOrigin as error:
            if model.outlined:
                raise
            why = str(error)
            _refuse_packed(model, why)
            yield Note(
                f"The source's own files cannot be edited, because {why}. The model is written as the library lays it "
                f"out, in {dtype or model.facts.dtype}; the source's tensors that it does not know are left out, and "
                "named.",
                "warning",
            )
            folder.mkdir(exist_ok=True)
        if why:
            _refuse_packed(model, why)
            states = yield from in_background(partial(ablated_states, model, directions, record, profile, dtype))
            verified = yield from _export_plainly(model, states, dtype, asked, card, folder, verify)
        if verified:
            counts = verified.tensors, len(verified.changed), verified.identical
            yield Verified(record.trial, *counts, verified.tied, verified.unknown, len(verified.kept))
        _write_report(folder, model, record, dtype, why, verified)
        size = _size(folder)
    return Written(size)


def _refuse_packed(model: LanguageModel, why: str) -> None:
    """Raise `EngineError` where only the source's files have the weights in full: those in memory are packed."""
    if any(writer.packed for writer in model.writers):
        raise EngineError(
            f"A whole model cannot be written: the weights in memory are packed in 4 bits, and {why}.",
            "Export the adapter, which fits the model as it was loaded and the one that it was made from.",
        )


def _merge(
    model: LanguageModel,
    merge: Merge,
    profile: Profile,
    card: str,
    dtype: str | None,
    folder: Path,
    anew: bool,
    report: Report,
) -> Merged:
    if model.source is None:
        raise ValueError("a merge needs the source's files")
    with _filled(folder, report):
        left_out = write_side_files(model.source, folder, merge.sheets, dtype, anew=anew)
        if left_out:
            names = ", ".join(left_out[:5])
            report(
                Note(f"Left out of the export, because they are links that lead out of the model: {names}.", "warning")
            )
        merged = write_merge(model, merge, profile.row_normalization, pulse(report, merge.size))
        (folder / CARD).write_text(card, encoding="utf-8")
    return merged


def _export_plainly(
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
        return Progress("export", min(_size(folder), total), total, "B")

    yield from in_background(partial(_write_merged, model, states.ablated, card, shard, folder, progress), progress)
    yield Progress("export", total, total, "B")
    return (yield from in_background(partial(_verify, model, states, folder))) if verify else None


def shown_name(model: LanguageModel) -> str:
    """A model by its hub id, or by its folder's name: where on this machine it lies is nobody's business."""
    return Path(model.name).name if model.facts.revision is None else model.name


def _write_report(
    folder: Path,
    model: LanguageModel,
    record: TrialRecord,
    dtype: str | None,
    why_plain: str,
    verified: Verification | None,
) -> None:
    """Write what was done and checked beside the weights, without a word of where on this machine it happened."""
    facts = {
        "format": 1,
        "program": f"heretic-tui {__version__}",
        "source": {"model": shown_name(model)} | {"revision": model.facts.revision},
        "trial": record.trial,
        "dtype": dtype,
        "method": "plain save" if why_plain else "merge of the source's files",
        "why": why_plain or None,
        "verification": None if verified is None else asdict(verified),
    }
    (folder / REPORT).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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

    with _filled(folder, report), os_errors(), bars_made_by(silent):
        model.network.save_pretrained(folder, state_dict=dict(state), max_shard_size=max_shard_size)
        report(progress())
        _tell_dtype(folder / "config.json", model, state)
        model.tokenizer.save_pretrained(folder)
        report(progress())
        (folder / "README.md").write_text(card, encoding="utf-8")
        _let_others_read(folder)


def _let_others_read(folder: Path) -> None:
    """Give every file the permissions of an ordinary new one; safetensors makes its own for their owner alone."""
    ordinary = (folder / "README.md").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(ordinary)


@contextmanager
def _filled(folder: Path, report: Report) -> Iterator[None]:
    """Remove the folder where filling it fails, or where the job has gone: nobody else would look at it again."""
    try:
        yield
        report(Tick())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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


def export_adapter(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    to: Path,
    *,
    dtype: str | None = None,
) -> Job[Written]:
    """Write the ablation as a PEFT adapter, biases included: exact for none and pre, else the nearest of its rank.

    The rank is the profile's, or with `adapter_error` the smallest at which every weight is that close.
    Its factors are float32 unless a `dtype` is asked for.
    """
    _spare_source(model, to)
    with written_aside(to) as folder:
        return (yield from in_background(partial(_write_adapter, model, directions, record, profile, dtype, folder)))


def _write_adapter(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    dtype: str | None,
    folder: Path,
    report: Report,
) -> Written:
    from safetensors.torch import save_file

    found = edits(model, directions, record.parameters, style_of(profile))
    if tied := [edit.writer for edit in found if edit.writer.tied]:
        raise EngineError(
            f"The embeddings of {model.name} are ablated, and they are its output head too; an adapter would change "
            f"one of the two alone ({tied[0].weight_name}, {tied[0].tied[0]}).",
            "Export the merged model instead.",
        )
    if not found:
        raise EngineError("This trial edits no weight, so there is nothing to adapt.", "Choose another trial.")
    pieces: list[Part | Bias] = []
    for done, edit in enumerate(found, start=1):
        pieces += parts_of(model, edit, profile.row_normalization, profile.adapter_rank, profile.adapter_error)
        report(Progress("export", done, len(found), "weights"))
    adapter = Adapter(
        [piece for piece in pieces if isinstance(piece, Part)], [piece for piece in pieces if isinstance(piece, Bias)]
    )
    if adapter.biases and not adapter.bias_factors:
        report(
            Note(
                f"The adapter brings {len(adapter.biases)} biases whole, since PEFT has no factors for them here: they "
                "stay changed even while the adapter is disabled."
            )
        )
    tensors = tensors_of(adapter, model, torch.float32 if dtype is None else getattr(torch, dtype))
    with _filled(folder, report), os_errors():
        config_of(adapter, model).save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors")
        model.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(model, record, profile, "adapter"), encoding="utf-8")
        _let_others_read(folder)
        size = _size(folder)
    return Written(size, adapter.rank, adapter.error)


def _size(folder: Path) -> int:
    """Bytes below a folder that another thread may be writing to."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def model_card(model: LanguageModel, record: TrialRecord, profile: Profile, form: str) -> str:
    """A model card that tells what was done, in the hub's format."""
    scores = "\n".join(f"| {_title(name)} | {_figure(score)} |" for name, score in record.scores.items())
    settings = {
        "direction_index": record.parameters.direction_index,
        "subspace_dimensions": record.parameters.subspace_dimensions,
        "passes": profile.passes,
        "row_normalization": profile.row_normalization,
        "orthogonalize_direction": profile.orthogonalize_direction,
        "ablated_components": profile.ablated_components,
        "ablated_layers": profile.ablated_layers,
        "ablate_embeddings": profile.ablate_embeddings,
        "kernels": record.parameters.as_json(),
    }
    where = style_of(profile).words
    name = shown_name(model)
    front = f"---\nbase_model: {json.dumps(name)}\ntags:\n- abliterated\n- directional-ablation\n---\n"
    kind = "A PEFT adapter for" if form == "adapter" else "An ablated version of"
    return (
        f"{front}\n# {kind} {name}\n\n"
        f"Made by directional ablation: {_taken(record, profile)} taken out of the weights "
        f"that write it{f' ({where})' if where else ''}.\n"
        f"Trial {record.trial} of a study with heretic-tui {__version__}.\n\n"
        f"What writes into the residual stream: {model.facts.coverage}.\n\n"
        f"| score | value |\n| --- | --- |\n{scores}\n\n## Parameters\n\n"
        f"```json\n{json.dumps(settings, indent=2)}\n```\n"
    )


def _taken(record: TrialRecord, profile: Profile) -> str:
    count = record.parameters.subspace_dimensions + profile.passes - 1
    return (
        "a direction of the residual stream was"
        if count == 1
        else f"up to {count} directions of the residual stream were"
    )


def _title(name: str) -> str:
    return name.replace("_", " ").replace("kl ", "KL ")


def _figure(score: Score) -> str:
    interval = score.interval()
    return score.text if interval is None else f"{score.text} (95%: {interval[0]:.1%} to {interval[1]:.1%})"
