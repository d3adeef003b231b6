"""The leak probe: does anything write along a direction once every known writer is ablated?

A layer's update is its output less its input. With every writer of the layer ablated for a unit vector v, the update
has no component along v: what is left came through a weight that was not found, in whatever architecture.
"""

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
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel

if TYPE_CHECKING:
    from torch import Tensor

    from heretic_tui.engine.directions import Directions
    from heretic_tui.engine.language_model import LanguageModel
    from heretic_tui.engine.run import Run

PROMPTS = 4
"""Prompts of each set that the probe looks at; the shares of different prompts are much alike."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Mean share `|update . v| / |update|` of every decoder layer's update along its direction, at the last position.

    `write` in the model as it is, `leak` with every writer fully ablated; None where that was not measured.
    """

    write: tuple[float, ...]
    leak: tuple[float, ...] | None = None


def measure_write(model: "LanguageModel", texts: Sequence[str], directions: "Directions") -> Job[Leak]:
    """What the model as it is, with any ablation in place, writes along the directions on a few templated texts."""
    yield Tick()
    return Leak(_shares(model, texts, directions.vectors))


def measure_leak(
    model: "LanguageModel", texts: Sequence[str], directions: "Directions", *, gain_aware: bool = True
) -> Job[Leak]:
    """What the model writes along each layer's direction on a few texts, before and under a full ablation.

    Takes two passes over the texts; the weights are put back.
    """
    from heretic_tui.engine.ablation import ablated

    write = (yield from measure_write(model, texts, directions)).write
    layers = len(model.layers)
    full = Kernel(1.0, 0.0, 1.0, float(layers))
    everywhere = AblationParameters(None, {ATTENTION: full, MLP: full})
    with ablated(model, directions, everywhere, row_normalization="none", gain_aware=gain_aware):
        yield Tick()
        leaked = _shares(model, texts, directions.vectors)
    return Leak(write, leaked)


def _shares(model: "LanguageModel", texts: Sequence[str], vectors: "Tensor") -> tuple[float, ...]:
    import torch

    from heretic_tui.engine.residuals import batch_residuals

    stream = torch.cat([batch_residuals(model, model.encode([text])) for text in texts]).double()
    updates = stream.diff(dim=1)
    along = (updates * vectors[1:].double()).sum(dim=-1).abs()
    lengths = torch.linalg.vector_norm(updates, dim=-1)
    shares = torch.where(lengths > 0, along / lengths, torch.zeros_like(along)).mean(dim=0)
    return tuple(float(share) for share in shares)


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
