"""Verification of an exported model: each tensor of each file against what should stand there."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.errors import EngineError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PLAIN = ("F64", "F32", "F16", "BF16")
"""Safetensors' names of the data types whose values are numbers by themselves."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in an export that is in order.

    `changed` names tensors that an edit made another; with the `identical` ones they make up `tensors`. Of what the
    source's files have and it has not, `tied` are stored under another name too, and `unknown` to the loaded class.
    `kept` are unknown to that class and there all the same, such as the vision part beside a class for text only.
    `unpacked` are tensors of few bits whose values stand in the export as plain numbers, under other names.
    """

    tensors: int
    changed: tuple[str, ...]
    identical: int
    tied: tuple[str, ...]
    unknown: tuple[str, ...]
    kept: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()


def verify(
    folder: Path,
    expected: Mapping[str, Tensor],
    original: Mapping[str, Tensor],
    source: Path | None,
    report: Callable[[int, int], None],
    tied: Callable[[Sequence[str]], Collection[str]] = lambda _: (),
) -> Verification:
    """Compare the files in `folder` with `expected`, bit for bit; `original` holds the tensors before the edits.

    `tied` picks from names of the source's files those that loading ties to another tensor. Both states are by the
    names of a checkpoint; where several share their memory one of them is enough. Raises `EngineError` for the first
    tensor that is not there, is another one, or that nobody asked for.
    """
    stored = tensor_files(folder)
    present = {place(expected[name]) for name in stored if name in expected}
    lost = [name for name, tensor in expected.items() if name not in stored and place(tensor) not in present]
    if lost:
        raise failed(f"it lacks {_some(lost)}")
    strange = [name for name in stored if name not in expected]
    if strange:
        raise failed(f"it holds {_some(strange)}, which the model has not")
    opened = {file: _opened(file) for file in stored.values()}
    changed = []
    for done, (name, file) in enumerate(stored.items(), start=1):
        tensor, found = expected[name], opened[file].get_tensor(name)
        if found.shape != tensor.shape:
            raise failed(f"{name} has the shape {tuple(found.shape)} in place of {tuple(tensor.shape)}")
        if not same_bits(found, tensor):
            raise failed(f"{name} is not what was computed")
        if not same_bits(tensor, original[name]):
            changed.append(name)
        report(done, len(stored))
    missing, packed = _missing(stored, source)
    known = set(tied(missing))
    return Verification(
        len(stored),
        tuple(sorted(changed)),
        len(stored) - len(changed),
        tuple(name for name in missing if name in known),
        tuple(name for name in missing if name not in known),
        unpacked=packed,
    )


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same in type, shape and every bit; not-a-numbers equal themselves here."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if place(one) == place(other):
        return True
    flat = (tensor.to("cpu").contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return torch.equal(*flat)


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file that holds each tensor of a safetensors checkpoint; empty where the folder holds none.

    Raises `EngineError` for a file that cannot be read.
    """
    if (folder / INDEX).is_file():
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = [folder / file for file in dict.fromkeys(names.values())]
    else:
        files = [folder / SINGLE] if (folder / SINGLE).is_file() else []
    return {name: file for file in files for name in _opened(file).keys()}  # noqa: SIM118 - a file, not a mapping


def _missing(stored: Mapping[str, Path], source: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the source's files that the export lacks: plain numbers, and packed ones.

    Raises `EngineError` where the shape of plain numbers differs.
    """
    there = {} if source is None else tensor_files(source)
    opened = {file: _opened(file) for file in {*there.values(), *stored.values()}}
    dtypes = {name: opened[file].get_slice(name).get_dtype() for name, file in there.items()}
    for name in there.keys() & stored.keys():
        before, after = (tuple(opened[files[name]].get_slice(name).get_shape()) for files in (there, stored))
        if before != after and dtypes[name] in PLAIN:
            raise failed(f"{name} has the shape {after}; in {source} it has {before}")
    missing = sorted(there.keys() - stored.keys())
    return (
        tuple(name for name in missing if dtypes[name] in PLAIN),
        tuple(name for name in missing if dtypes[name] not in PLAIN),
    )


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise EngineError(f"{file} cannot be read back ({error}).", "Check the disk, and export again.") from error


def place(tensor: Tensor) -> tuple[Any, ...]:
    """What two views of the same memory have in common."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def failed(why: str) -> EngineError:
    """Say that an export is not what it should be."""
    return EngineError(
        f"The export did not pass its verification: {why}.", "Nothing was put in its place. Check the disk; try again."
    )
