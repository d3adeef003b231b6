"""Loading a model: a hub id, a folder or a GGUF file becomes a `LanguageModel`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.checkpoints.four_bits import FOUR_BITS, count_values, is_four_bit
from heretic_tui.engine.checkpoints.weight_files import stamps
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import ModelLoaded, Note
from heretic_tui.engine.loading.coverage import probe
from heretic_tui.engine.loading.discovery import discover
from heretic_tui.engine.model.language_model import LanguageModel, decoder_layers
from heretic_tui.engine.model.loading_errors import loading_error
from heretic_tui.engine.model.networks import UnusableDtype, load_network, load_tokenizer
from heretic_tui.engine.model.sources import find_source
from heretic_tui.engine.model.writers import count_components, count_kinds, find_writers
from heretic_tui.engine.records import ModelFacts
from heretic_tui.profile.schema import Profile

Loader = Callable[[str, Profile], Job[LanguageModel]]
"""What a job gets its model from: `load`, or a session that keeps one in memory."""


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
            network = yield from in_background(partial(load_network, source, profile, dtype))
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
    # A template that refuses everything is found before a run is made; one that never ends can be stopped here.
    yield from in_background(lambda _: model.template("Hello"))
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


def assemble(
    name: str, network: Any, tokenizer: Any, revision: str | None = None, source: Path | None = None
) -> LanguageModel:
    """Join a network and its tokenizer, and find layers, writers and facts."""
    _feed_head_contiguously(network)
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
