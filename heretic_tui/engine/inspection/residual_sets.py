"""Residual vectors of both prompt sets, as a run's folder keeps them: of the original model, and of trials."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError, damaged
from heretic_tui.engine.files import bytes_of, write_atomically

if TYPE_CHECKING:
    from heretic_tui.engine.runs.run import Run

Vectors: TypeAlias = NDArray[np.float32]

ORIGINAL = 0
"""The number that stands for the original model where trials are counted from 1."""
SAMPLES, SAMPLE = 64, 4096
"""How much of a file its fingerprint is taken from: so many pieces of so many bytes."""
ROUNDING = 1e-6
"""Two centres that differ by no more than this share of their length differ by rounding alone."""


@dataclass(frozen=True)
class ResidualSets:
    """Residual vectors of the good and the bad prompts, each `(prompts, layers + 1, d_model)`, float32.

    Row 0 of a prompt is the stream into layer 0, row l + 1 the stream after decoder layer l. `good_mid` and
    `bad_mid`, `(prompts, layers, d_model)`, are taken between attention and MLP; None where a model has no such place.
    """

    good: Vectors
    bad: Vectors
    good_mid: Vectors | None = None
    bad_mid: Vectors | None = None

    @property
    def rows(self) -> int:
        """How many places of the stream there are: the layers and the stream into the first."""
        return int(self.good.shape[1])

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.good.shape[2])

    @property
    def bytes(self) -> int:
        """Memory that the vectors take."""
        return sum(vectors.nbytes for _, vectors in self.arrays())

    @cached_property
    def differences(self) -> NDArray[np.float64]:
        """Mean of the bad prompts less mean of the good ones, `(layers + 1, d_model)`."""
        difference: NDArray[np.float64] = self.bad.mean(axis=0, dtype=np.float64) - self.good.mean(
            axis=0, dtype=np.float64
        )
        return difference

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors along the differences of the means, `(layers + 1, d_model)`; zero where there is none."""
        good, bad = (vectors.mean(axis=0, dtype=np.float64) for vectors in (self.good, self.bad))
        differences = np.stack([significant(*centres) for centres in zip(good, bad, strict=True)])
        lengths = np.linalg.norm(differences, axis=1, keepdims=True)
        directions: NDArray[np.float64] = np.divide(
            differences, lengths, out=np.zeros_like(differences), where=lengths > 0
        )
        return directions

    @property
    def mid(self) -> tuple[Vectors, Vectors] | None:
        """Both sets between attention and MLP, where they are known."""
        return None if self.good_mid is None or self.bad_mid is None else (self.good_mid, self.bad_mid)

    def check(self) -> None:
        """Raise `EngineError` where the vectors cannot be measured, and say which set, prompt and layer."""
        if self.good.shape[1:] != self.bad.shape[1:]:
            raise EngineError(
                f"The two sets' residual vectors do not fit together: {self.good.shape[1:]} and {self.bad.shape[1:]} "
                "(layers + 1, width).",
                "Measure them again with one model.",
            )
        for name, vectors in self.arrays():
            broken = np.argwhere(~np.isfinite(vectors).all(axis=2))
            if len(broken):
                prompt, row = (int(number) for number in broken[0])
                place = f"layer {row}" if name.endswith("_mid") else f"layer {row - 1}" if row else "the embeddings"
                kind, total = name.removesuffix("_mid"), vectors.shape[0] * vectors.shape[1]
                raise EngineError(
                    f"The residual vectors are not all finite numbers: first at {place}, {kind} prompt {prompt + 1}; "
                    f"{len(broken)} of {total} vectors are affected.",
                    'The dtype overflows on this model: measure again with dtypes = ["bfloat16", "float32"].',
                )

    def arrays(self) -> Iterator[tuple[str, Vectors]]:
        """The sets that there are, each with its name."""
        for name in ("good", "bad", "good_mid", "bad_mid"):
            if (vectors := getattr(self, name)) is not None:
                yield name, vectors


def significant(good: NDArray[np.float64], bad: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference of two centres `(d_model,)`, and zeros where it is nothing but rounding."""
    difference = bad - good
    longest = max(np.linalg.norm(good), np.linalg.norm(bad))
    return difference if np.linalg.norm(difference) > ROUNDING * longest else np.zeros_like(difference)


def residuals_path(run: "Run", trial: int = ORIGINAL) -> Path:
    """Where a run keeps the residual vectors of the original model, or of a trial."""
    from heretic_tui.engine.runs.run import RESIDUALS

    return run.path / RESIDUALS if trial == ORIGINAL else inspection_path(run, f"residuals-{trial:04}.safetensors")


def inspection_path(run: "Run", name: str) -> Path:
    """Where a run keeps what was found out about its residual vectors."""
    return run.path / "inspection" / name


def save_residual_sets(path: Path, sets: ResidualSets) -> None:
    """Keep the vectors as safetensors, written atomically."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(vectors, dtype=np.float32) for name, vectors in sets.arrays()}
    needed = bytes_of(arrays.values())
    write_atomically(path, lambda temporary: save_file(arrays, temporary), needed=needed)


def fingerprint(path: Path) -> str:
    """What tells a file of residual vectors from another one, read in a moment however large it is."""
    try:
        size = path.stat().st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        with path.open("rb") as file:
            for part in range(SAMPLES):
                file.seek(part * max(0, size - SAMPLE) // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.", "Check the file's permissions.") from error
    return digest.hexdigest()


def load_residual_sets(path: Path) -> ResidualSets:
    """Read what `save_residual_sets` wrote; does not `check` it.

    Raises `EngineError` where there is no such file, with what to do, or where it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise _missing(path)
    try:
        arrays = load_file(path)
        if any(array.ndim != 3 for array in arrays.values()):
            raise TypeError("its parts do not fit together")
        return ResidualSets(**{name: arrays[name] for name in sorted(arrays)})
    except (SafetensorError, TypeError) as error:
        raise damaged(path, error) from error


def _missing(path: Path) -> EngineError:
    trial = path.stem.rpartition("-")[2]
    run, whose, option = path.parent.name, "its original model", ""
    if trial.isdigit():
        run, whose, option = path.parent.parent.name, f"trial {int(trial)}", f" --trial {int(trial)}"
    return EngineError(
        f"{run} keeps no residual vectors of {whose}.",
        f"Measure them: m in the inspector, or heretic-tui inspect {run}{option} --measure",
    )
