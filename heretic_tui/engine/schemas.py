"""What is read from a run's folder is data of unknown origin: it fits its schema, or it is refused."""

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from heretic_tui.engine.records import MOST, ModelFacts

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
MOST_LAYERS = 10_000
"""Of any model; screens draw something for each."""


def checked(kind: type[T], fields: Any) -> T:
    """A dataclass of ours from the fields of a file. Raises ValueError for what does not fit, in one line."""
    from pydantic import ValidationError

    try:
        found: T = _adapter(kind).validate_python(fields)  # type: ignore[arg-type] # a class can be hashed
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return found


def checked_facts(fields: Any) -> ModelFacts:
    """A model's facts from the fields of a file; counts that no model has are refused."""
    facts = checked(ModelFacts, fields)
    if not (1 <= facts.layers <= MOST_LAYERS and 1 <= facts.width <= MOST and 0 <= facts.parameters < 10**18):
        raise ValueError("no model has so many layers, or is so wide")
    return facts


def in_range(value: Any, low: int, high: int = MOST) -> int:
    """A whole number from a file, if it lies between these two. Raises TypeError, ValueError."""
    if type(value) is not int:
        raise TypeError("a number is none")
    if not low <= value <= high:
        raise ValueError(f"{value if abs(value) < 10**12 else 'a number'} cannot be that")
    return value


@cache
def _adapter(kind: type[Any]) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
