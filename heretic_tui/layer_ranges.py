"""Layers as people write them: `14`, `8-20`, `3, 8-20`."""

import re
from collections.abc import Iterable

EXAMPLES = "14, 8-20, or 3, 8-20"


class NoLayers(ValueError):
    """Text that names no layers; its argument is the part that does not."""


def layers_of(text: str) -> tuple[int, ...]:
    """The layers that a text names, in order, each once. Raises `NoLayers`."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:[-–]\s*(\d{1,4})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first:
            raise NoLayers(part.strip())
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def shown_layers(layers: Iterable[int]) -> str:
    """Layers as ranges: `3, 8-20`."""
    spans: list[list[int]] = []
    for layer in sorted(set(layers)):
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)
