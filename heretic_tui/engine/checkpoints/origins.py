"""Origins: which tensors of a checkpoint make up a parameter of the loaded model, and how.

Loading may rename tensors, add or drop a prefix, stack experts one on another, turn or split what it reads. The
library keeps what it did as a list of conversions, each of which can be reverted; here one parameter at a time is
taken through them, in both directions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnknownOrigin(Exception):
    """It cannot be said which tensors of the checkpoint make up a parameter."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A parameter's tensors by the checkpoint's names, in order; `conversion` is None where it is one, as it lies.

    `patterns` says for each tensor which of the conversion's patterns it matched; `first` is the parameter that
    the conversion goes by, which is another one where it makes several at once.
    """

    parameter: str
    names: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    first: str = ""
    conversion: Any = None


def origins(network: "PreTrainedModel", names: Iterable[str]) -> dict[str, Origin]:
    """The origin of every parameter that is made of tensors called `names`."""
    from transformers.core_model_loading import dot_natural_key

    renamings, converters = _conversions(network)
    known = network.state_dict()
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    gathered: dict[str, list[tuple[str, str]]] = defaultdict(list)
    plain: dict[str, Origin] = {}
    for name in sorted(names, key=dot_natural_key):
        parameter, pattern = _loaded_name(network, name, known, renamings, converters)
        if parameter not in known:
            continue
        if pattern is None:
            plain[parameter] = Origin(parameter, (name,))
        else:
            gathered[parameter].append((name, pattern))
    found = dict(plain)
    for first, parts in gathered.items():
        converter = by_pattern[parts[0][1]]
        stored, patterns = zip(*parts, strict=True)
        for target in converter.target_patterns:
            parameter = first.replace(converter.target_patterns[0], target)
            found[parameter] = Origin(parameter, stored, patterns, first, converter)
    return found


def _conversions(network: "PreTrainedModel") -> tuple[list[Any], list[Any]]:
    """Renamings and conversions that loading the network made use of, or would make use of."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    # What `from_pretrained` leaves on the model and `save_pretrained` reverts; there is no public name for it.
    used = getattr(network, "_weight_conversions", None)
    every = deepcopy(get_model_conversion_mapping(network) if used is None else used)
    return (
        [entry for entry in every if isinstance(entry, WeightRenaming)],
        [entry for entry in every if isinstance(entry, WeightConverter)],
    )


def _loaded_name(
    network: "PreTrainedModel", name: str, known: Mapping[str, Any], renamings: list[Any], converters: list[Any]
) -> tuple[str, str | None]:
    """What loading calls a tensor, and the pattern of the conversion that takes it in, if one does."""
    from transformers.core_model_loading import rename_source_key

    prefix = network.base_model_prefix
    found: tuple[str, str | None] = rename_source_key(name, renamings, converters, prefix, known)
    if found[0] not in known and name in known:
        found = rename_source_key(name, [], [], prefix, known)
    return found


def assemble(network: "PreTrainedModel", origin: Origin, tensors: Sequence[Tensor]) -> Tensor:
    """The parameter that `tensors`, in the order of the origin's names, make up. Raises `UnknownOrigin`."""
    if origin.conversion is None:
        return tensors[0]
    conversion = deepcopy(origin.conversion)
    for name, pattern, tensor in zip(origin.names, origin.patterns, tensors, strict=True):
        conversion.add_tensor(origin.first, name, pattern, tensor)
    made = _converted(network, conversion, origin.first)
    if origin.parameter not in made:
        raise UnknownOrigin(f"{', '.join(origin.names[:2])} do not make up {origin.parameter}")
    return made[origin.parameter]


def take_apart(network: "PreTrainedModel", origin: Origin, parameter: Tensor) -> list[Tensor]:
    """The inverse of `assemble`: the checkpoint's tensors, in the order of the origin's names.

    Raises `UnknownOrigin` where the conversion cannot be reverted from one parameter alone.
    """
    from transformers.core_model_loading import apply_converters

    if origin.conversion is None:
        return [parameter]
    if len({*origin.patterns}) > 1 or len(origin.conversion.target_patterns) > 1:
        raise UnknownOrigin(f"{origin.parameter} is stored together with another weight")
    back = origin.conversion.reverse_transform()
    layer, pattern = apply_converters(origin.parameter, [back])
    if pattern is None:
        raise UnknownOrigin(f"nothing reverts how {origin.parameter} was read")
    back.add_tensor(layer, origin.parameter, pattern, parameter)
    parts = list(_converted(network, back, layer).values())
    if len(parts) != len(origin.names):
        raise UnknownOrigin(f"{origin.parameter} falls into {len(parts)} tensors in place of {len(origin.names)}")
    return parts


def _converted(network: "PreTrainedModel", conversion: Any, name: str) -> dict[str, Tensor]:
    try:
        made = conversion.convert(name, model=network, config=network.config)
    except Exception as error:  # conversions come from many hands and say what they miss in many ways
        raise UnknownOrigin(f"the conversion of {name} failed ({error})") from error
    return {key: value[0] if isinstance(value, list) else value for key, value in made.items()}
