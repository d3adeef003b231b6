"""Vectors out of files from elsewhere: safetensors, NumPy, JSON, GGUF control vectors, text. No torch, no pickles."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.checkpoints.headers import safetensors_header
from heretic_tui.engine.errors import EngineError

LARGEST = 2_000_000_000
"""Bytes of a file that is still read; directions are small."""
MOST_VECTORS = 100_000
_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
READABLE = ".safetensors, .npy, .npz, .json, .txt, .csv or .gguf"


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """A vector of a file: `key` is how to ask for it, such as `vectors[12]`; `row` counts within its tensor."""

    key: str
    vector: NDArray[Any]
    row: int | None = None

    @property
    def width(self) -> int:
        """Numbers in it."""
        return len(self.vector)


def read_vectors(path: Path) -> list[Found]:
    """All vectors in a file, in its own order. Raises `EngineError` where there is none, or the file is damaged."""
    if path.suffix.casefold() in _PICKLES:
        raise EngineError(
            f"{path.name} is a pickle, which may run code while it is read.",
            f"Save the vector as {READABLE} and import that.",
        )
    try:
        if path.stat().st_size > LARGEST:
            raise EngineError(f"{path} is too large for a file of directions.")
        arrays = _arrays(path)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read: {error.strerror or error}.", "Check that it is there and allowed."
        ) from error
    except (ValueError, KeyError, TypeError, struct.error, EOFError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise EngineError(f"{path} cannot be read: {reason}.", f"Give a {READABLE} file.") from error
    found = [one for name, array in arrays.items() for one in _rows(name, array)]
    if not found:
        raise EngineError(f"{path} holds no vector of numbers.", f"Give a {READABLE} file with one or more vectors.")
    return found


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    match path.suffix.casefold():
        case ".safetensors":
            return _safetensors(path)
        case ".npy":
            return {path.stem: np.load(path, allow_pickle=False)}
        case ".npz":
            with np.load(path, allow_pickle=False) as file:
                if sum(one.file_size for one in file.zip.infolist()) > LARGEST:
                    raise ValueError("it unpacks to more than a file of directions can hold")
                return {name: file[name] for name in file.files}
        case ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            named = content if isinstance(content, dict) else {path.stem: content}
            return {str(name): np.asarray(value, dtype=np.float64) for name, value in named.items() if _numbers(value)}
        case ".txt" | ".csv":
            words = path.read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ").split()
            return {path.stem: np.array([float(word) for word in words])}
        case ".gguf":
            return _gguf(path)
        case _:
            raise ValueError(f"files that end in {path.suffix or 'nothing'} are not known")


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int | float | list)


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All floating tensors; read by hand, since the library's NumPy side knows no bfloat16."""
    safetensors_header(path)  # refuses what is damaged, in plain words
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        content = file.read()
    arrays = {}
    for name, info in header.items():
        if name == "__metadata__" or (kind := _TYPES.get(info["dtype"])) is None:
            continue
        start, stop = info["data_offsets"]
        values: NDArray[Any] = np.frombuffer(content[start:stop], dtype=np.dtype(kind).newbyteorder("<"))
        if info["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = values.reshape(info["shape"])
    return arrays


def _gguf(path: Path) -> dict[str, NDArray[Any]]:
    from gguf import GGUFReader

    return {
        tensor.name: np.array(tensor.data, dtype=np.float64)
        for tensor in GGUFReader(str(path)).tensors
        if tensor.tensor_type.name in {"F32", "F16", "F64"}
    }


def _rows(name: str, array: NDArray[Any]) -> Iterator[Found]:
    if array.dtype.kind not in "fiu" or not array.size:
        return
    squeezed = array.reshape([length for length in array.shape if length != 1] or [1])
    if squeezed.ndim == 1:
        yield Found(name, squeezed)
        return
    rows = squeezed.reshape(-1, squeezed.shape[-1])
    if len(rows) > MOST_VECTORS:
        raise ValueError(f"{name} holds {len(rows)} vectors")
    yield from (Found(f"{name}[{row}]", vector, row) for row, vector in enumerate(rows))
