"""Adapters: a trial's edits as the factors that PEFT adds to the weights, and the configuration that says where.

A module's weight is a target module. What is no module of its own is a target parameter: experts that are fused into
one, each with factors of its own, and their biases. So is a module that is called like such a parameter, because PEFT
takes the name for experts of an older checkpoint and would move its factors there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from heretic_tui.engine.ablation.style import RowNormalization
from heretic_tui.engine.ablation.weight_edits import Edit, ablated_bias, errors_by_rank, low_rank
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.model.writers import Writer

if TYPE_CHECKING:
    from peft import LoraConfig

PREFIX = "base_model.model"
"""What PEFT puts before the name of a module of the model that it wraps."""
NAMES = ("lora_A.weight", "lora_B.weight")
"""What PEFT calls the factors `down` and `up` of a linear layer: modules."""
EMBEDDING_NAMES = ("lora_embedding_A", "lora_embedding_B")
"""What it calls those of a table of embeddings: parameters."""


@dataclass(frozen=True, slots=True)
class Part:
    """The update of one parameter, float32: `up @ down` of a weight, or of a bias `(out,)` the values that are added.

    `up` is `(expert, out, rank)` and `down` `(expert, rank, in)`, with one expert where nothing is fused. `module` and
    `leaf` name the parameter; `error` is the worst relative error of any expert in the Frobenius norm of the update.
    """

    module: str
    leaf: str
    up: Tensor
    down: Tensor
    flipped: bool
    whole: bool
    error: float

    @property
    def rank(self) -> int:
        """Columns of `up`."""
        return int(self.down.shape[1])


@dataclass(frozen=True, slots=True)
class Bias:
    """What a module's bias `(out,)` becomes, and what is added to it, float32."""

    module: str
    value: Tensor
    added: Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """All that an adapter changes."""

    parts: Sequence[Part]
    biases: Sequence[Bias]

    @property
    def rank(self) -> int:
        """The rank that all factors are brought to."""
        return max(1, *(part.rank for part in self.parts))

    @property
    def error(self) -> float:
        """The worst relative error of any weight's update against the exact edit."""
        return max(part.error for part in self.parts)

    @property
    def bias_factors(self) -> bool:
        """Whether the biases go with the factors, which PEFT allows where every target is a module with a bias.

        Elsewhere the adapter brings the whole new bias, which takes effect even while the adapter is disabled.
        """
        return len(self.biases) == len(self.parts) and not any(part.whole for part in self.parts)


def parts_of(
    model: LanguageModel, edit: Edit, row_normalization: RowNormalization, rank: int, error: float | None
) -> Iterator[Part | Bias]:
    """The updates that an edit comes to: that of its weight, and that of its bias where it has one.

    The rank of fused experts is the largest that any of them needs.
    """
    writer = edit.writer
    module, _, leaf = writer.weight_name.rpartition(".")
    fused = writer.matrix.ndim == 3
    matrices = writer.values if fused else writer.values[None]
    factors = [low_rank(edit, matrix, row_normalization, rank, error) for matrix in matrices]
    yield Part(
        module,
        leaf,
        _stacked([found.up for found in factors], dim=1),
        _stacked([found.down for found in factors], dim=0),
        flipped=fused and writer.transposed,
        whole=fused or _taken_for_experts(model, writer),
        error=max(found.error for found in factors),
    )
    if writer.bias is None or writer.bias_name is None:
        return
    basis = edit.basis.to(writer.bias.device, torch.float32)
    value = ablated_bias(writer.bias.detach().float(), basis, edit.weight)
    added = value - writer.bias.detach().float()
    module, _, leaf = writer.bias_name.rpartition(".")
    if not fused:
        yield Bias(module, value, added)
        return
    # One row an expert: a matrix of its own, whose rank is that of the directions.
    u, s, vt = torch.linalg.svd(added, full_matrices=False)
    errors = errors_by_rank(s)
    needed = max(1, int((errors > 1e-6).sum()))
    up, down = u[:, :needed] * s[:needed], vt[:needed]
    yield Part(module, leaf, up[None], down[None], flipped=False, whole=True, error=0.0)


