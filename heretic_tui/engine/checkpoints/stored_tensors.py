"""Tensors as weight files name and pack them: which are writers, embeddings, or no parameters at all.

Names in files differ from the modules' names that `writers.PLACES` lists: experts are stored one by one and fused
while loading, and GGUF has names of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heretic_tui.engine.checkpoints.headers import TensorInfo
from heretic_tui.engine.parameters import ATTENTION, MLP

EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|token_embd|tok_embeddings)\.weight$")
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$|^output\.weight$")

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?|blk)\.(\d{1,9})\.(.+)")
_OTHER_TOWER = re.compile(r"(?:^|[._])(?:vision|visual|vit|audio|image|speech|mm|mtp)(?:$|[._])")
_ENDING = r"(?:\.(?:weight|qweight|weight_packed)|_blocks)?$"
_WRITERS = {
    ATTENTION: re.compile(
        r"(?:attn|attention|mixer|mamba|conv|temporal_block)\.(?:o_proj|out_proj|dense|c_proj|wo|linear_out)" + _ENDING
        + r"|^(?:attn_output|ssm_out)\.weight$"
    ),
    MLP: re.compile(
        r"(?:^|\.)(?:down_proj|dense_4h_to_h|fc2|w2|fc_out|output_linear)" + _ENDING
        + r"|mlp\.c_proj" + _ENDING
        + r"|^ffn_down(?:_exps|_shexp)?\.weight$"
    ),
}  # fmt: skip
_EXPERTS = re.compile(r"(?:^|\.)experts\.")
_TABLE = re.compile(r"embe?d|(?:^|\.)(?:wte|wpe)\.")
_BUFFER = re.compile(r"\.(?:attn|attention)\.(?:bias|masked_bias)$")
_BOOKKEEPING = re.compile(
    r"\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|scales?|zeros|qzeros|g_idx"
    r"|(?:weight|input|output)_(?:scale\w*|zero_point|shape|g_idx))$|_scales$"
)
"""What quantized checkpoints keep beside the values."""


@dataclass(frozen=True, slots=True)
class WriterCount:
    """Residual writers of one component, every expert as one, and the values in all of them."""

    count: int
    values: int


def count_writers(
    tensors: Mapping[str, TensorInfo], sizes: Mapping[str, int], layers: int
) -> dict[str, WriterCount]:  # fmt: skip
    """The residual writers among the tensors of the first `layers` decoder layers; `sizes` are in values."""
    found: dict[str, list[str]] = {component: [] for component in _WRITERS}
    for name in tensors:
        layer = _LAYER.search(name)
        # Layers beyond the last predict further tokens; loading leaves them out.
        if layer is None or int(layer[1]) >= layers or _OTHER_TOWER.search(name[: layer.start()]):
            continue
        for component, pattern in _WRITERS.items():
            if pattern.search(layer[2]):
                found[component].append(name)
    return {
        component: WriterCount(
            sum(_experts(tensors[name].shape) for name in names), sum(sizes.get(name, 0) for name in names)
        )
        for component, names in found.items()
    }


def _experts(shape: tuple[int, ...]) -> int:
    """Fused experts lie along the first dimension."""
    return shape[0] if len(shape) > 2 else 1


def packable(name: str, info: TensorInfo) -> bool:
    """Whether loading in 4 bits packs a tensor: the weight of a linear module, and no head.

    Experts are fused while loading, into a parameter that is no such weight.
    """
    linear = name.endswith(".weight") and len(info.shape) == 2
    return linear and not (_EXPERTS.search(name) or _TABLE.search(name) or HEAD.search(name))


def is_buffer(name: str, info: TensorInfo) -> bool:
    """Whether this is a table that old checkpoints carry along (GPT-2's causal mask, say), and no parameter."""
    return name.endswith("rotary_emb.inv_freq") or (_BUFFER.search(name) is not None and len(info.shape) != 1)


@dataclass(frozen=True, slots=True)
class Packing:
    """How a quantized checkpoint stores its values: `bits` each, several in one integer; 0 where it is not."""

    bits: int = 0
    name: str = ""

    @staticmethod
    def of(settings: Any) -> "Packing":
        """The packing that a configuration's `quantization_config` describes."""
        if not isinstance(settings, dict):
            return Packing()
        method = str(settings.get("quant_method") or "quantized")
        bits = settings.get("bits") or settings.get("w_bit")
        if type(bits) is not int or bits not in (2, 3, 4, 5, 6, 8):
            bits = 8 if settings.get("load_in_8bit") is True or "8" in method else 4
        return Packing(bits, method if any(map(str.isdigit, method)) else f"{method} {bits}-bit")

    def values(self, name: str, info: TensorInfo) -> int:
        """How many parameters a tensor holds; none where it only says how others are packed."""
        if not self.bits:
            return info.values
        if _BOOKKEEPING.search(name):
            return 0
        width = {"U8": 8, "I32": 32, "U32": 32}.get(info.dtype, 0)
        return info.values * width // self.bits if width else info.values
