"""What a model's files say before any weight is read: from a folder, a GGUF file, or the hub."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heretic_tui.engine.checkpoints.headers import GGUFHeader, TensorInfo, gguf_header, safetensors_header, unreadable
from heretic_tui.engine.errors import EngineError, first_line

PATIENCE = 5.0
"""Seconds to wait for each answer of the hub."""
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
"""Names of the weight files that loading looks for."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Configuration and shapes of a model, as stored; `size` is in bytes of weight files.

    `stored` counts values by data type where `tensors` are not known one by one, as on the hub.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    pickled: bool = False
    licence: str | None = None
    chat_template: bool = False


def folder_files(folder: Path) -> ModelFiles:
    """Read a folder with config.json; raises `EngineError` where a file is missing, damaged or cut short."""
    if not (folder / "config.json").is_file():
        raise EngineError(
            f"{folder} holds no config.json, so it is not a model.", "Give the folder that holds config.json."
        )
    config = read_object(folder / "config.json")
    files = _safetensors_files(folder)
    tensors = {name: info for file in files for name, info in safetensors_header(file).items()}
    pickled = [] if files else [file for file in _names(folder) if PICKLED.fullmatch(file.name)]
    return ModelFiles(
        config,
        tensors,
        stored_values(tensors),
        size=sum(_size(file) for file in files or pickled),
        pickled=bool(pickled),
        licence=_licence(folder / "README.md"),
        chat_template=_has_template(folder),
    )


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        return []
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(WEIGHTS.fullmatch(str(name)) for name in shards.values()):
        raise EngineError(f"{index} does not say which file holds which tensor.", "Download or copy it again.")
    files = [folder / name for name in sorted(set(shards.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise EngineError(
            f"{folder} lacks {len(missing)} of {len(files)} weight files ({missing[0]}).",
            "Download or copy them again.",
        )
    return files


def gguf_files(path: Path) -> ModelFiles:
    """Read a GGUF file, its keys translated into those of a config.json.

    Raises `EngineError` where it is no GGUF file, is damaged, or is one part of several.
    """
    header = gguf_header(path)
    parts = header.values.get("split.count", 1)
    if parts != 1:
        raise EngineError(f"{path} is one of {parts} parts.", "Join them with `llama-gguf-split --merge`.")
    return ModelFiles(
        _gguf_config(header),
        header.tensors,
        stored_values(header.tensors),
        size=_size(path),
        licence=_text(header.values.get("general.license")),
        chat_template=bool(header.values.get("tokenizer.chat_template")),
    )


_GGUF_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "v_head_dim": "attention.value_length",
    "num_experts": "expert_count",
    "vocab_size": "vocab_size",
}


def _gguf_config(header: GGUFHeader) -> dict[str, Any]:
    from gguf import LlamaFileType

    architecture = _text(header.values.get("general.architecture")) or "unknown"
    kinds = {kind.value: kind.name.partition("_")[2] for kind in LlamaFileType}
    kind = header.values.get("general.file_type")
    config = {ours: header.values.get(f"{architecture}.{theirs}") for ours, theirs in _GGUF_KEYS.items()}
    return {name: value for name, value in config.items() if value is not None} | {
        "architectures": [architecture],
        "vocab_size": config["vocab_size"] or header.lengths.get("tokenizer.ggml.tokens", 0),
        "dtype": kinds.get(kind, "GGUF") if isinstance(kind, int) else "GGUF",
    }


def hub_files(name: str) -> ModelFiles:
    """Ask the hub about the model `name`, downloading nothing but its small text files.

    Raises `EngineError` where the hub cannot be reached, knows no such model, or wants terms to be accepted first.
    """
    try:
        return _hub_files(name)
    except Exception as error:
        raise hub_error(name, error) from error


def _hub_files(name: str) -> ModelFiles:
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, timeout=PATIENCE, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    if "config.json" not in sizes:
        ggufs = any(file.endswith(".gguf") for file in sizes)
        raise EngineError(
            f"{name} has no config.json{', only GGUF files' if ggufs else ''}, so it cannot be loaded by its id.",
            "Download one of its GGUF files and give its path." if ggufs else "Choose another model.",
        )
    config = _fetched(name, "config.json", info.sha)
    weights = [file for file in sizes if WEIGHTS.fullmatch(file)]
    pickled = [] if weights else [file for file in sizes if PICKLED.fullmatch(file)]
    tokenizer = "tokenizer_config.json"
    return ModelFiles(
        config,
        stored=dict(info.safetensors.parameters) if info.safetensors else {},
        size=sum(sizes[file] for file in weights or pickled),
        pickled=bool(pickled),
        licence=_text(info.card_data.get("license")) if info.card_data else None,
        chat_template="chat_template.jinja" in sizes
        or (tokenizer in sizes and bool(_fetched(name, tokenizer, info.sha).get("chat_template"))),
    )


def _fetched(name: str, file: str, revision: str | None) -> dict[str, Any]:
    """A small JSON file of the hub, straight into memory: in the cache it would pass for a downloaded model."""
    from huggingface_hub import get_session, get_token, hf_hub_url, hf_raise_for_status

    url, token = hf_hub_url(name, file, revision=revision), get_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = get_session().get(url, headers=headers, timeout=PATIENCE)
    hf_raise_for_status(answer)
    return _object(answer.text, f"{file} of {name}")


def hub_error(name: str, error: Exception) -> EngineError:
    """Say in plain words why the hub has not told about the model `name`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    match error:
        case EngineError():
            return error
        case HFValidationError():
            return EngineError(
                f"{name} is neither a folder here nor the id of a model on the hub.",
                "Give a folder, a .gguf file, or an id such as organisation/model.",
            )
        case GatedRepoError():
            return EngineError(
                f"{name} is gated: its owner wants you to accept terms first.",
                "Accept them on the model's page, then log in with `hf auth login`.",
            )
        case RepositoryNotFoundError():
            return EngineError(
                f"There is no model {name} on the hub, or it is private.",
                "Check the spelling, or log in with `hf auth login`.",
            )
        case OfflineModeIsEnabled():
            return EngineError(
                f"{name} is not in the local cache, and HF_HUB_OFFLINE forbids asking the hub.",
                "Unset HF_HUB_OFFLINE, or give the path of a model's folder.",
            )
        case HfHubHTTPError():
            code = error.response.status_code
            return EngineError(f"The hub answered {code} when asked about {name}.", "Try again later.")
        case _:
            return EngineError(
                f"The hub could not be reached to ask about {name} ({first_line(error)}).",
                "Check the network connection, or give the path of a model's folder.",
            )


def stored_values(tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """How many values are stored of each data type."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[tensor.dtype] += tensor.values
    return dict(counts)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises `EngineError` where it cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise EngineError(f"{path} is no UTF-8 text.", "Download or copy it again.") from error
    return _object(text, str(path))


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{place} is damaged: it is no JSON.", "Download or copy it again.") from error
    if not isinstance(value, dict):
        raise EngineError(f"{place} is damaged: it holds no JSON object.", "Download or copy it again.")
    return value


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(read_object(settings).get("chat_template"))


_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license:[ \t]*(?:\r?\n[ \t]*-)?[ \t]*[\"']?([^\"'#\r\n]+)", re.MULTILINE)


def _licence(card: Path) -> str | None:
    """The licence that a model card's front matter names; None where there is no card or it names none."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            front = _FRONT_MATTER.match(file.read(100_000))
    except OSError:
        return None
    found = _LICENCE.search(front[1]) if front else None
    return found[1].strip() or None if found else None


def _text(value: Any) -> str | None:
    """A text, or the first of several; None for anything else."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def _names(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise unreadable(file, error) from error
