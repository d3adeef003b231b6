"""A loaded model with all that the engine asks of it: tokens, layers, writers, pristine weights."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.model.writers import Writer, find_embeddings
from heretic_tui.engine.records import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from heretic_tui.engine.decoding.static_stepper import StaticSteps


OF_TEMPLATES = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What a chat template can raise besides its own kind of error; it is a program that came with the model."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Left-padded token ids and attention mask, both `(prompts, width)`, on the model's device."""

    ids: Tensor
    mask: Tensor

    @property
    def width(self) -> int:
        """Tokens of the longest prompt."""
        return int(self.ids.shape[1])


def positions(mask: Tensor) -> Tensor:
    """Position ids of left-padded rows: the first real token stands at 0."""
    return (mask.cumsum(dim=1) - 1).clamp_min(0)


@dataclass(frozen=True, slots=True)
class Pristine:
    """A writer's original values, in the layout of `Writer.matrix`."""

    matrix: Tensor
    bias: Tensor | None


@dataclass
class LanguageModel:
    """A causal language model, its tokenizer and what a study has settled about it.

    `source` is the folder that its safetensors files are in, if it comes from such; `stamps` holds their sizes and
    times of change when they were loaded. `batch_size` and `response_prefix` are found at the start of a study; the
    batch size shrinks where memory runs out. `static` says whether decoding steps may be static: no more once it has
    failed.
    """

    name: str
    network: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    layers: Sequence[nn.Module]
    writers: list[Writer]
    facts: ModelFacts
    source: Path | None = None
    stamps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    batch_size: int = 1
    response_prefix: str = ""
    static: bool = True
    static_steps: "StaticSteps | None" = field(default=None, repr=False)
    _pristine: dict[str, Pristine] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the embeddings, and so the token ids, live."""
        return torch.device(next(self.network.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        dtype: torch.dtype = self.network.dtype
        return dtype

    @property
    def outlined(self) -> bool:
        """Whether the weights have stayed on disk, so that the model can be merged and nothing else."""
        return any(writer.weight.is_meta for writer in self.writers)

    @cached_property
    def embeddings(self) -> list[Writer]:
        """The tables of embeddings that write into the residual stream; a profile says whether they are ablated."""
        return find_embeddings(self.network, self.facts.width)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Token ids that end a response."""
        generation = getattr(self.network.generation_config, "eos_token_id", None)
        ids = generation if isinstance(generation, list | tuple) else [generation]
        return frozenset(int(token) for token in [*ids, self.tokenizer.eos_token_id] if token is not None)

    @cached_property
    def forward_names(self) -> frozenset[str]:
        """The keywords that the network's forward takes; architectures differ in `position_ids` and others."""
        return frozenset(inspect.signature(self.network.forward).parameters)

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of key-value cache that one token of one response takes over all layers."""
        config = self.network.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * len(self.layers) * heads * size * self.dtype.itemsize)

    @property
    def logits_bytes(self) -> int:
        """Bytes that the logits of one position take, with the float32 copy that comparing them needs."""
        return int(self.network.config.get_text_config().vocab_size) * (self.dtype.itemsize + 4)

    def template(self, prompt: str, system_prompt: str = "") -> str:
        """The text that the model sees for one prompt: chat template, generation prompt, response prefix."""
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages.append({"role": "user", "content": prompt})
        return self.template_chat(messages)

    def template_chat(self, messages: list[dict[str, str]]) -> str:
        """The text of a whole conversation; a template without a system role gets it before the first message."""
        return f"{self.conversation(messages)}{self.response_prefix}"

    def conversation(self, messages: list[dict[str, str]]) -> str:
        """The text of a conversation up to where the model's turn begins, without response prefix: what a chat shows.

        Raises `EngineError` where the chat template refuses it.
        """
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except (TemplateError, *OF_TEMPLATES) as error:
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise EngineError(
                    f"The chat template of {self.name} refuses the conversation: {error}.",
                    "Check the template, or set system_prompt to an empty text.",
                ) from error
            system, first, *rest = messages
            joined = {**first, "content": f"{system['content']}\n\n{first['content']}"}
            return self.conversation([joined, *rest])

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokens of templated texts; the template has already put the special tokens in."""
        batch: Any = self.tokenizer(
            list(texts), return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        return Encoded(batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device))

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Texts of token rows, without special tokens."""
        if not tokens:
            return []  # the tokenizer takes an empty batch for one empty text
        texts: list[str] = self.tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)
        return texts

    def pristine(self, writer: Writer) -> Pristine:
        """The writer's original values, copied to host memory the first time they are asked for."""
        if writer.name not in self._pristine:
            pin = self.device.type == "cuda"
            self._pristine[writer.name] = Pristine(
                _host_copy(writer.matrix, pin), None if writer.bias is None else _host_copy(writer.bias.detach(), pin)
            )
        return self._pristine[writer.name]

    def restore(self, writer: Writer) -> None:
        """Put the writer's original values back into its own memory."""
        original = self._pristine.get(writer.name)
        if original is None:
            return
        writer.matrix.copy_(original.matrix)
        if writer.bias is not None and original.bias is not None:
            writer.bias.copy_(original.bias)


def _host_copy(tensor: Tensor, pin: bool) -> Tensor:
    copy = tensor.detach().to("cpu", copy=True)
    return copy.pin_memory() if pin else copy


def decoder_layers(network: nn.Module, count: int) -> Sequence[nn.Module]:
    """The decoder layers: the module list that is as long as the configuration says, of the text part.

    Raises `EngineError` where there is none.
    """
    decoder = getattr(network, "get_decoder", None)
    text: nn.Module = decoder() if callable(decoder) else network
    lists: list[nn.Module] = [
        found for found in text.modules() if isinstance(found, nn.ModuleList) and len(found) == count
    ]
    if not lists:
        raise EngineError(
            f"No list of {count} decoder layers was found in {type(network).__name__}.",
            "Only decoder-only language models are supported.",
        )
    return list(max(lists, key=_size).children())


def _size(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())
