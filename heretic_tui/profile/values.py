"""Kinds of values that several settings have, each with what may be written for it."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from heretic_tui.layer_ranges import EXAMPLES, NoLayers, layers_of
from heretic_tui.profile.fields import refuse

MOST_DIMENSIONS = 5
"""Of a subspace; in published work five directions already cost smaller models their coherence."""

Dtype = Literal["auto", "float16", "bfloat16", "float32"]
_SIZE = re.compile(r"\d+(?:\.\d+)?\s*(?:[KMGT]i?)?B", re.IGNORECASE)


def _size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        refuse('expected a size such as "5GB" or "500MB"')
    return text


def _text_or_table(value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        refuse("expected text or a table")
    if isinstance(value, Mapping) and not all(isinstance(device, str | int) for device in value.values()):
        refuse("expected a device (a number or text) for every part of the model")
    return value


def _size_or_bytes(value: Any) -> Any:
    if isinstance(value, str):
        return _size(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse('expected a size such as "5GB", or a number of bytes')
    return value


def _dimensions(value: Any) -> Any:
    if value != "search" and (
        isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_DIMENSIONS
    ):
        refuse(f'expected a whole number from 1 to {MOST_DIMENSIONS}, or "search"')
    return value


def _flag_or_text(value: Any) -> Any:
    if not isinstance(value, bool | str | None):
        refuse("expected true, false or text")
    return value


def _layers(text: str) -> str:
    try:
        layers_of(text)
    except NoLayers:
        refuse(f"expected layers such as {EXAMPLES}")
    return text


def _listed(value: Any) -> Any:
    """A single range may stand without the brackets of a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Layers = Annotated[str, AfterValidator(_layers)]
LayerRanges = Annotated[list[Layers] | None, BeforeValidator(_listed)]
Size = Annotated[str, AfterValidator(_size)]
Dimensions = Annotated[int | str, BeforeValidator(_dimensions)]
SizeOrBytes = Annotated[str | int, BeforeValidator(_size_or_bytes)]
DeviceMap = Annotated[str | dict[str, int | str], BeforeValidator(_text_or_table)]
FlagOrText = Annotated[bool | str | None, BeforeValidator(_flag_or_text)]
Skip = Annotated[list[str], Field(min_length=2, max_length=2)]
