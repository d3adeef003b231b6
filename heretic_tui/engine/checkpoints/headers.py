"""Headers of weight files, read without a single weight: safetensors and GGUF."""

import json
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heretic_tui.engine.errors import EngineError

LONGEST_HEADER = 100_000_000
"""Bytes: what the safetensors library itself allows a header to have."""
MOST_ENTRIES = 10_000_000
"""More tensors, keys or array items than this stand in no honest file."""

AGAIN = "Download or copy the file again."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A stored tensor: its data type in the file's own words, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many values it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes of a safetensors file's tensors.

    Raises `EngineError` where the file cannot be read, is no safetensors file or is shorter than it says.
    """
    try:
        with path.open("rb") as file:
            room = path.stat().st_size - 8
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(room, LONGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(entry) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, RecursionError) as error:
        raise EngineError(f"{path} is no safetensors file, or is damaged.", AGAIN) from error
    if end > room - length:
        raise EngineError(f"{path} is cut short: {end + length - room} bytes are missing.", AGAIN)
    return tensors


def _tensor(entry: dict[str, Any]) -> TensorInfo:
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(length) is int and length >= 0 for length in (*shape, begin, end)):
        raise ValueError("a shape or an offset is no number")
    tensor = TensorInfo(str(entry["dtype"]), shape)
    if tensor.values > 8 * (end - begin):  # not even a bit for each
        raise ValueError("a shape is larger than what is stored")
    return tensor


@dataclass(slots=True)
class GGUFHeader:
    """What a GGUF file says of itself: plain values, lengths of its arrays, and tensors `(out, in)`.

    Arrays of numbers stand in `values` too where they are short, such as one number a layer.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)


def gguf_header(path: Path) -> GGUFHeader:
    """Metadata and tensor shapes of a GGUF file; raises `EngineError` where it is none, or is damaged.

    The `gguf` package's own reader makes an object of every token and takes seconds; this one walks past them.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(data).header()
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, OverflowError, struct.error) as error:
        raise EngineError(f"{path} is no GGUF file that can be read ({error}).", AGAIN) from error


_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's codes of numeric types, as `struct` writes them."""
_STRING, _ARRAY = 8, 9
_SHORT = 4096
"""Arrays up to this length are kept."""


class _Walk:
    """A position in a GGUF file that moves forward. Layout: the specification of GGUF, versions 2 and 3."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def header(self) -> GGUFHeader:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"its version or byte order is not known: {version:#x}")
        tensors, keys = self.count(), self.count()
        found = GGUFHeader()
        for _ in range(keys):
            self.entry(self.text(), found)
        furthest = 0
        for _ in range(tensors):
            name, dimensions = self.text(), self.number("I")
            if dimensions > 8:
                raise ValueError("a tensor has too many dimensions")
            shape = self.numbers("Q", dimensions)
            dtype, offset = self.number("I"), self.number("Q")
            furthest = max(furthest, offset)
            found.tensors[name] = TensorInfo(str(dtype), tuple(reversed(shape)))
        if tensors:
            self.skip(furthest)  # the offsets count from here
        if sum(tensor.values for tensor in found.tensors.values()) > 8 * len(self.data):
            raise ValueError("it is cut short")
        return found

    def entry(self, key: str, found: GGUFHeader) -> None:
        kind = self.number("I")
        if kind == _STRING:
            found.values[key] = self.text()
        elif kind == _ARRAY:
            inner, length = self.number("I"), self.count()
            found.lengths[key] = length
            if inner == _STRING:
                for _ in range(length):
                    self.skip(self.number("Q"))
            elif length <= _SHORT:
                found.values[key] = list(self.numbers(_code(inner), length))
            else:
                self.skip(length * struct.calcsize("<" + _code(inner)))
        else:
            found.values[key] = self.number(_code(kind))

    def numbers(self, code: str, length: int) -> tuple[Any, ...]:
        packed = struct.Struct(f"<{length}{code}")
        values = packed.unpack_from(self.data, self.at)
        self.at += packed.size
        return values

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def count(self) -> int:
        count: int = self.number("Q")
        if count > MOST_ENTRIES:
            raise ValueError("it counts more entries than a file can hold")
        return count

    def text(self) -> str:
        length = self.number("Q")
        begin = self.at
        self.skip(length)
        return self.data[begin : self.at].decode("utf-8", errors="replace")

    def skip(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise ValueError("it is cut short")
        self.at += length


def _code(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"there is no value of type {kind}")
    return _NUMBERS[kind]


def unreadable(path: Path, error: OSError) -> EngineError:
    """Say that a file of a model cannot be read, and why."""
    return EngineError(f"{path} cannot be read: {error.strerror or error}.", "Check the path and its permissions.")
