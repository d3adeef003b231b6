"""Loading a model: a hub id, a folder or a GGUF file becomes a `LanguageModel`."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.coverage import probe
from heretic_tui.engine.discovery import discover
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import ModelLoaded, Note, Progress
from heretic_tui.engine.four_bits import FOUR_BITS, count_values, is_four_bit, keep_readable, quantization
from heretic_tui.engine.hardware import accelerator
from heretic_tui.engine.language_model import LanguageModel, decoder_layers
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.permissions import NOTHING, Permissions, not_allowed, permissions_for, pickled
from heretic_tui.engine.progress_bars import bars_made_by, reported
from heretic_tui.engine.records import ModelFacts
from heretic_tui.engine.schemas import MOST_LAYERS
from heretic_tui.engine.weight_files import packing, stamps
from heretic_tui.engine.writers import count_components, count_kinds, find_writers
from heretic_tui.profile.schema import Profile

SAFE_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*"]
PICKLED_FILES = ["*.bin", "*.pt", "*.pth"]
Loader = Callable[[str, Profile], Job[LanguageModel]]
"""What a job gets its model from: `load`, or a session that keeps one in memory."""
CURABLE = re.compile(r"not implemented for|not supported|half|bfloat16|float16|dtype", re.IGNORECASE)
"""What torch says when an operation is missing for a dtype: another dtype can cure that, and nothing else."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's files are: a folder on disk, one GGUF file in it perhaps, and the hub's commit.

    `leave` says what they may do besides being read.
    """

    folder: Path
    gguf: str | None = None
    revision: str | None = None
    permissions: Permissions = NOTHING


class UnusableDtype(Exception):
    """The model does not run in the dtype tried."""


def load(name: str, profile: Profile) -> Job[LanguageModel]:
    """Load the model `name` as the profile says; yields progress and, last, `ModelLoaded`.

    Tries the profile's dtypes in turn, going on only after an error that another dtype can cure.
    """
    source = yield from find_source(name, profile)
    if source.gguf and profile.quantization != "none":
        raise EngineError(
            f"{name} is a GGUF file, which is unpacked while loading and cannot be packed in 4 bits on the way.",
            'Use quantization = "none", or load the model from its safetensors files.',
        )
    tokenizer = load_tokenizer(name, source)
    known = {} if source.gguf else stamps(source.folder)
    refused = []
    for dtype in profile.dtypes:
        try:
            network = yield from in_background(partial(_load_network, source, profile, dtype))
            break
        except UnusableDtype as error:
            refused.append(f"{dtype}: {error}")
            yield Note(f"{name} does not run in {dtype}: {error}", "warning")
        except Exception as error:
            raise loading_error(name, source, error) from error
    else:
        raise EngineError(
            f"{name} runs in none of the dtypes tried ({'; '.join(refused)}).",
            "Add another to `dtypes`; if there is none, the weights are damaged.",
        )
    model = assemble(name, network, tokenizer, source.revision, None if source.gguf else source.folder)
    model.stamps = known
    model.template("Hello")  # a template that refuses everything is found before a run is made
    yield from prove(model)
    yield ModelLoaded(model.facts)
    return model


def prove(model: LanguageModel) -> Job[None]:
    """Measure whether the writers are all there are, look for more where they are not, and note both in the facts.

    Where weights are packed in a way that is not known nothing can be ablated, and so nothing is measured.
    """
    if any(writer.unreadable for writer in model.writers):
        return
    coverage = yield from in_background(lambda _: probe(model))
    if not coverage.whole:
        model.writers, coverage = yield from discover(model, coverage)
    model.facts = replace(
        model.facts,
        writers=count_components(model.writers),
        writer_kinds=count_kinds(model.writers),
        write=max(coverage.write),
        leak=max(coverage.leak),
        leaking=coverage.leaking,
    )


def find_source(name: str, profile: Profile) -> Job[Source]:
    """Find the model's files: on disk, or by downloading them from the hub with progress.

    Raises `NotAllowed` where the profile asks for more than reading them, and nobody has said yes to that.
    """
    source = yield from _found(name, profile)
    if source.gguf:
        return source
    asked = Permissions(profile.trust_remote_code, profile.allow_pickle)
    return replace(source, permissions=permissions_for(name, source.folder, source.revision, asked))


def _found(name: str, profile: Profile) -> Job[Source]:
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise EngineError(f"There is no file {name}.", "Check the path of the GGUF file.")
        return Source(path.parent.resolve(), gguf=path.name)  # in the hub's cache the file itself is a link
    if path.is_dir():
        return _folder_source(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise EngineError(
            f"There is no folder {name}, and it is not the id of a model on the hub either.",
            "Give a folder, a .gguf file, or an id such as organisation/model.",
        )
    return (yield from in_background(partial(_download, name, profile)))


def _folder_source(path: Path) -> Source:
    if (path / "config.json").is_file():
        return Source(path.resolve())
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return Source(path.resolve(), gguf=ggufs[0].name)
    if ggufs:
        raise EngineError(f"{path} holds {len(ggufs)} GGUF files.", f"Name one, for instance {ggufs[0]}.")
    raise EngineError(f"{path} holds no config.json, so it is not a model.", "Give the folder that holds config.json.")


def _download(name: str, profile: Profile, report: Report) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging as hub_logging
    from tqdm.auto import tqdm

    hub_logging.set_verbosity(logging.ERROR)  # its retries are not for the terminal

    class Bar(tqdm):  # type: ignore[type-arg]
        """Passes the hub's byte counts on as events, and prints nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            self.seen = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.seen += n or 0
            report(Progress("download", self.seen, self.total or None, "B", name))
            return None

    patterns = [*SAFE_FILES]
    patterns += PICKLED_FILES if profile.allow_pickle else []
    patterns += ["*.py"] if profile.trust_remote_code else []
    try:
        folder = snapshot_download(name, revision=profile.model_commit, allow_patterns=patterns, tqdm_class=Bar)
    except GatedRepoError as error:
        raise EngineError(
            f"{name} is gated: its owner wants you to accept terms first.",
            "Accept them on the model's page, then log in with `hf auth login`.",
        ) from error
    except RevisionNotFoundError as error:
        raise EngineError(f"{name} has no commit {profile.model_commit}.", "Check model_commit.") from error
    except RepositoryNotFoundError as error:
        raise EngineError(
            f"There is no model {name} on the hub, or it is private.",
            "Check the spelling, or log in with `hf auth login`.",
        ) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise EngineError(
            f"{name} is neither a folder here nor in the local cache, and the hub could not be reached.",
            "Check the spelling and the network connection, or give the path of a model's folder.",
        ) from error
    except OSError as error:
        raise EngineError(
            f"Downloading {name} failed: {_first_line(error)}.", "Check the network and the disk."
        ) from error
    return Source(Path(folder), revision=Path(folder).name)


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


