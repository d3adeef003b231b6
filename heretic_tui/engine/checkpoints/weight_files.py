"""The weights of a safetensors checkpoint as places in files: read one by one, laid out anew, copied byte by byte.

Layout of a file: the specification of safetensors (the header's length, the header as JSON, the tensors' bytes).
"""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.checkpoints.headers import safetensors_header, unreadable
from heretic_tui.engine.checkpoints.model_files import read_object
from heretic_tui.engine.errors import EngineError
from heretic_tui.names import in_folder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CHUNK = 8 << 20
"""Bytes that are copied at once; a multiple of every value's size."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Safetensors' names of the data types that weights are edited and cast in."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Span:
    """A stored tensor: its name, data type in the file's own word, shape, and the bytes of `file` that hold it."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def values(self) -> int:
        """How many values it holds."""
        return torch.Size(self.shape).numel()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, as loading finds them; empty where there are none.

    Raises `EngineError` where the index is damaged or names a file that is not there.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        return []
    names = read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise EngineError(f"{folder / INDEX} does not say which file holds which tensor.", "Copy it again.")
    if strange := next((str(name) for name in names.values() if not in_folder(str(name))), None):
        raise EngineError(f"{folder / INDEX} names a file outside of the folder: {strange[:80]!r}.", "Copy it again.")
    files = [folder / str(name) for name in dict.fromkeys(names.values())]
    if lost := [file.name for file in files if not file.is_file()]:
        raise EngineError(f"{folder} lacks {len(lost)} of {len(files)} weight files ({lost[0]}).", "Copy them again.")
    return sorted(files)


def packing(source: Path | None) -> str | None:
    """How a checkpoint says that its weights are packed in a few bits, such as `mxfp4`; None where they are not."""
    if source is None or not (source / "config.json").is_file():
        return None
    found = read_object(source / "config.json").get("quantization_config")
    return str(found.get("quant_method", "quantized")) if isinstance(found, dict) else None


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every weight file of a checkpoint, to see later whether it is still the same."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in weight_files(folder)}


def spans(file: Path) -> list[Span]:
    """All tensors of one file, in the order of their bytes. Raises `EngineError` where it is damaged or cut short."""
    infos = safetensors_header(file)
    header, start = _header(file)
    found = []
    for name, info in infos.items():
        begin, end = json_offsets(header[name])
        found.append(Span(name, file, info.dtype, info.shape, start + begin, end - begin))
    return sorted(found, key=lambda span: (span.begin, span.size))


def json_offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Where a header's entry says that its tensor begins and ends, counted from the header's end."""
    begin, end = entry["data_offsets"]
    return int(begin), int(end)


def _header(file: Path) -> tuple[dict[str, Any], int]:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header: dict[str, Any] = json.loads(opened.read(length))
    except OSError as error:
        raise unreadable(file, error) from error
    return header, 8 + length


def read(span: Span) -> Tensor:
    """One tensor, in memory of its own; its data type must be one of `DTYPES`."""
    data = bytearray(span.size)
    with span.file.open("rb") as file:
        file.seek(span.begin)
        if file.readinto(data) != span.size:
            raise EngineError(f"{span.file} is cut short.", "Copy it again.")
    if not data:
        return torch.empty(span.shape, dtype=DTYPES[span.dtype])
    return torch.frombuffer(data, dtype=DTYPES[span.dtype]).reshape(span.shape)


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor as they are stored, without a copy where it lies in host memory in one piece."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    found: Any = flat.view(torch.uint8).numpy()
    return memoryview(found)


def digest(span: Span) -> str:
    """SHA-256 of a stored tensor's bytes, as hexadecimal digits."""
    found = hashlib.sha256()
    with span.file.open("rb") as file:
        for chunk in _chunks(file, span):
            found.update(chunk)
    return found.hexdigest()


def _chunks(file: Any, span: Span) -> Iterator[bytes]:
    file.seek(span.begin)
    left = span.size
    while left:
        chunk = file.read(min(left, CHUNK))
        if not chunk:
            raise EngineError(f"{span.file} is cut short.", "Copy it again.")
        left -= len(chunk)
        yield chunk


