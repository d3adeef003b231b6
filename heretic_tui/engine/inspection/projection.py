"""Residual vectors as points on a plane, layer by layer: PaCMAP, each layer begun from the one before.

PaCMAP (Wang et al. 2021, JMLR 22(201)) arranges points by three kinds of pairs: near, mid-near and far ones. Of the
vectors it needs nothing but their distances, so that these are computed once a layer, exactly, by a matrix product,
and the pairs are drawn from them here; the library is left with arranging.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.errors import EngineError, damaged
from heretic_tui.engine.events import Progress
from heretic_tui.engine.files import write_atomically
from heretic_tui.engine.inspection.residual_sets import (
    ORIGINAL,
    ResidualSets,
    fingerprint,
    inspection_path,
    load_residual_sets,
    residuals_path,
)

if TYPE_CHECKING:
    from heretic_tui.engine.runs.run import Run

Points: TypeAlias = NDArray[np.float32]
Pairs: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]

PHASE = "Projecting the layers"
NEIGHBORS = 30
"""Near pairs of a point; half as many mid-near and twice as many far ones, as PaCMAP proposes."""
SPARE_NEIGHBORS = 50
"""How many more neighbors are looked at before distances are scaled by how dense a place is."""
MID_NEAR_DRAWS = 6
"""A mid-near point is the second nearest of so many drawn by chance."""
FEWEST = 16
"""Points below which there are too few pairs for PaCMAP; principal components show them instead."""
FIRST_STEPS = (100, 100, 250)
"""PaCMAP's steps in its three phases."""
LATER_STEPS = (25, 25, 75)
"""Fewer do where the layer before is the beginning: trustworthiness and neighbors kept differ no more than by seeds."""
MEDIAN_STEPS = 60
BLOCK = 2048
"""Points whose distances to all others are in memory at once."""
GRACE = 0.2
"""Seconds that a closed job waits for its thread, which owns nothing that must be cleaned up."""
METHOD = "pacmap-1"
"""Changes whenever saved projections are no longer what would be computed."""
PACMAP, COMPONENTS = "PaCMAP", "principal components"


@dataclass(frozen=True)
class Projection:
    """Points of the good and the bad prompts, each `(layers, prompts, 2)`; index 0 is after decoder layer 0.

    `good_after` and `bad_after` are a trial's vectors, projected together with the original's, so on the same axes.
    """

    good: Points
    bad: Points
    good_after: Points | None = None
    bad_after: Points | None = None
    method: str = PACMAP

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.good)

    @property
    def all(self) -> Points:
        """All points, `(layers, points, 2)`."""
        return np.concatenate([one for _, one in self.arrays()], axis=1)

    def arrays(self) -> list[tuple[str, Points]]:
        """The sets that there are, each with its name."""
        named = {name: getattr(self, name) for name in ("good", "bad", "good_after", "bad_after")}
        return [(name, points) for name, points in named.items() if points is not None]


def project(sets: ResidualSets, after: ResidualSets | None = None, seed: int = 0) -> Job[Projection]:
    """Project each layer's vectors to a plane, with the good prompts' geometric median left of the bad ones'.

    With `after`, a trial's vectors are projected together with them. The same vectors and seed give the same points.
    Raises `EngineError` where vectors are not finite or do not fit together.
    """
    sets.check()
    if after is not None:
        after.check()
        if after.good.shape[1:] != sets.good.shape[1:]:
            raise EngineError(
                f"The trial's residual vectors have another shape than the original's: {after.good.shape[1:]} and "
                f"{sets.good.shape[1:]} (layers + 1, width).",
                "Measure both with one model.",
            )
    parts = [sets.good, sets.bad] + ([after.good, after.bad] if after is not None else [])
    yield Progress(PHASE, 0, sets.rows - 1, "layers")
    points, method = yield from in_background(lambda report: _project(parts, seed, report), grace=GRACE)
    ends = np.cumsum([len(one) for one in parts])[:-1]
    good, bad, *trial = np.split(points, ends, axis=1)
    good_after, bad_after = trial or (None, None)
    return Projection(good, bad, good_after, bad_after, method)


def project_run(run: "Run", trial: int = ORIGINAL) -> Job[Projection]:
    """The projection of a run's vectors, kept in its folder; with a trial, of both states together."""
    if (kept := kept_projection(run, trial)) is not None:
        return kept
    original = load_residual_sets(residuals_path(run))
    after = load_residual_sets(residuals_path(run, trial)) if trial != ORIGINAL else None
    projection = yield from project(original, after)
    save_projection(projection_path(run, trial), projection, _marks(run, trial))
    return projection


