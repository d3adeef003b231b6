"""Made-up runs that keep residual vectors, for tests of the inspector."""

from pathlib import Path

import numpy as np

from heretic_tui.engine.inspection.residual_sets import ResidualSets, save_residual_sets
from heretic_tui.profile import store

ROWS, WIDTH, PROMPTS = 13, 32, 20


def planted(rows: int = ROWS, width: int = WIDTH, prompts: int = PROMPTS, seed: int = 0) -> ResidualSets:
    """Both sets with one direction between them that grows from layer 3 on."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=width)
    direction /= np.linalg.norm(direction)
    good, bad = (random.normal(size=(prompts, rows, width)).astype(np.float32) for _ in range(2))
    for row in range(rows):
        good[:, row, 0] += 4
        bad[:, row, 0] += 4
        bad[:, row] += (direction * 2 * max(0, row - 3)).astype(np.float32)
    return ResidualSets(good, bad, good[:, 1:] * np.float32(0.9), bad[:, 1:] * np.float32(0.9))


def ablated(sets: ResidualSets, first: int = 6) -> ResidualSets:
    """The same without the direction from a row on."""
    units = sets.directions.astype(np.float32)

    def without(vectors: np.ndarray) -> np.ndarray:
        found = vectors.copy()
        for row in range(first, sets.rows):
            found[:, row] -= (found[:, row] @ units[row])[:, None] * units[row]
        return found

    return ResidualSets(without(sets.good), without(sets.bad), sets.good_mid, sets.bad_mid)


def measured_run(path: Path, sets: ResidualSets | None = None, **of_trials: ResidualSets) -> Path:
    """A run's folder with these vectors of its original model, and of trials: `trial_7=...`."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "profile.toml").write_text(store.dump(store.resolve("demo").profile), encoding="utf-8")
    if sets is not None:
        save_residual_sets(path / "residuals.safetensors", sets)
    for name, of_trial in of_trials.items():
        number = int(name.rpartition("_")[2])
        save_residual_sets(path / "inspection" / f"residuals-{number:04}.safetensors", of_trial)
    return path
