"""How much a run's directions depend on how the residual vectors are taken, as the run's folder keeps it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heretic_tui.engine.errors import damaged
from heretic_tui.engine.files import write_text
from heretic_tui.engine.inspection.residual_sets import fingerprint, inspection_path
from heretic_tui.engine.runs.run import DIRECTIONS, Run

FILE = "sensitivity.json"
PROMPTS = 64
"""Prompts of each set that are read, unless another number is asked for."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to take the residual vectors: its directions' cosine with the run's own at each row of the stream.

    Row 0 belongs to the embeddings, row l + 1 to the stream after decoder layer l; NaN where there is no direction.
    """

    name: str
    meaning: str
    cosines: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The lowest cosine after any layer; NaN where there is none."""
        return min((cosine for cosine in self.cosines[1:] if not math.isnan(cosine)), default=math.nan)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All variants that were tried, each with at most `prompts` prompts of either set."""

    variants: tuple[Variant, ...]
    prompts: int


def sensitivity_path(run: Run) -> Path:
    """Where a run keeps its sensitivity."""
    return inspection_path(run, FILE)


def save_sensitivity(run: Run, found: Sensitivity, good: Sequence[str], bad: Sequence[str]) -> None:
    """Keep what was found, with the prompts that were read and what the run's directions were then."""
    content = {
        "directions": fingerprint(run.path / DIRECTIONS),
        **sensitivity_json(found),
        "good_prompts": list(good),
        "bad_prompts": list(bad),
    }
    write_text(sensitivity_path(run), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_sensitivity(run: Run) -> Sensitivity | None:
    """What a run keeps; None where it was not measured, or for other directions than the run has now.

    Raises `EngineError` where the file is damaged.
    """
    path = sensitivity_path(run)
    if not path.is_file() or not (run.path / DIRECTIONS).is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["directions"] != fingerprint(run.path / DIRECTIONS):
            return None
        variants = tuple(
            Variant(
                str(one["name"]),
                str(one["meaning"]),
                tuple(math.nan if cosine is None else float(cosine) for cosine in one["cosines"]),
            )
            for one in content["variants"]
        )
        return Sensitivity(variants, int(content["prompts"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def sensitivity_json(found: Sensitivity) -> dict[str, Any]:
    """The variants as plain values; null where a row has no direction."""
    return {
        "prompts": found.prompts,
        "variants": [
            {
                "name": one.name,
                "meaning": one.meaning,
                "cosines": [None if math.isnan(cosine) else cosine for cosine in one.cosines],
            }
            for one in found.variants
        ],
    }
