"""Why a model could not be loaded, in plain words."""

import json
import re

from heretic_tui.engine.checkpoints.permissions import not_allowed, pickled
from heretic_tui.engine.checkpoints.weight_files import packing
from heretic_tui.engine.errors import EngineError, first_line
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.sources import Source


def loading_error(name: str, source: Source, error: BaseException) -> EngineError:
    """Say in plain words why a model's files could not be loaded."""
    if isinstance(error, EngineError):
        return error
    text = str(error)
    if out_of_memory(error):
        return EngineError(f"{name} does not fit into memory.", 'Use a smaller model, or quantization = "bnb_4bit".')
    if type(error).__name__ == "SafetensorError":
        return EngineError(
            f"A safetensors file in {source.folder} is corrupt or truncated ({first_line(error)}).",
            "Download or copy the file again.",
        )
    if isinstance(error, json.JSONDecodeError) or "not a valid JSON file" in text:
        return EngineError(f"A JSON file in {source.folder} is damaged ({first_line(error)}).", "Copy it again.")
    if source.gguf:
        return EngineError(
            f"{name} is corrupt, truncated, or of a kind that cannot be read ({first_line(error)}).",
            "Download or copy it again.",
        )
    if isinstance(error, FileNotFoundError):
        return EngineError(f"A file of the model is missing: {error.filename or text}.", "Download or copy it again.")
    if isinstance(error, ImportError) and (method := packing(source.folder)):
        return EngineError(
            f"The weights of {name} are packed in a few bits ({method}), which cannot be read here "
            f"({first_line(error)}).",
            "Use the checkpoint that is not quantized; packed weights cannot be edited in any case.",
        )
    return _by_its_words(name, source, error)


def _by_its_words(name: str, source: Source, error: BaseException) -> EngineError:
    """What the library's own message tells of a failure that its kind does not."""
    text = str(error)
    if unknown := re.search(r"has model type `(.*?)` but", text):
        return EngineError(
            f"{name} is of the kind {unknown[1]!r}, which the installed transformers does not know.",
            "Check model_type in config.json, or install a newer transformers.",
        )
    if "model_type` key" in text:
        return EngineError(f"{source.folder / 'config.json'} names no model_type.", "Copy the file again.")
    if "backend tokenizer" in text:
        return EngineError(
            f"{source.folder} holds no tokenizer that can be read.",
            "Copy tokenizer.json and tokenizer_config.json into it.",
        )
    if "ignore_mismatched_sizes" in text:
        return EngineError(
            f"The weights in {source.folder} have other shapes than config.json says.",
            "Copy config.json and the weights again, both of the same model.",
        )
    if "trust_remote_code" in text:
        return not_allowed(name, "code")
    if "no file named" in text.lower() or "does not appear to have a file" in text.lower():
        if source.revision is not None or any(pickled(source.folder)):  # of the hub's, pickles are not fetched unasked
            return not_allowed(name, "pickles")
        return EngineError(f"{source.folder} holds no safetensors weights.", "Download or copy its files again.")
    return EngineError(f"{name} could not be loaded: {first_line(error)}.", "Run again with --debug for the details.")