def _stacked(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Stack factors of several ranks, the smaller ones filled up with zeros along `dim`."""
    widest = max(tensor.shape[dim] for tensor in tensors)
    missing = [widest - tensor.shape[dim] for tensor in tensors]
    sides = [(0, lack) if dim else (0, 0, 0, lack) for lack in missing]
    return torch.stack([pad(tensor, side) for tensor, side in zip(tensors, sides, strict=True)])


def _taken_for_experts(model: LanguageModel, writer: Writer) -> bool:
    """Whether PEFT takes the module for an expert: it has the last name of a fused parameter of this model."""
    fused = {found.name.rpartition(".")[2] for found in model.writers if found.matrix.ndim == 3}
    return writer.name.rpartition(".")[2] in fused


def config_of(adapter: Adapter, model: LanguageModel) -> "LoraConfig":
    """The configuration with which PEFT puts the factors where they belong."""
    from peft import LoraConfig

    carried = bool(adapter.biases) and adapter.bias_factors
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        lora_dropout=0.0,
        bias="lora_only" if adapter.biases and not carried else "none",
        lora_bias=carried,
        task_type="CAUSAL_LM",
        target_modules=[part.module for part in adapter.parts if not part.whole],
        target_parameters=[f"{part.module}.{part.leaf}" for part in adapter.parts if part.whole] or None,
        base_model_name_or_path=model.name,
        fan_in_fan_out=any(_conv1d(model, part) for part in adapter.parts),
        inference_mode=True,
    )
    if model.facts.revision:
        config.revision = model.facts.revision
    return config


def _conv1d(model: LanguageModel, part: Part) -> bool:
    return not part.whole and type(model.network.get_submodule(part.module)).__name__ == "Conv1D"


def tensors_of(adapter: Adapter, model: LanguageModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """The factors in `dtype` and biases in their own, by the names that PEFT looks for."""
    found: dict[str, Tensor] = {}
    for part in adapter.parts:
        name = f"{PREFIX}.{part.module}{_nesting(adapter, model, part)}"
        down = pad(part.down, (0, 0, 0, adapter.rank - part.rank))
        up = pad(part.up, (0, adapter.rank - part.rank))
        first, second = _as_peft_lies(model, part, up, down)
        names = EMBEDDING_NAMES if _is_embedding(model, part) else NAMES
        for factor, tensor in zip(names, (first, second), strict=True):
            found[f"{name}.{factor}"] = tensor.to("cpu", dtype).contiguous()
    for bias in adapter.biases:
        name = f"{PREFIX}.{bias.module}"
        if adapter.bias_factors:
            found[f"{name}.lora_B.bias"] = bias.added.to("cpu", dtype)
        else:
            found[f"{name}.base_layer.bias"] = bias.value.to("cpu", model.dtype)
    return found


def _is_embedding(model: LanguageModel, part: Part) -> bool:
    return isinstance(model.network.get_submodule(part.module), nn.Embedding)


def _as_peft_lies(model: LanguageModel, part: Part, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Factors `A` `(rank of all experts, in)` and `B` `(out, rank of all experts)` in the order of `ParamWrapper`.

    In A the experts follow one another, in B they take turns. What PEFT calls in and out goes by the module's own
    `is_transposed`; a parameter that lies `(expert, in, out)` and does not say so wants the two factors exchanged.
    """
    told = bool(getattr(model.network.get_submodule(part.module), "is_transposed", False))
    if part.up.shape[0] > 1 and part.flipped != told:
        up, down = down.mT, up.mT
    return down.flatten(0, 1), up.permute(1, 2, 0).flatten(1, 2)


def _nesting(adapter: Adapter, model: LanguageModel, part: Part) -> str:
    """How deep PEFT wraps a parameter: in the order of the module's parameters, each around those before."""
    if not part.whole:
        return ""
    order = [name for name, _ in model.network.get_submodule(part.module).named_parameters(recurse=False)]
    around = [other.leaf for other in adapter.parts if other.whole and other.module == part.module]
    return ".base_layer" * sum(order.index(leaf) > order.index(part.leaf) for leaf in around)