def _load_network(source: Source, profile: Profile, dtype: str, report: Report) -> Any:
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
    with _loading_progress(source, report):
        known = {name: options[name] for name in ("trust_remote_code", "gguf_file") if name in options}
        config = AutoConfig.from_pretrained(source.folder, **known)
        make_harmless(config, source.folder)
        if profile.quantization == "bnb_4bit":
            options |= quantization(config, dtype)
        network, info = network_class(config).from_pretrained(source.folder, **options)
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
        raise UnusableDtype(_first_line(error)) from error
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


def assemble(
    name: str, network: Any, tokenizer: Any, revision: str | None = None, source: Path | None = None
) -> LanguageModel:
    """Join a network and its tokenizer, and find layers, writers and facts."""
    _feed_head_contiguously(network)
    keep_readable(network)
    config = network.config.get_text_config()
    layers = decoder_layers(network, config.num_hidden_layers)
    width = int(network.get_input_embeddings().weight.shape[1])
    writers = find_writers(network, layers, width)
    facts = ModelFacts(
        name=name,
        revision=revision,
        architecture=type(network).__name__,
        parameters=sum(map(count_values, network.parameters())),
        layers=len(layers),
        width=width,
        dtype=str(network.dtype).removeprefix("torch."),
        device=str(next(network.parameters()).device),
        context_length=getattr(config, "max_position_embeddings", None),
        writers=count_components(writers),
        writer_kinds=count_kinds(writers),
        quantization=FOUR_BITS if any(map(is_four_bit, network.parameters())) else "",
    )
    return LanguageModel(name, network, tokenizer, layers, writers, facts, source)


def _feed_head_contiguously(network: Any) -> None:
    """Of a prompt only the last position's logits are asked for: a strided slice of the hidden states.

    With such an input the processor's matrix product copies the whole head once a row, which costs more time and
    memory than all the rest of the pass (measured: 32 rows of bfloat16, 9.1 s and 1.8 GB against 0.1 s and 9 MB).
    """
    head = network.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def loading_error(name: str, source: Source, error: BaseException) -> EngineError:
    """Say in plain words why a model's files could not be loaded."""
    if isinstance(error, EngineError):
        return error
    text = str(error)
    if out_of_memory(error):
        return EngineError(f"{name} does not fit into memory.", 'Use a smaller model, or quantization = "bnb_4bit".')
    if type(error).__name__ == "SafetensorError":
        return EngineError(
            f"A safetensors file in {source.folder} is corrupt or truncated ({_first_line(error)}).",
            "Download or copy the file again.",
        )
    if isinstance(error, json.JSONDecodeError) or "not a valid JSON file" in text:
        return EngineError(f"A JSON file in {source.folder} is damaged ({_first_line(error)}).", "Copy it again.")
    if source.gguf:
        return EngineError(
            f"{name} is corrupt, truncated, or of a kind that cannot be read ({_first_line(error)}).",
            "Download or copy it again.",
        )
    if isinstance(error, FileNotFoundError):
        return EngineError(f"A file of the model is missing: {error.filename or text}.", "Download or copy it again.")
    if isinstance(error, ImportError) and (method := packing(source.folder)):
        return EngineError(
            f"The weights of {name} are packed in a few bits ({method}), which cannot be read here "
            f"({_first_line(error)}).",
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
    return EngineError(f"{name} could not be loaded: {_first_line(error)}.", "Run again with --debug for the details.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
