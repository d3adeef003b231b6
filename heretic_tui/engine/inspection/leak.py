"""What every layer writes along its own direction, and what of it is left once every known writer is ablated."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import damaged
from heretic_tui.engine.events import Tick
from heretic_tui.engine.files import write_text
from heretic_tui.engine.inspection.residual_sets import ORIGINAL, inspection_path

if TYPE_CHECKING:
    from heretic_tui.engine.ablation.directions import Directions
    from heretic_tui.engine.model.language_model import LanguageModel
    from heretic_tui.engine.runs.run import Run

PROMPTS = 4
"""Prompts of each set that the probe looks at; the shares of different prompts are much alike."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Mean share `|update . v| / |update|` of every decoder layer's update along its direction, at the last position.

    `write` in the model as it is, on its own stream: where a layer rescales the whole stream, that is part of its
    update. `leak` with every writer fully ablated and the direction taken out of what enters the layer, so that no
    rescaling counts; None where that was not measured.
    """

    write: tuple[float, ...]
    leak: tuple[float, ...] | None = None


def measure_write(model: "LanguageModel", texts: Sequence[str], directions: "Directions") -> Job[Leak]:
    """What the model as it is, with any ablation in place, writes along the directions on a few templated texts."""
    yield Tick()
    return Leak(_shares(model, texts, directions, cleaned=False))


def measure_leak(
    model: "LanguageModel", texts: Sequence[str], directions: "Directions", *, gain_aware: bool = True
) -> Job[Leak]:
    """What the model writes along each layer's direction on a few texts, before and under a full ablation.

    Takes two passes over the texts; the weights are put back.
    """
    from heretic_tui.engine.ablation.updates import fully_ablated

    write = (yield from measure_write(model, texts, directions)).write
    with fully_ablated(model, directions, gain_aware=gain_aware):
        yield Tick()
        leaked = _shares(model, texts, directions, cleaned=True)
    return Leak(write, leaked)


def _shares(
    model: "LanguageModel", texts: Sequence[str], directions: "Directions", *, cleaned: bool
) -> tuple[float, ...]:
    """Shares of all layers, means over the texts; each text by itself, so that nothing is padded."""
    import torch

    from heretic_tui.engine.ablation.updates import update_shares

    found = [update_shares(model, model.encode([text]), directions, 1, cleaned=cleaned)[0] for text in texts]
    return tuple(torch.cat(found, dim=1).mean(dim=(1, 2)).tolist())


def leak_path(run: "Run", trial: int = ORIGINAL) -> Path:
    """Where a run keeps what its original model, or a trial, writes along its directions."""
    return inspection_path(run, f"leak-{trial:04}.json")


def save_leak(path: Path, leak: Leak) -> None:
    """Keep the shares as JSON, written atomically."""
    write_text(path, json.dumps(asdict(leak)) + "\n")


def load_leak(path: Path) -> Leak | None:
    """Read what `save_leak` wrote; None where there is nothing. Raises `EngineError` where the file is damaged."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        leak = content["leak"]
        return Leak(tuple(map(float, content["write"])), None if leak is None else tuple(map(float, leak)))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
