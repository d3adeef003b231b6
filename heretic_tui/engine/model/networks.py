"""A model's tokenizer and network as its library loads them, made fit for this program."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from heretic_tui.engine.background import Report
from heretic_tui.engine.checkpoints.four_bits import keep_readable, quantization
from heretic_tui.engine.errors import EngineError, first_line
from heretic_tui.engine.events import Progress
from heretic_tui.engine.hardware import accelerator
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.loading_errors import loading_error
from heretic_tui.engine.model.progress_bars import bars_made_by, reported
from heretic_tui.engine.model.sources import Source
from heretic_tui.engine.schemas import MOST_LAYERS
from heretic_tui.profile.schema import Profile

CURABLE = re.compile(r"not implemented for|not supported|half|bfloat16|float16|dtype", re.IGNORECASE)
"""What torch says when an operation is missing for a dtype: another dtype can cure that, and nothing else."""


class UnusableDtype(Exception):
    """The model does not run in the dtype tried."""


def load_tokenizer(name: str, source: Source) -> Any:
    """The tokenizer, left-padding, with a pad token; raises `EngineError` where it has no chat template."""
    from transformers import AutoTokenizer

    try:
        options = {"gguf_file": source.gguf} if source.gguf else {}
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=source.permissions.code, **options)
    except Exception as error:
        raise loading_error(name, source, error) from error
    if not tokenizer.chat_template:
        raise EngineError(
            f"{name} has no chat template, so it is a base model and not a chat model.",
            "Choose its instruction-tuned version, or put a chat_template.jinja into its folder.",
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise EngineError(f"The tokenizer of {name} has neither a pad token nor an end token.", "Add one to its files.")
    return tokenizer


def load_network(source: Source, profile: Profile, dtype: str, report: Report) -> Any:
    """The network in one dtype, all of its tensors there and shown to run. Raises `UnusableDtype`, `EngineError`."""
    from transformers import AutoConfig

    options: dict[str, Any] = {
        "dtype": dtype if dtype == "auto" else getattr(torch, dtype),
        "trust_remote_code": source.permissions.code,
        "output_loading_info": True,
        "use_safetensors": None if source.permissions.pickles or source.gguf else True,
    }
    if source.gguf:
        options["gguf_file"] = source.gguf
    if accelerator() is not None:
        options["device_map"] = profile.device_map
        options["max_memory"] = _max_memory(profile)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a kernel that is not used here
    with _loading_progress(source, report):
        known = {name: options[name] for name in ("trust_remote_code", "gguf_file") if name in options}
        config = AutoConfig.from_pretrained(source.folder, **known)
        make_harmless(config, source.folder)
        if profile.quantization == "bnb_4bit":
            options |= quantization(config, dtype)
        network, info = network_class(config).from_pretrained(source.folder, config=config, **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise EngineError(
            f"The checkpoint in {source.folder} lacks {len(missing)} of the model's tensors "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}).",
            "Download or copy its files again.",
        )
    if source.gguf:
        _forget_quantization(network)
    elif getattr(config, "quantization_config", None) is not None and not getattr(network, "hf_quantizer", None):
        # Unpacked while it was loaded: saving must not give plain values the names of packed ones.
        network._weight_conversions = None
    network.eval()
    network.requires_grad_(False)
    keep_readable(network)  # before the first pass: that is when a processor may lay packed weights out anew
    _try_one_token(network)
    return network


def make_harmless(config: Any, folder: Path) -> None:
    """Forget kernels that a configuration names: compiled code from the hub, which nobody has said yes to.

    Raises `EngineError` for so many layers that laying them out would take all memory.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if type(layers) is int and layers > MOST_LAYERS:
        raise EngineError(f"{folder / 'config.json'} speaks of {layers:.6g} layers.", "Copy the file again.")
    for part in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))):
        for name in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(getattr(part, name, None) or ""):
                setattr(part, name, None)


def network_class(config: Any) -> Any:
    """The library's family of classes that a configuration's model is loaded with: some know text only with images."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if remote or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    return AutoModelForImageTextToText


def _forget_quantization(network: Any) -> None:
    """Weights read from GGUF are plain tensors now; what is left of their origin would forbid saving them."""
    network.is_quantized = False
    for owner, name in (
        (network, "hf_quantizer"),
        (network, "quantization_method"),
        (network.config, "quantization_config"),
    ):
        if hasattr(owner, name):
            delattr(owner, name)


def _max_memory(profile: Profile) -> dict[int | str, int | str] | None:
    if not profile.max_memory:
        return None
    return {int(device) if str(device).isdigit() else device: limit for device, limit in profile.max_memory.items()}


def _try_one_token(network: Any) -> None:
    token = torch.ones((1, 1), dtype=torch.long, device=next(network.parameters()).device)
    try:
        with torch.inference_mode():
            logits = network(input_ids=token).logits
    except RuntimeError as error:
        if out_of_memory(error) or not CURABLE.search(str(error)):
            raise
        raise UnusableDtype(first_line(error)) from error
    if not torch.isfinite(logits).all():
        raise UnusableDtype("its output is not finite")


@contextmanager
def _loading_progress(source: Source, report: Report) -> Iterator[None]:
    """Turn the library's progress bars over tensors into events that name the shard they come from."""
    shards = _shards(source)
    files = sorted(set(shards.values()))

    def detail(tensor: str) -> str:
        file = shards.get(tensor)
        return f"shard {files.index(file) + 1}/{len(files)}" if file else source.gguf or ""

    def watched(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return reported(factory, args, options, told)

    def told(done: int, total: int, item: Any) -> None:
        name = item[0] if isinstance(item, tuple) else item
        report(Progress("load", done, total, "tensors", detail(str(name))))

    with bars_made_by(watched):
        yield


def _shards(source: Source) -> dict[str, str]:
    """Which file each tensor of a sharded checkpoint is in; empty where there is a single file."""
    index = source.folder / "model.safetensors.index.json"
    if source.gguf or not index.is_file():
        return {}
    found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return found
