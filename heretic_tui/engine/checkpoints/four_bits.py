"""Weights of 4 bits each, as bitsandbytes packs them: NF4, the scales packed in turn (Dettmers et al. 2023, "QLoRA").

Such a weight is not edited in place: packing the edited values again would round away most of an edit. Its values are
read by unpacking a copy, and an edit acts on what the module puts out, see `output_edits`.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.errors import EngineError

FOUR_BITS = "4 bits"
"""What is said of such weights."""
NOTHING = torch.empty(0)


def quantization(config: Any, dtype: str) -> dict[str, Any]:
    """What loading is told so that it packs all linear modules in NF4, and their scales; nothing where they are so.

    They are unpacked to the `dtype` of the other weights to compute with, to that of the checkpoint with `auto`.
    Raises `EngineError` for a checkpoint that is quantized in another way.
    """
    from transformers import BitsAndBytesConfig

    stored = getattr(config, "quantization_config", None)
    known = stored if isinstance(stored, dict | None) else stored.to_dict()
    if known and not known.get("load_in_4bit"):
        raise EngineError(
            f"The weights are quantized already ({known.get('quant_method', 'in a way of their own')}).",
            'Use quantization = "none", or the checkpoint that they were made from.',
        )
    named = getattr(config, "dtype", None) if dtype == "auto" else getattr(torch, dtype)
    if known:
        return {}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=named if isinstance(named, torch.dtype) else torch.bfloat16,
        )
    }


def is_four_bit(weight: Tensor) -> bool:
    """Whether this is a weight of 4 bits whose values can be unpacked."""
    return getattr(weight, "quant_state", None) is not None


def unpacked(weight: Tensor) -> Tensor:
    """The values `(out, in)` of a weight of 4 bits, float32, on its device."""
    from bitsandbytes.functional import dequantize_4bit

    packed: Any = weight
    # As one long row: on a processor rows whose length is no multiple of a block's are read with other rows' scales.
    state = copy.copy(packed.quant_state)
    state.shape = torch.Size((1, packed.quant_state.shape.numel()))
    return dequantize_4bit(packed.data, state).reshape(packed.quant_state.shape).float()


def count_values(weight: Tensor) -> int:
    """How many values a parameter holds, each of 4 bits counted as one."""
    shape: torch.Size = getattr(weight, "quant_state").shape if is_four_bit(weight) else weight.shape  # noqa: B009
    return shape.numel()


def keep_readable(network: nn.Module) -> None:
    """Have a processor compute with the very values that were packed, which bitsandbytes 0.50 does not always.

    With AVX512-BF16 its first pass lays weights out anew, which rounds their scales and fails for widths that are no
    multiple of 32. With AVX512 it takes wrong scales where a row is no whole number of blocks long.
    """
    modules: list[Any] = [module for module in network.modules() if is_four_bit(getattr(module, "weight", NOTHING))]
    for module in modules:
        module.support_avx512bf16_for_cpu = False
        if module.weight.device.type == "cpu" and module.in_features % module.weight.quant_state.blocksize:
            module.forward = partial(_forward, module)


def _forward(module: Any, x: Tensor) -> Tensor:
    return nn.functional.linear(x, unpacked(module.weight).to(x.dtype), module.bias)


def was_transposed(module: nn.Module) -> bool:
    """Whether a packed module's weight lies `(in, out)` in the checkpoint: those of GPT-2 are turned for packing."""
    return getattr(getattr(module, "source_cls", None), "__name__", "") == "Conv1D"
