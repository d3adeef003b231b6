"""Streaming merge: the source's own files written anew, with the edited weights in their places and nothing else moved.

The files are copied first, byte by byte; then one weight at a time is read from the source, edited and written over its
copy. So names, layout, tensors that the loaded class does not know and those that it ties stay as they are, and memory
holds one weight at a time, whatever the model weighs.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.ablation.style import RowNormalization
from heretic_tui.engine.ablation.weight_edits import Edit, edited
from heretic_tui.engine.background import Report
from heretic_tui.engine.checkpoints.four_bits import is_four_bit, unpacked, was_transposed
from heretic_tui.engine.checkpoints.origins import Origin, UnknownOrigin, assemble, origins, take_apart
from heretic_tui.engine.checkpoints.weight_files import (
    DTYPES,
    INDEX,
    Sheet,
    Span,
    digest,
    index,
    layout,
    main_dtype,
    packing,
    raw,
    read,
    spans,
    stamps,
    weight_files,
    write,
)
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress, Tick
from heretic_tui.engine.export.verification import Verification, failed
from heretic_tui.engine.model.language_model import LanguageModel

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".ckpt"}
"""Endings of files that hold weights; every other file of the source is copied."""
CARD = "README.md"
SOURCE_CARD = "README.source.md"
"""What the source's own model card is called beside the export's."""
FURTHEST = 0.3
"""Relative distance of weights in 4 bits from what they were made of: usually 0.09; that of other weights is 1.4."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge that is ready to be written: the files to be, and the origins of the weights that the edits change."""

    sheets: list[Sheet]
    edits: list[Edit]
    origins: Mapping[str, Origin]
    beyond: tuple[str, ...] = ()
    """Names of the source's tensors that the loaded class does not know."""

    @property
    def size(self) -> int:
        """Bytes of all weight files."""
        return sum(sheet.size for sheet in self.sheets)


@dataclass(frozen=True, slots=True)
class Merged:
    """Digests of what was written, by the checkpoint's names, and which of them are edits that changed something."""

    digests: Mapping[str, str]
    changed: tuple[str, ...]


def plan(model: LanguageModel, edits: list[Edit], folder: Path, dtype: str | None, shard: int | None) -> Merge | None:
    """How `model`'s source becomes the export in `folder`; None where the source has no safetensors.

    Raises `UnknownOrigin` where it cannot be said which of the source's tensors an edited weight is made of.
    """
    files = [] if model.source is None else weight_files(model.source)
    if not files:
        return None
    sheets = layout(files, folder, dtype, shard)
    sources = {span.name: span for sheet in sheets for span, _ in sheet.moves}
    found = origins(model.network, sources)
    wanted = {}
    packed = packing(model.source)
    placed = [one for edit in edits for one in _by_stored_name(edit, found)]
    for name in (name for edit in placed for name in (edit.writer.weight_name, edit.writer.bias_name)):
        if name is None:
            continue
        if packed and (name not in found or any(sources[part].dtype not in DTYPES for part in found[name].names)):
            raise UnknownOrigin(f"{name} is packed in its files ({packed})")
        if name not in found:
            raise UnknownOrigin(f"no tensor of the source becomes {name}")
        if odd := [part for part in found[name].names if sources[part].dtype not in DTYPES]:
            raise UnknownOrigin(f"{odd[0]} is stored as {sources[odd[0]].dtype}")
        wanted[name] = found[name]
    known = {name for origin in found.values() for name in origin.names}
    return Merge(sheets, placed, wanted, tuple(sorted(sources.keys() - known)))


def _by_stored_name(edit: Edit, found: Mapping[str, Origin]) -> list[Edit]:
    """An edit of a tied weight by each of its names that the source stores; of others the edit itself."""
    names = [name for name in (edit.writer.weight_name, *edit.writer.tied) if name in found]
    if not edit.writer.tied or not names:
        return [edit]
    return [replace(edit, writer=replace(edit.writer, weight_name=name)) for name in names]