def kept_projection(run: "Run", trial: int = ORIGINAL) -> Projection | None:
    """The projection that a run's folder keeps; None where there is none of the vectors that are there now.

    Raises `EngineError` where there are no vectors.
    """
    path = projection_path(run, trial)
    if not path.is_file():
        return None
    try:
        return load_projection(path, _marks(run, trial))
    except EngineError:
        return None  # what cannot be read is computed again


def projection_path(run: "Run", trial: int = ORIGINAL) -> Path:
    """Where a run keeps the projection of the original model, or of it together with a trial."""
    return inspection_path(run, f"projection-{trial:04}.safetensors")


def seconds_needed(layers: int, points: int) -> float:
    """About how long a projection takes on two cores."""
    return 4 + layers * points * 0.0003


def save_projection(path: Path, projection: Projection, marks: Sequence[str]) -> None:
    """Keep the points as safetensors, with the fingerprints of the vectors they stand for."""
    from safetensors.numpy import save_file

    about = {"of": json.dumps(list(marks)), "by": METHOD, "method": projection.method}
    arrays = {name: np.ascontiguousarray(points) for name, points in projection.arrays()}
    write_atomically(path, lambda temporary: save_file(arrays, temporary, metadata=about))


def load_projection(path: Path, marks: Sequence[str]) -> Projection | None:
    """Read what `save_projection` wrote; None where it is of other vectors; raises `EngineError` for a damaged file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            if about.get("by") != METHOD or about.get("of") != json.dumps(list(marks)):
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Projection(**arrays, method=about["method"])
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise damaged(path, error) from error


def median_on_plane(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """The place whose summed distance to all points `(points, 2)` is least, by Weiszfeld's steps."""
    median: NDArray[np.float64] = points.mean(axis=0, dtype=np.float64)
    for _ in range(MEDIAN_STEPS):
        weights = 1 / np.maximum(np.hypot(*(points - median).T), 1e-9)
        median = weights @ points / weights.sum()
    return median


def aligned(points: Points, good: int, bad: int, before: Points | None = None) -> Points:
    """Turn points `(points, 2)` so that the medians of the first `good` and the next `bad` ones lie left and right.

    Their centre goes to the origin; where `before` is given and a mirror image lies nearer to it, it is taken.
    """
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    left, right = median_on_plane(centred[:good]), median_on_plane(centred[good : good + bad])
    across, up = right - left
    length = np.hypot(across, up)
    if length > 1e-6 * max(1.0, float(np.abs(centred).max())):
        turn = np.array([[across, -up], [up, across]]) / length
        centred = centred @ turn
    if before is not None:
        mirrored = centred * (1, -1)
        if np.sum((mirrored - before) ** 2) < np.sum((centred - before) ** 2):
            centred = mirrored
    return np.asarray(centred, np.float32)


def _marks(run: "Run", trial: int) -> list[str]:
    states = [ORIGINAL] if trial == ORIGINAL else [ORIGINAL, trial]
    return [fingerprint(residuals_path(run, state)) for state in states]


def _project(parts: Sequence[Floats], seed: int, report: Report) -> tuple[Points, str]:
    """All layers, one after the other, on the thread of a job."""
    good, bad = len(parts[0]), len(parts[1])
    rows, total = parts[0].shape[1], sum(len(part) for part in parts)
    few = total < FEWEST
    if not few:
        _make_ready()
    layers: list[Points] = []
    for row in range(1, rows):
        vectors = np.concatenate([part[:, row] for part in parts])
        vectors = (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float32)
        before = layers[-1] if layers else None
        points = principal_components(vectors) if few else _arranged(vectors, before, seed)
        layers.append(aligned(points, good, bad, before))
        report(Progress(PHASE, row, rows - 1, "layers"))
    return np.stack(layers), COMPONENTS if few else PACMAP


def _make_ready() -> None:
    """Import PaCMAP: seconds the first time, when it is compiled.

    A step is too short to be worth sharing among cores: one thread is quicker than two, and far quicker than many.
    """
    import numba
    import pacmap  # noqa: F401

    numba.set_num_threads(1)


def principal_components(vectors: Floats) -> Points:
    """The two principal components `(points, 2)` of centred vectors."""
    width = min(2, *vectors.shape)
    if min(vectors.shape) <= 2 * FEWEST:
        left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
        found = left[:, :width] * sizes[:width]
    else:
        # Subspace iteration: the first two of thousands, without the others.
        basis = np.random.default_rng(0).standard_normal((vectors.shape[1], 8), dtype=np.float32)
        for _ in range(12):
            basis = np.linalg.qr(vectors.T @ (vectors @ basis))[0]
        _, _, turn = np.linalg.svd(vectors @ basis, full_matrices=False)
        found = vectors @ (basis @ turn[:width].T)
    return np.pad(found, ((0, 0), (0, 2 - width))).astype(np.float32)