# A layout: the files that are to be


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file that is to be written: its header, and for each tensor where it comes from and where it goes."""

    file: Path
    header: bytes
    moves: tuple[tuple[Span, Span], ...]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(to.size for _, to in self.moves)


def layout(source: Sequence[Path], folder: Path, dtype: str | None, shard: int | None) -> list[Sheet]:
    """The files in `folder` that stand for `source`: the same files, or anew where a data type or a size is asked for.

    With neither, headers and places are the source's own to the byte. With a data type, what has the type of most of
    the source's values is cast. A `shard` is the most bytes of tensors that a file holds, but for one tensor alone.
    """
    found = {file: spans(file) for file in source}
    if dtype is None and shard is None:
        return [_copied(file, found[file], folder / file.name) for file in source]
    wanted = _wanted([span for some in found.values() for span in some], dtype)
    groups = list(found.values()) if shard is None else _grouped(found, wanted, shard)
    names = [file.name for file in source] if shard is None else shard_names(len(groups))
    return [_laid(group, folder / name, wanted) for group, name in zip(groups, names, strict=True)]


def _copied(file: Path, found: list[Span], to: Path) -> Sheet:
    start = _header(file)[1]
    with file.open("rb") as opened:
        header = opened.read(start)
    at = start
    for span in found:
        if span.begin != at:
            raise EngineError(f"{file} has a gap or an overlap between its tensors.", "Copy it again.")
        at += span.size
    return Sheet(to, header, tuple((span, replace(span, file=to)) for span in found))


def main_dtype(found: Sequence[Span]) -> str:
    """The data type of most of the values."""
    counts: Counter[str] = Counter()
    for span in found:
        counts[span.dtype] += span.values
    return max(counts, key=lambda dtype: counts[dtype], default="F32")


def _wanted(found: Sequence[Span], dtype: str | None) -> dict[str, str]:
    """What each data type of the source becomes."""
    kept = {span.dtype: span.dtype for span in found}
    main = main_dtype(found)
    if dtype is None or main not in DTYPES:
        return kept
    return kept | {main: NAMES[getattr(torch, dtype)]}


def _size(span: Span, wanted: Mapping[str, str]) -> int:
    dtype = wanted[span.dtype]
    return span.size if dtype == span.dtype else span.values * DTYPES[dtype].itemsize


def _grouped(found: Mapping[Path, list[Span]], wanted: Mapping[str, str], shard: int) -> list[list[Span]]:
    groups: list[list[Span]] = [[]]
    held = 0
    for span in (span for some in found.values() for span in some):
        size = _size(span, wanted)
        if groups[-1] and held + size > shard:
            groups.append([])
            held = 0
        groups[-1].append(span)
        held += size
    return groups


def shard_names(count: int) -> list[str]:
    """Names of weight files, as the library expects them."""
    if count == 1:
        return [SINGLE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _laid(group: Sequence[Span], to: Path, wanted: Mapping[str, str]) -> Sheet:
    # Wide values first, as the library lays them: then every tensor begins at a multiple of its values' size.
    ordered = sorted(group, key=lambda span: -_size(span, wanted) // max(span.values, 1))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for span in ordered:
        size = _size(span, wanted)
        entries[span.name] = {"dtype": wanted[span.dtype], "shape": list(span.shape), "data_offsets": [at, at + size]}
        at += size
    packed = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    packed += b" " * (-len(packed) % 8)
    header = struct.pack("<Q", len(packed)) + packed
    moves = []
    for span in ordered:
        begin, end = json_offsets(entries[span.name])
        target = Span(span.name, to, wanted[span.dtype], span.shape, len(header) + begin, end - begin)
        moves.append((span, target))
    return Sheet(to, header, tuple(moves))


def index(sheets: Sequence[Sheet]) -> str:
    """The text of the index of several files."""
    moves = [to for sheet in sheets for _, to in sheet.moves]
    names = {span.name: span.file.name for span in sorted(moves, key=lambda span: span.name)}
    facts = {"metadata": {"total_size": sum(span.size for span in moves)}, "weight_map": names}
    return json.dumps(facts, indent=2) + "\n"


def write(sheet: Sheet, told: Callable[[int], None]) -> dict[str, str]:
    """Write a file from the source's bytes, cast where the sheet says so; digests of what was written, by name.

    `told` is called with the bytes written since the last call. Raises OSError where the disk refuses.
    """
    digests = {}
    with sheet.file.open("wb") as file:
        file.write(sheet.header)
        told(len(sheet.header))
        for source, to in sheet.moves:
            found = hashlib.sha256()
            with source.file.open("rb") as opened:
                for chunk in _chunks(opened, source):
                    data = chunk if source.dtype == to.dtype else _cast(chunk, source.dtype, to.dtype)
                    file.write(data)
                    found.update(data)
                    told(len(data))
            digests[to.name] = found.hexdigest()
    return digests


def _cast(chunk: bytes, dtype: str, wanted: str) -> memoryview:
    return raw(torch.frombuffer(bytearray(chunk), dtype=DTYPES[dtype]).to(DTYPES[wanted]))