def write_merge(
    model: LanguageModel, merge: Merge, row_normalization: RowNormalization, report: Callable[[int], None]
) -> Merged:
    """Write all weight files, and edit what is to be edited. `report` is told of the bytes written since last time.

    Raises `UnknownOrigin` where a weight in memory is not what its origin gives, OSError where the disk refuses.
    """
    copied: dict[str, str] = {}
    for sheet in merge.sheets:
        copied |= write(sheet, report)
    sources = {to.name: (source, to) for sheet in merge.sheets for source, to in sheet.moves}
    edits = {}
    for edit in merge.edits:
        for name, data in _edited_tensors(model, merge, edit, row_normalization, sources):
            edits[name] = _overwrite(sources[name][1], data)
            report(0)
    for sheet in merge.sheets:
        with sheet.file.open("rb") as file:
            os.fsync(file.fileno())
    return Merged(copied | edits, tuple(sorted(name for name, found in edits.items() if found != copied[name])))


def _edited_tensors(
    model: LanguageModel,
    merge: Merge,
    edit: Edit,
    row_normalization: RowNormalization,
    sources: Mapping[str, tuple[Span, Span]],
) -> Iterator[tuple[str, Tensor]]:
    """What an edit makes of the source's tensors, each in the data type that it is to be written in."""
    writer = edit.writer
    live = [writer.weight, writer.bias]
    found = [None if name is None else merge.origins[name] for name in (writer.weight_name, writer.bias_name)]
    stored = [[] if origin is None else [read(sources[name][0]) for name in origin.names] for origin in found]
    whole = [
        None if origin is None else _proved(model, origin, parts, parameter)
        for origin, parts, parameter in zip(found, stored, live, strict=True)
    ]
    weight, bias = whole
    if weight is None:
        raise UnknownOrigin(f"{writer.name} has no weight")
    # Of packed weights it is the checkpoint's own values that are edited, which may lie the other way round in it.
    turned = writer.packed and was_transposed(model.network.get_submodule(writer.name))
    if writer.weight.is_meta:  # only outlined: what is edited, and where, is what was read
        edit = replace(edit, writer=replace(writer, weight=weight))
    results = edited_parameters(edit, weight, bias, row_normalization, transposed=turned or writer.transposed)
    for origin, parts, made in zip(found, stored, results, strict=True):
        if origin is None or made is None:
            continue
        # Rounded as it was when the trial was measured, where the source is of the live model's type; only then cast.
        apart = take_apart(model.network, origin, made.to("cpu", parts[0].dtype))
        for name, tensor in zip(origin.names, apart, strict=True):
            yield name, tensor.to(DTYPES[sources[name][1].dtype])


def _proved(model: LanguageModel, origin: Origin, parts: list[Tensor], live: Tensor | None) -> Tensor:
    """The parameter that the source's tensors give, which must be the one in memory, value by value, and back."""
    whole = assemble(model.network, origin, list(parts))
    if live is not None and is_four_bit(live):
        if not _near(unpacked(live).cpu(), whole.float(), model, origin):
            raise UnknownOrigin(f"{origin.parameter} in memory is far from what {origin.names[0]} of the source gives")
    elif live is not None and live.is_floating_point() and not _gives(whole, live):
        raise UnknownOrigin(f"{origin.parameter} in memory is not what {origin.names[0]} of the source gives")
    back = take_apart(model.network, origin, whole)
    if not all(one.shape == other.shape and torch.equal(one, other) for one, other in zip(back, parts, strict=True)):
        raise UnknownOrigin(f"{origin.parameter} cannot be taken apart again")
    return whole


def _near(live: Tensor, stored: Tensor, model: LanguageModel, origin: Origin) -> bool:
    """Whether packed values are those of the checkpoint but for their rounding, which in NF4 is about a tenth."""
    if was_transposed(model.network.get_submodule(origin.parameter.rpartition(".")[0])):
        stored = stored.mT
    return live.shape == stored.shape and bool(torch.dist(live, stored) <= FURTHEST * torch.linalg.norm(stored))


def _gives(whole: Tensor, live: Tensor) -> bool:
    """Whether these are the values in memory; weights on the meta device have none, only a shape."""
    return whole.shape == live.shape and (live.is_meta or torch.equal(whole.to(live.dtype), live.detach().to("cpu")))


def edited_parameters(
    edit: Edit, weight: Tensor, bias: Tensor | None, row_normalization: RowNormalization, *, transposed: bool
) -> tuple[Tensor, Tensor | None]:
    """What an edit makes of a weight, which may lie transposed, and a bias: float32, on the writer's device."""
    matrix, made = edited(edit, weight.mT if transposed else weight, bias, row_normalization)
    return matrix.mT if transposed else matrix, made


