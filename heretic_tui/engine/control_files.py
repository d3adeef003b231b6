"""Small files that processes leave for each other in a run's folder: data with a schema, from whomever they come."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heretic_tui.private import Refused, read_own

Schema = Mapping[str, Callable[[Any], bool]]
"""By field, whether a value can be its."""
LONGEST_WORD = 255


def word(value: Any) -> bool:
    """Whether a value is a short text that can be shown."""
    return isinstance(value, str) and len(value) <= LONGEST_WORD and value.isprintable()


def part_of_a_name(value: Any) -> bool:
    """Whether a value is a short text that can stand in a file's name."""
    return word(value) and not {*"/\\"} & {*value}


def whole(value: Any) -> bool:
    """Whether a value is a number that a process may have."""
    return type(value) is int and 0 < value < 2**32


def moment(value: Any) -> bool:
    """Whether a value is a time stamp in seconds that a calendar knows."""
    return type(value) in {int, float} and math.isfinite(value) and 0 <= value < 1e11


def read_fields(path: Path, schema: Schema) -> tuple[dict[str, Any], float]:
    """The fields of a file and when it was last changed, in seconds.

    Raises `Refused` for a file that is not to be trusted, or does not fit the schema, and `OSError`.
    """
    content, changed = read_own(path)
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused("it is damaged") from error
    if not isinstance(fields, dict) or fields.keys() != schema.keys():
        raise Refused("it has not the fields that it should have")
    if wrong := [name for name, fits in schema.items() if not fits(fields[name])]:
        raise Refused(f"{', '.join(wrong)}: no such value can be")
    return fields, changed
