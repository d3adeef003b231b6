"""Residual writers: every weight whose output is added to the residual stream.

Which weights those are is data: a row names a kind of writer and the places where architectures keep it inside a
decoder layer. How a weight lies is read off its module: `nn.Linear` and its kin `(out, in)`, GPT-2's `Conv1D`
`(in, out)`, fused experts `(expert, out, in)` or `(expert, in, out)`, weights packed in a few bits. Whether the rows
found all that writes is proved by the leak probe of `coverage`, not by them.
"""

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heretic_tui.engine.checkpoints.four_bits import is_four_bit, unpacked
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.parameters import ATTENTION, BEFORE_LAYERS, EMBEDDINGS, MLP


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of writer: the component whose kernel it follows, and a pattern of its places inside a decoder layer."""

    component: str
    kind: str
    places: str


EXPERTS = "experts"
DRESSES = (
    Row(
        ATTENTION,
        "attention",
        r"(self_attn|self_attention|attn|attention|attn\.attention|mixer)\.(o_proj|out_proj|dense|c_proj|wo)",
    ),
    Row(ATTENTION, "linear attention", r"(linear_attn|linear_attention)\.(o_proj|out_proj)"),
    Row(ATTENTION, "state space", r"(mamba|ssm)\.out_proj"),
    Row(ATTENTION, "convolution", r"(conv|short_conv)\.out_proj"),
    Row(
        MLP,
        "MLP",
        r"((mlp|feed_forward|ffn|mixer)\.)?(down_proj|c_proj|fc2|w2|fc_out|dense_4h_to_h)",
    ),
    Row(MLP, EXPERTS, r"((mlp|feed_forward|ffn|mixer|block_sparse_moe|moe)\.)?experts\.(\d+\.)?(down_proj|w2)"),
    Row(MLP, EXPERTS, r"block_sparse_moe\.output_linear"),
    Row(
        MLP,
        "shared expert",
        r"(\w+\.)?(shared_experts?|shared_mlp)\.(down_proj|output_linear|w2)",
    ),
    Row(MLP, "per-layer input", r"per_layer_projection"),
)
"""All kinds of writers that are known; a new one is a row here."""


@dataclass(frozen=True, slots=True)
class PostNorms:
    """Norms that a component's output passes, in this order, before the addition.

    They count where the layer has all of them and the `witness` as well. `kind` narrows them to one kind of writer.
    """

    component: str
    norms: tuple[str, ...]
    witness: str = ""
    kind: str = ""


POST_NORMS = (
    PostNorms(MLP, ("post_per_layer_input_norm",), kind="per-layer input"),
    PostNorms(MLP, ("post_feedforward_layernorm_2", "post_feedforward_layernorm"), kind=EXPERTS),
    PostNorms(MLP, ("post_feedforward_layernorm_1", "post_feedforward_layernorm"), kind="MLP"),
    PostNorms(MLP, ("post_feedforward_layernorm",)),
    PostNorms(MLP, ("post_mlp_layernorm",)),
    PostNorms(MLP, ("post_norm2",)),
    PostNorms(ATTENTION, ("post_self_attn_layernorm",), "post_mlp_layernorm"),
    PostNorms(ATTENTION, ("post_norm1",), "post_norm2"),
    PostNorms(ATTENTION, ("post_attention_layernorm",), "post_feedforward_layernorm"),
    PostNorms(ATTENTION, ("post_attention_layernorm",), "post_mlp_layernorm"),
)
"""GLM 4 and HyperCLOVA X name them apart. In Gemma and OLMo 2 `post_attention_layernorm` follows the attention block,
but only because the MLP has a post-norm as well; elsewhere it is the norm *before* the MLP.
"""
WEIGHT_NAMES = ("weight", "qweight", "weight_packed")
"""What a module's weight is called, as it is or packed."""