def _arranged(vectors: Floats, before: Points | None, seed: int) -> Points:
    """PaCMAP of centred vectors, begun from `before`, or from the principal components."""
    from pacmap import PaCMAP

    # The same draws for every layer: the points then move because the vectors do.
    rng = np.random.default_rng(seed)
    start = principal_components(vectors) if before is None else before
    if float(start.std(axis=0).min()) <= 1e-12 * float(np.abs(start).max()):
        start = rng.standard_normal(start.shape, dtype=np.float32)  # no spread to begin from
    near, middle, far = pairs_of(vectors, rng)
    arrange = PaCMAP(
        n_components=2,
        n_neighbors=neighbors_of(len(vectors)),
        pair_neighbors=near,
        pair_MN=middle,
        pair_FP=far,
        num_iters=FIRST_STEPS if before is None else LATER_STEPS,
    )
    # All pairs are given, so it takes nothing from its first argument but how many points there are.
    points: Points = arrange.fit_transform(start, init=start)
    return points


def neighbors_of(points: int) -> int:
    """Near pairs of a point; fewer where there are not enough points for all pairs of the three kinds."""
    return min(NEIGHBORS, (points - 1) // 4)


def pairs_of(vectors: Floats, rng: np.random.Generator) -> tuple[Pairs, Pairs, Pairs]:
    """Near, mid-near and far pairs `(pairs, 2)` of points, from their exact distances."""
    count = len(vectors)
    near_wanted = neighbors_of(count)
    blocks = [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    looked_at = min(near_wanted + SPARE_NEIGHBORS, count - 1)
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    neighbors = np.empty((count, looked_at), np.int32)
    squares = np.empty((count, looked_at), np.float32)
    middle = np.empty((count, near_wanted // 2), np.int32)
    for block in blocks:
        distances = _squared_distances(vectors, lengths, block)
        neighbors[block], squares[block] = _nearest(distances, looked_at)
        middle[block] = _mid_near(distances, block, middle.shape[1], rng)
    # Distances are scaled by how far the fourth to sixth neighbors of both ends are.
    reach = np.maximum(np.sqrt(squares[:, 3:6]).mean(axis=1), 1e-10)
    scaled = squares / reach[:, None] / reach[neighbors]
    near = np.take_along_axis(neighbors, np.argsort(scaled, axis=1, kind="stable")[:, :near_wanted], axis=1)
    far = np.concatenate([_far(near, block, 2 * near_wanted, rng) for block in blocks])
    return _paired(near), _paired(middle), _paired(far)


def _squared_distances(vectors: Floats, lengths: Floats, block: slice) -> Floats:
    """Squared distances `(block, points)`; a point is infinitely far from itself."""
    distances: Floats = lengths[block, None] + lengths - 2 * (vectors[block] @ vectors.T)
    np.maximum(distances, 0, out=distances)
    distances[np.arange(len(distances)), np.arange(block.start, block.stop)] = np.inf
    return distances


def _nearest(distances: Floats, wanted: int) -> tuple[Pairs, Floats]:
    """The nearest points in order, and how far they are."""
    found = np.argpartition(distances, wanted - 1, axis=1)[:, :wanted]
    squares = np.take_along_axis(distances, found, axis=1)
    order = np.argsort(squares, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1).astype(np.int32), np.take_along_axis(squares, order, axis=1)


def _mid_near(distances: Floats, block: slice, wanted: int, rng: np.random.Generator) -> Pairs:
    """Of a few points drawn by chance the second nearest, `wanted` times for each point."""
    count = distances.shape[1]
    drawn = rng.integers(0, count - 1, (len(distances), wanted, MID_NEAR_DRAWS), dtype=np.int32)
    drawn += drawn >= np.arange(block.start, block.stop, dtype=np.int32)[:, None, None]  # never the point itself
    squares = distances[np.arange(len(distances))[:, None, None], drawn]
    second = np.argpartition(squares, 1, axis=2)[:, :, 1:2]
    return np.take_along_axis(drawn, second, axis=2)[:, :, 0]


def _far(near: Pairs, block: slice, wanted: int, rng: np.random.Generator) -> Pairs:
    """Points drawn by chance among those that are not near."""
    size = block.stop - block.start
    ranks = rng.random((size, len(near)), dtype=np.float32)
    np.put_along_axis(ranks, near[block], 2, axis=1)
    ranks[np.arange(size), np.arange(block.start, block.stop)] = 2
    return np.argpartition(ranks, wanted - 1, axis=1)[:, :wanted].astype(np.int32)


def _paired(others: Pairs) -> Pairs:
    """Each point with each of its others."""
    return np.stack([np.repeat(np.arange(len(others), dtype=np.int32), others.shape[1]), others.ravel()], axis=1)
