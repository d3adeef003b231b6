"""An outline: a model's layers and writers by name and shape, while its weights stay in their files.

A merge of the source's files asks the model for no more: which tensors write, how they lie, and what gains follow them.
So it needs no memory for the weights, whatever the model weighs.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.checkpoints.origins import UnknownOrigin, assemble, origins
from heretic_tui.engine.checkpoints.weight_files import DTYPES, Span, read, spans, stamps, weight_files
from heretic_tui.engine.events import Note
from heretic_tui.engine.loading.loader import assemble as join
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.model.networks import load_tokenizer, make_harmless, network_class
from heretic_tui.engine.model.sources import Source, find_source
from heretic_tui.engine.records import ModelFacts
from heretic_tui.profile.schema import Profile

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Outliner = Callable[[ModelFacts, str, Profile], Job[LanguageModel]]
"""What a job gets an outline from: `outline`, or a session that may have the model in memory."""


def outline(facts: ModelFacts, name: str, profile: Profile) -> Job[LanguageModel]:
    """The outline of the model `name` of a run, whose `facts` the run has noted.

    Its weights are on the meta device, but for vectors such as norms and biases, which have the values and the data
    type that they had in the run. Raises `UnknownOrigin` where the files do not tell enough without loading them.
    """
    source = yield from find_source(name, profile)
    model = yield from in_background(partial(_outline, name, source, facts))
    yield Note("The weights stay on disk: the merge reads one after another.")
    return model


def _outline(name: str, source: Source, facts: ModelFacts, _: Report) -> LanguageModel:
    files = [] if source.gguf else weight_files(source.folder)
    if not files:
        raise UnknownOrigin("it does not come from safetensors files")
    known = stamps(source.folder)
    network = _empty_network(source, facts)
    _read_vectors(network, {span.name: span for file in files for span in spans(file)})
    model = join(name, network, load_tokenizer(name, source), source.revision, source.folder)
    model.stamps = known
    if model.facts.writer_kinds != facts.writer_kinds:
        raise UnknownOrigin("not all of its writers are known by their names")
    if any(writer.gain is not None and writer.gain.is_meta for writer in model.writers):
        raise UnknownOrigin("its files lack the gains of norms")
    model.facts = replace(
        model.facts,
        device=facts.device,
        quantization=facts.quantization,
        write=facts.write,
        leak=facts.leak,
        leaking=list(facts.leaking),
    )
    return model


def _empty_network(source: Source, facts: ModelFacts) -> "PreTrainedModel":
    from transformers import AutoConfig

    trust = {"trust_remote_code": source.permissions.code}
    try:
        config = AutoConfig.from_pretrained(source.folder, **trust)
        make_harmless(config, source.folder)
        with torch.device("meta"):
            network = network_class(config).from_config(config, dtype=getattr(torch, facts.dtype), **trust)
    except Exception as error:  # architectures come from many hands, and loading them whole may well work
        raise UnknownOrigin(f"it cannot be laid out without its weights ({error})") from error
    return network.eval().requires_grad_(False)


def _read_vectors(network: "PreTrainedModel", stored: dict[str, Span]) -> None:
    """Give all parameters of one dimension their values; those that no file has stay without."""
    found = origins(network, stored)
    for module_name, module in network.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            origin = found.get(f"{module_name}.{leaf}".removeprefix("."))
            if parameter.ndim != 1 or origin is None:
                continue
            if any(stored[part].dtype not in DTYPES for part in origin.names):
                raise UnknownOrigin(f"{origin.names[0]} is stored as {stored[origin.names[0]].dtype}")
            values = assemble(network, origin, [read(stored[part]) for part in origin.names]).to(parameter.dtype)
            setattr(module, leaf, torch.nn.Parameter(values, requires_grad=False))