@dataclass(frozen=True, slots=True)
class Writer:
    """One weight of a decoder layer that writes, with what follows it before the addition.

    `weight` is `(out, in)`, or `(expert, out, in)` where experts are fused; `transposed` ones lie with the last two
    swapped. `name` is that of the module or, for fused experts, of the parameter; `weight_name` and `bias_name` are
    those of the parameters; `tied` names others that share the weight's memory. `gain` is the post-norms' gain
    `(d_model,)` or None.
    """

    name: str
    component: str
    kind: str
    layer: int
    weight: Tensor
    weight_name: str
    bias: Tensor | None
    bias_name: str | None
    transposed: bool
    gain: Tensor | None
    tied: tuple[str, ...] = ()

    @property
    def matrix(self) -> Tensor:
        """The weight as `(out, in)` or `(expert, out, in)`, a view of the live parameter."""
        data = self.weight.detach()
        return data.mT if self.transposed else data

    @property
    def packed(self) -> bool:
        """Whether the values are packed in a few bits, so that they cannot be edited in place."""
        return self.weight.dtype.itemsize < 2 or not self.weight.dtype.is_floating_point

    @property
    def values(self) -> Tensor:
        """The values as float32, `(out, in)` or `(expert, out, in)`; packed ones are unpacked. See `unreadable`."""
        return unpacked(self.weight) if self.packed else self.matrix.float()

    @property
    def unreadable(self) -> bool:
        """Whether the values are packed in a way that is not known, so that nothing can be edited."""
        return self.packed and not is_four_bit(self.weight)

    @property
    def count(self) -> int:
        """How many writers this is: fused experts count one by one."""
        return int(self.weight.shape[0]) if self.weight.ndim == 3 else 1


def find_writers(network: nn.Module, layers: Iterable[nn.Module], width: int) -> list[Writer]:
    """All residual writers of `layers` that the table knows, layer by layer.

    Raises `EngineError` that names the layers and what they hold where no writer at all is found.
    """
    layers = list(layers)
    found = [
        writer
        for candidate in candidates(network, layers, width)
        if (row := _row(candidate.place)) and (writer := candidate.writer(row.component, row.kind))
    ]
    if not found:
        places = sorted({candidate.place for candidate in candidates(network, layers, width)})
        raise EngineError(
            f"No residual writer was found in the decoder layers of {type(network).__name__}; what they hold that is "
            f"as wide as the residual stream: {', '.join(places) or 'nothing'}.",
            "This architecture is not supported yet; nothing was changed.",
        )
    return found


def find_embeddings(network: nn.Module, width: int) -> list[Writer]:
    """The table of input embeddings, and that of learned positions beside it; empty where none is `width` wide.

    A table `(token, d_model)` is a writer that lies transposed: it writes one of its rows.
    """
    table = getattr(network, "get_input_embeddings", lambda: None)()
    place = next((name for name, module in network.named_modules() if module is table), None)
    if table is None or place is None:
        return []
    owner = place.rpartition(".")[0]
    parameters = list(network.named_parameters(remove_duplicate=False))
    found = []
    for leaf, module in network.get_submodule(owner).named_children():
        if not isinstance(module, nn.Embedding) or module.weight.shape[-1] != width:
            continue
        name = f"{owner}.{leaf}".removeprefix(".")
        found.append(
            Writer(
                name=name,
                component=EMBEDDINGS,
                kind="embeddings" if module is table else "position embeddings",
                layer=BEFORE_LAYERS,
                weight=module.weight,
                weight_name=f"{name}.weight",
                bias=None,
                bias_name=None,
                transposed=True,
                gain=None,
                tied=tuple(
                    other for other, weight in parameters if weight is module.weight and other != f"{name}.weight"
                ),
            )
        )
    return found if any(writer.weight is table.weight for writer in found) else []


