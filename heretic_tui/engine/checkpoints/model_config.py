"""A model's config.json read with care: architectures name the same things differently, and any value may be absurd."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heretic_tui.engine.checkpoints.stored_tensors import WriterCount
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import ATTENTION, MLP

Config = Mapping[str, Any]
CACHE_VALUE = 2
"""Bytes of one value in the key-value cache of a model in 16 bits."""
LARGEST = 2**48
"""No honest count in a configuration is larger."""

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")


def text_config(config: Config) -> Config:
    """The part of a multimodal model's configuration that describes its language model; else the whole."""
    for name in _TEXT_CONFIGS:
        inner = config.get(name)
        if isinstance(inner, dict):
            return text_config({**{key: value for key, value in config.items() if key != name}, **inner})
    return config


def number(config: Config, *names: str) -> int:
    """The first of these settings that is a positive integer; 0 where none is."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 < value < LARGEST), 0)


def architecture(config: Config) -> str:
    """The class that the configuration names, or its kind of model."""
    names = config.get("architectures")
    named = names[0] if isinstance(names, list) and names else config.get("model_type")
    return named if isinstance(named, str) else "unknown"


def context_length(config: Config) -> int | None:
    """Tokens that the model was made for; None where the configuration does not say."""
    return number(config, *_CONTEXT) or None


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a decoder-only model; `heads`, `head_size` and `vocabulary` are 0 where nothing tells them."""

    layers: int
    width: int
    heads: int
    head_size: int
    experts: int
    vocabulary: int


def dimensions(name: str, config: Config, embedding: tuple[int, ...] = ()) -> Dimensions:
    """Sizes of the model `name`; the shape `(vocabulary, width)` of its embedding helps where settings are left out.

    Raises `EngineError` where the number or the width of its layers is not told.
    """
    rows, columns = embedding if len(embedding) == 2 else (0, 0)
    layers, width = number(config, *_LAYERS), number(config, *_WIDTH) or columns
    if not layers or not width:
        raise EngineError(
            f"The configuration of {name} does not say how many layers it has and how wide they are.",
            "Only decoder-only language models are supported.",
        )
    heads = number(config, *_HEADS)
    head_size = number(config, "head_dim") or (width // heads if heads else 0)
    return Dimensions(layers, width, heads, head_size, number(config, *_EXPERTS), number(config, "vocab_size") or rows)


def expected_writers(config: Config, sizes: Dimensions) -> dict[str, WriterCount]:
    """What to expect where no tensor is known: one attention block a layer, and one MLP or as many as experts."""
    inner = number(config, *_INNER) or 4 * sizes.width
    if sizes.experts:
        inner = number(config, "moe_intermediate_size") or inner
    mlps = sizes.layers * max(1, sizes.experts)
    heads = sizes.heads * sizes.head_size or sizes.width
    return {
        ATTENTION: WriterCount(sizes.layers, sizes.layers * sizes.width * heads),
        MLP: WriterCount(mlps, mlps * sizes.width * inner),
    }


def cache_bytes_per_token(config: Config, sizes: Dimensions) -> int:
    """Bytes of key-value cache that one token takes over all layers, at 2 bytes a value.

    A sliding window, which takes less, is counted in full; layers without a cache are not counted.
    """
    values = number(config, "v_head_dim") or sizes.head_size
    kinds = config.get("layer_types")
    layers = sizes.layers
    if isinstance(kinds, list) and kinds:
        layers = sum("attention" in str(kind) and "linear" not in str(kind) for kind in kinds)
    if not sizes.heads:
        return CACHE_VALUE * layers * 2 * sizes.width
    rope = number(config, "qk_rope_head_dim")
    if rope and number(config, "kv_lora_rank"):  # latent attention is cached expanded, for every head
        return CACHE_VALUE * layers * sizes.heads * (number(config, "qk_nope_head_dim") + rope + values)
    return CACHE_VALUE * _key_heads(config, sizes, layers) * (sizes.head_size + values)


def _key_heads(config: Config, sizes: Dimensions, layers: int) -> int:
    """Heads of keys and values over all layers; some models list them layer by layer."""
    for name in _KEY_HEADS:
        listed = config.get(name)
        if isinstance(listed, list) and listed:
            return sum(heads for heads in listed if type(heads) is int and 0 < heads < LARGEST)
    if number(config, *_KEY_HEADS):
        return layers * number(config, *_KEY_HEADS)
    return layers * (1 if config.get("multi_query") is True else sizes.heads)
