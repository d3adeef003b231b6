"""Facts of a model before it is loaded, from its configuration and the shapes of its tensors alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heretic_tui.engine.checkpoints.catalog import ModelEntry
from heretic_tui.engine.checkpoints.headers import TensorInfo
from heretic_tui.engine.checkpoints.model_config import (
    architecture,
    cache_bytes_per_token,
    context_length,
    dimensions,
    expected_writers,
    text_config,
)
from heretic_tui.engine.checkpoints.model_files import ModelFiles, folder_files, gguf_files, hub_files
from heretic_tui.engine.checkpoints.stored_tensors import EMBEDDING, HEAD, Packing, count_writers, is_buffer, packable
from heretic_tui.engine.errors import EngineError

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Safetensors' names of data types, and torch's."""


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What a model's files tell before it is loaded.

    `size` is in bytes of weight files, `cache_bytes_per_token` in bytes at 2 bytes a value, over all layers.
    `parameters` is None where only loading would tell. `writers_expected` counts residual writers by component,
    every expert as one; `writer_parameters` are the values in them, `embedding_parameters` those in embeddings
    and head, `packable_parameters` those that loading in 4 bits packs, and `largest_matrix` those in the largest of
    these. `needs_code` says that the configuration names Python code of the repository.
    """

    name: str
    architecture: str
    parameters: int | None
    layers: int
    width: int
    dtype: str
    size: int
    licence: str | None
    chat_template: bool
    context_length: int | None
    needs_code: bool
    pickled: bool
    experts: int
    writers_expected: Mapping[str, int]
    cache_bytes_per_token: int
    vocabulary: int
    writer_parameters: int = 0
    embedding_parameters: int = 0
    packable_parameters: int = 0
    largest_matrix: int = 0


def read_facts(model: ModelEntry | Path | str) -> CheckpointFacts:
    """Facts of a model on this machine: an entry of the catalog, a folder, a GGUF file or the id of a cached model.

    Reads no weights. Raises `EngineError` where a file is missing, damaged or cut short.
    """
    if isinstance(model, ModelEntry):
        return _facts(model.name, _files(model.path))
    try:
        path = Path(model).expanduser()
        if not path.exists() and isinstance(model, str):
            path = _cached(model) or path
        files = _files(path)
    except (OSError, RuntimeError) as error:  # too long for a path, or in the home of nobody
        raise _nowhere(model) from error
    return _facts(str(model), files)


def _files(path: Path) -> ModelFiles:
    if path.suffix == ".gguf" and path.is_file():
        return gguf_files(path)
    if not path.is_dir():
        raise _nowhere(path)
    ggufs = [] if (path / "config.json").is_file() else sorted(path.glob("*.gguf"))
    return gguf_files(ggufs[0]) if len(ggufs) == 1 else folder_files(path)


def _nowhere(model: Path | str) -> EngineError:
    return EngineError(
        f"There is no model {model} on this machine.", "Give a folder, a .gguf file, or the id of a cached model."
    )


def _cached(name: str) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE)
    except (HFValidationError, OSError):
        return None
    return Path(found).parent if isinstance(found, str) else None


def facts_of_hub(name: str) -> CheckpointFacts:
    """Facts of a model on the hub, without downloading it; waits a few seconds for each answer at most.

    Raises `EngineError` where the hub cannot be reached, knows no such model, or wants terms to be accepted first.
    """
    return _facts(name, hub_files(name))


def _facts(name: str, files: ModelFiles) -> CheckpointFacts:
    config = text_config(files.config)
    packing = Packing.of(files.config.get("quantization_config") or config.get("quantization_config"))
    tied = config.get("tie_word_embeddings") is True
    tensors = {tensor: info for tensor, info in files.tensors.items() if not is_buffer(tensor, info)}
    embedding = next((info.shape for tensor, info in tensors.items() if EMBEDDING.search(tensor)), ())
    if tied and embedding:  # a head that is stored all the same is the embedding once more
        tensors = {tensor: info for tensor, info in tensors.items() if not HEAD.search(tensor)}
    sizes = {tensor: packing.values(tensor, info) for tensor, info in tensors.items()}
    model = dimensions(name, config, embedding)
    writers = count_writers(tensors, sizes, model.layers) if tensors else expected_writers(config, model)
    parameters = sum(sizes.values()) or _unnamed(files.stored, packing)
    packed = [sizes[tensor] for tensor, info in tensors.items() if packing.bits or packable(tensor, info)]
    ends = sum(size for tensor, size in sizes.items() if EMBEDDING.search(tensor) or HEAD.search(tensor))
    ends = ends or model.vocabulary * model.width * (1 if tied else 2)
    return CheckpointFacts(
        name=name,
        architecture=architecture(files.config),
        parameters=parameters or None,
        layers=model.layers,
        width=model.width,
        dtype=packing.name or _dtype(config, files.stored),
        size=files.size,
        licence=files.licence,
        chat_template=files.chat_template,
        context_length=context_length(config),
        needs_code=bool(files.config.get("auto_map")),
        pickled=files.pickled,
        experts=model.experts,
        writers_expected={component: found.count for component, found in writers.items()},
        cache_bytes_per_token=cache_bytes_per_token(config, model),
        vocabulary=model.vocabulary,
        writer_parameters=sum(found.values for found in writers.values()),
        embedding_parameters=ends,
        packable_parameters=sum(packed) if tensors else max(0, parameters - ends),
        largest_matrix=max(packed, default=0),
    )


def _unnamed(stored: Mapping[str, int], packing: Packing) -> int:
    """Parameters where only the values of each data type are known."""
    return sum(packing.values("", TensorInfo(dtype, (count,))) for dtype, count in stored.items())


def _dtype(config: Mapping[str, Any], stored: Mapping[str, int]) -> str:
    """The data type of most of the values, or the one that the configuration names."""
    known = {_DTYPES[kind]: count for kind, count in stored.items() if kind in _DTYPES}
    if known:
        return max(known, key=lambda dtype: known[dtype])
    named = config.get("dtype") or config.get("torch_dtype")
    return named.removeprefix("torch.") if isinstance(named, str) else "unknown"