def _overwrite(span: Span, tensor: Tensor) -> str:
    """Write a tensor over what stands at its place; the digest of its bytes."""
    data = raw(tensor)
    if len(data) != span.size:
        raise UnknownOrigin(f"{span.name} would change its shape")
    with span.file.open("r+b") as file:
        file.seek(span.begin)
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def write_side_files(
    source: Path, folder: Path, sheets: Sequence[Sheet], dtype: str | None, *, anew: bool
) -> tuple[str, ...]:
    """Copy all of the source that is no weights, and write the index; `anew` where the shards are not the source's.

    Gives what was left out: links that lead out of the model, for what they lead to may be anything of this machine.
    """
    left_out = tuple(_copy_sides(source, folder, _places(source)))
    single = len(sheets) == 1 and sheets[0].file.name == "model.safetensors"
    (folder / INDEX).unlink(missing_ok=True)
    if anew and not single:
        (folder / INDEX).write_text(index(sheets), encoding="utf-8")
    elif (source / INDEX).is_file() and not single:
        shutil.copyfile(source / INDEX, folder / INDEX)
    if dtype is not None:
        _tell_dtype(folder / "config.json", main_dtype([span for sheet in sheets for span, _ in sheet.moves]), dtype)
    return left_out


def _places(source: Path) -> tuple[Path, ...]:
    """Where a model's own files are: its folder, and the one that its configuration is linked from, as in the cache."""
    return source.resolve(), (source / "config.json").resolve().parent


def _copy_sides(source: Path, folder: Path, places: tuple[Path, ...]) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if not any(path.resolve().is_relative_to(place) for place in places):
            yield path.name
            continue
        if path.is_dir():
            # A folder with weights in it is another model, or a checkpoint of this one's training.
            if not any(file.suffix in WEIGHTS for file in path.rglob("*")):
                yield from _copy_sides(path, folder / path.name, places)
        elif path.is_file() and path.suffix not in WEIGHTS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / (SOURCE_CARD if path.name == CARD else path.name))


def _tell_dtype(path: Path, main: str, dtype: str) -> None:
    """Let the configuration name the data type that the weights were cast to."""
    old = str(DTYPES[main]).removeprefix("torch.") if main in DTYPES else None

    def told(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: told(item, name) for name, item in value.items()}
        return dtype if key in {"dtype", "torch_dtype"} and value == old else value

    config = told(json.loads(path.read_text(encoding="utf-8")))
    if "torch_dtype" not in config:
        config["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def verify_merge(merge: Merge, merged: Merged, report: Report) -> Verification:
    """Read the written files back: every tensor of the source, in its shape and data type, and the very bytes.

    Raises `EngineError` for the first that is not there or is another one.
    """
    wanted = {to.name: to for sheet in merge.sheets for _, to in sheet.moves}
    there = {span.name: span for sheet in merge.sheets for span in spans(sheet.file)}
    if lost := [name for name in wanted if name not in there]:
        raise failed(f"it lacks {lost[0]}")
    if strange := [name for name in there if name not in wanted]:
        raise failed(f"it holds {strange[0]}, which the source has not")
    for done, (name, found) in enumerate(there.items(), start=1):
        if found.shape != wanted[name].shape:
            raise failed(f"{name} has the shape {found.shape} in place of {wanted[name].shape}")
        if found.dtype != wanted[name].dtype:
            raise failed(f"{name} is stored as {found.dtype} in place of {wanted[name].dtype}")
        if digest(found) != merged.digests[name]:
            raise failed(f"{name} is not what was computed")
        report(Progress("verify", done, len(there), "tensors"))
    return Verification(len(there), merged.changed, len(there) - len(merged.changed), (), (), merge.beyond)


# The source, since it was loaded


def check_source(model: LanguageModel) -> None:
    """Raise `EngineError` where a weight file of the source is no longer the one that was loaded."""
    if model.source is None:
        return
    now = stamps(model.source)
    changed = [name for name in {*now, *model.stamps} if now.get(name) != model.stamps.get(name)]
    if model.stamps and changed:
        raise EngineError(
            f"{model.source / min(changed)} has changed since the model was loaded.",
            "Nothing was written. Check that it is the right model, and start again, so that it is loaded afresh.",
        )


def pulse(report: Report, total: int) -> Callable[[int], None]:
    """A counter of bytes that tells about every step of a percent, and lets the job be stopped at each other."""
    done, told = 0, 0

    def count(more: int) -> None:
        nonlocal done, told
        done += more
        if done - told >= total / 100:
            told = done
            report(Progress("export", min(done, total), total, "B"))
        else:
            report(Tick())

    return count