def _row(place: str) -> Row | None:
    return next((row for row in DRESSES if re.fullmatch(row.places, place)), None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A weight inside a decoder layer whose output is as wide as the residual stream.

    `place` is where in the layer it stands: the module's path or, for a parameter without one, its own.
    """

    place: str
    layer: int
    layer_name: str
    layer_module: nn.Module
    owner: nn.Module
    leaf: str
    weight: Tensor
    transposed: bool
    width: int

    @property
    def group(self) -> str:
        """The place with the numbers of experts left out, not those in names such as `w2`: what is alike in all."""
        return re.sub(r"\b\d+\b", "*", self.place)

    def writer(self, component: str, kind: str, gain: Tensor | None = None) -> Writer:
        """This weight as a writer; without a `gain` that of the post-norms the table knows is taken."""
        named = self.leaf in WEIGHT_NAMES
        bias_leaf = "bias" if named else f"{self.leaf}_bias"
        bias = getattr(self.owner, bias_leaf, None)
        biased = isinstance(bias, Tensor) and bias.shape[-1] == self.width
        name = f"{self.layer_name}.{self.place}"
        owner_name = name if named else name.rpartition(".")[0]
        return Writer(
            name=name,
            component=component,
            kind=kind,
            layer=self.layer,
            weight=self.weight,
            weight_name=f"{owner_name}.{self.leaf}",
            bias=bias if biased else None,
            bias_name=f"{owner_name}.{bias_leaf}" if biased else None,
            transposed=self.transposed,
            gain=_gain(self.layer_module, component, kind) if gain is None else gain,
        )


def candidates(network: nn.Module, layers: Sequence[nn.Module], width: int) -> Iterator[Candidate]:
    """Every weight inside the decoder layers whose output is `width` wide, layer by layer; shared ones once."""
    names = {id(module): name for name, module in network.named_modules()}
    seen: set[int] = set()
    for index, layer in enumerate(layers):
        for path, owner in layer.named_modules():
            for leaf, weight in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
                transposed = _lies_transposed(owner, leaf, weight, width)
                if transposed is None or id(weight) in seen:
                    continue
                seen.add(id(weight))
                place = path if leaf in WEIGHT_NAMES else f"{path}.{leaf}".removeprefix(".")
                yield Candidate(place, index, names[id(layer)], layer, owner, leaf, weight, transposed, width)


def _lies_transposed(owner: nn.Module, leaf: str, weight: Tensor, width: int) -> bool | None:
    """Whether a weight whose output is `width` wide lies `(in, out)`; None where it is no such weight."""
    features = getattr(owner, "out_features", None)
    if leaf in WEIGHT_NAMES and isinstance(features, int):  # packed weights do not show their shape
        return False if features == width else None
    if weight.ndim not in (2, 3) or isinstance(owner, nn.Embedding):
        return None
    rows, columns = (side == width for side in weight.shape[-2:])
    if type(owner).__name__ == "Conv1D":
        return True if columns else None
    if rows and columns:  # as in gpt-oss: only what stands beside it tells
        return bool(getattr(owner, "is_transposed", False)) or _reads_rows(owner, width)
    if weight.ndim == 2 and leaf in WEIGHT_NAMES:
        return False if rows else None
    return columns if rows or columns else None


def _reads_rows(owner: nn.Module, width: int) -> bool:
    """Whether the experts' other weights, which read the stream, have it along the rows: `(expert, in, out)`."""
    others = [weight for weight in owner.parameters(recurse=False) if weight.ndim == 3]
    return any(weight.shape[1] == width != weight.shape[2] for weight in others)


def _gain(layer: nn.Module, component: str, kind: str) -> Tensor | None:
    """The gain of all norms after a writer, or None."""
    names = dict(layer.named_modules()).keys()
    for row in POST_NORMS:
        if row.component == component and row.kind in {"", kind} and {*row.norms, row.witness or row.norms[0]} <= names:
            gains = [gain for name in row.norms if (gain := norm_gain(layer.get_submodule(name))) is not None]
            return torch.stack(gains).prod(dim=0) if gains else None
    return None


def norm_gain(norm: nn.Module) -> Tensor | None:
    """The gain `(d_model,)` of an RMS norm, float32, read off the norm itself: it maps ones to its gain.

    None where an identity stands in its place.
    """
    weight = next(norm.parameters(), None)
    if weight is None:
        return None
    with torch.no_grad():  # in float32: a gain rounded to the weights' dtype would let part of a direction through
        gain: Tensor = copy.deepcopy(norm).float()(torch.ones_like(weight, dtype=torch.float32))
    return gain


def count_components(writers: Iterable[Writer]) -> dict[str, int]:
    """How many writers each component has, experts one by one."""
    found: Counter[str] = Counter()
    for writer in writers:
        found[writer.component] += writer.count
    return dict(found)


def count_kinds(writers: Sequence[Writer]) -> dict[str, int]:
    """How many writers there are of each kind; the name of the experts says how many a layer has."""
    found: Counter[str] = Counter()
    experts: Counter[int] = Counter()
    for writer in writers:
        found[writer.kind] += writer.count
        experts[writer.layer] += writer.count if writer.kind == EXPERTS else 0
    return {f"{max(experts.values())} {kind} each" if kind == EXPERTS else kind: found[kind] for kind in found}
