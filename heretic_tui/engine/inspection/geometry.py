"""The geometry table: where the two prompt sets' residual vectors lie, layer by layer.

g and b are the means of the good and the bad prompts' vectors, g* and b* their geometric medians, r = b - g and
r* = b* - g* the differences; S is the cosine. Computed in float64.
"""

import csv
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.errors import damaged
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.files import write_text
from heretic_tui.engine.inspection.leak import Leak, leak_path, load_leak
from heretic_tui.engine.inspection.residual_sets import (
    ORIGINAL,
    ResidualSets,
    Vectors,
    fingerprint,
    inspection_path,
    load_residual_sets,
    residuals_path,
    significant,
)

if TYPE_CHECKING:
    from heretic_tui.engine.runs.run import Run

Array = NDArray[np.float64]
FORM = 1
"""Of the saved table; another one is measured again."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: the field's name, the symbol at its head, and what it means."""

    key: str
    symbol: str
    meaning: str


COLUMNS = (
    Column("cos_g_b", "S(g,b)", "cosine of the means of the good and the bad prompts"),
    Column("cos_gm_bm", "S(g*,b*)", "cosine of their geometric medians"),
    Column("cos_g_r", "S(g,r)", "cosine of the good prompts' mean and the difference of the means"),
    Column("cos_gm_rm", "S(g*,r*)", "cosine of the good prompts' median and the difference of the medians"),
    Column("cos_b_r", "S(b,r)", "cosine of the bad prompts' mean and the difference of the means"),
    Column("cos_bm_rm", "S(b*,r*)", "cosine of the bad prompts' median and the difference of the medians"),
    Column("norm_g", "|g|", "length of the good prompts' mean"),
    Column("norm_gm", "|g*|", "length of the good prompts' geometric median"),
    Column("norm_b", "|b|", "length of the bad prompts' mean"),
    Column("norm_bm", "|b*|", "length of the bad prompts' geometric median"),
    Column("norm_r", "|r|", "length of the difference of the means"),
    Column("norm_rm", "|r*|", "length of the difference of the medians"),
    Column("silhouette", "silh", "silhouette of the two sets: 1 far apart, 0 mixed, below 0 in each other's place"),
    Column("good_mean_variance", "var g", "variance over the good prompts, mean over the features"),
    Column("bad_mean_variance", "var b", "variance over the bad prompts, mean over the features"),
    Column("good_max_variance", "max g", "variance over the good prompts, largest of all features"),
    Column("bad_max_variance", "max b", "variance over the bad prompts, largest of all features"),
    Column("mid_cos_g_b", "S mid", "cosine of the means between this layer's attention and MLP"),
    Column("mid_good_mean_variance", "var g mid", "like var g, between this layer's attention and MLP"),
    Column("mid_bad_mean_variance", "var b mid", "like var b, between this layer's attention and MLP"),
    Column("mid_good_max_variance", "max g mid", "like max g, between this layer's attention and MLP"),
    Column("mid_bad_max_variance", "max b mid", "like max b, between this layer's attention and MLP"),
    Column("write", "write", "share of this layer's update that lies along its direction"),
    Column("leak", "leak", "the same with every writer fully ablated: above 0 a weight was missed"),
)


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """One row: the stream's place, and a figure for every column, None where there is none.

    Row 0 is the stream into layer 0, row l + 1 the stream after decoder layer l; the mid figures, `write` and `leak`
    of decoder layer l stand in row l + 1.
    """

    row: int
    cos_g_b: float | None = None
    cos_gm_bm: float | None = None
    cos_g_r: float | None = None
    cos_gm_rm: float | None = None
    cos_b_r: float | None = None
    cos_bm_rm: float | None = None
    norm_g: float | None = None
    norm_gm: float | None = None
    norm_b: float | None = None
    norm_bm: float | None = None
    norm_r: float | None = None
    norm_rm: float | None = None
    silhouette: float | None = None
    good_mean_variance: float | None = None
    bad_mean_variance: float | None = None
    good_max_variance: float | None = None
    bad_max_variance: float | None = None
    mid_cos_g_b: float | None = None
    mid_good_mean_variance: float | None = None
    mid_bad_mean_variance: float | None = None
    mid_good_max_variance: float | None = None
    mid_bad_max_variance: float | None = None
    write: float | None = None
    leak: float | None = None

    @property
    def layer(self) -> int | None:
        """The decoder layer that this row comes after, counted from 0; None for the stream into the first."""
        return self.row - 1 if self.row else None

    @property
    def name(self) -> str:
        """The row as people read it: `in`, or the decoder layer's number."""
        return str(self.row - 1) if self.row else "in"


@dataclass(frozen=True, slots=True)
class Geometry:
    """The table, its rows in the order of the stream, and what should be said about figures that are missing.

    `whole` tells whether medians and silhouettes have been measured.
    """

    rows: tuple[LayerGeometry, ...]
    notes: tuple[str, ...] = ()
    whole: bool = False

    def with_leak(self, leak: Leak | None) -> "Geometry":
        """The same table with the columns `write` and `leak`; without them where there is no leak."""
        written: tuple[float | None, ...] = (None,) * len(self.rows)
        leaked = written
        if leak is not None and len(leak.write) == len(self.rows) - 1:
            written = (None, *leak.write)
            leaked = (None, *leak.leak) if leak.leak is not None else leaked
        found = zip(self.rows, written, leaked, strict=True)
        return replace(self, rows=tuple(replace(row, write=write, leak=leak) for row, write, leak in found))


def quick_geometry(sets: ResidualSets) -> Geometry:
    """All that is computed at once: everything but medians and silhouettes. Raises `EngineError` for broken vectors."""
    sets.check()
    good, bad = _moments(sets.good), _moments(sets.bad)
    mid = [_moments(sets.good_mid), _moments(sets.bad_mid)] if sets.mid is not None else None
    rows = []
    for row in range(sets.rows):
        figures: dict[str, Any] = dict(zip(_MEANS, _relations(good.mean[row], bad.mean[row]), strict=True))
        figures |= _variances("", good, bad, row)
        if mid is not None and row:
            figures["mid_cos_g_b"] = cosine(mid[0].mean[row - 1], mid[1].mean[row - 1])
            figures |= _variances("mid_", mid[0], mid[1], row - 1)
        rows.append(LayerGeometry(row, **figures))
    return Geometry(tuple(rows), tuple(_notes(sets, rows)))


def measure_geometry(sets: ResidualSets) -> Job[Geometry]:
    """The whole table, with geometric medians and silhouettes; raises `EngineError` for broken vectors."""
    return (yield from in_background(partial(_measure, sets)))


def _measure(sets: ResidualSets, report: Report) -> Geometry:
    began = time.perf_counter()
    quick = quick_geometry(sets)
    report(Progress("geometry", 0, sets.rows, "layers"))
    rows = []
    for row, known in enumerate(quick.rows):
        medians = _relations(geometric_median(sets.good[:, row]), geometric_median(sets.bad[:, row]))
        figures: dict[str, Any] = dict(zip(_MEDIANS, medians, strict=True))
        rows.append(replace(known, **figures, silhouette=silhouette(sets.good[:, row], sets.bad[:, row])))
        report(Progress("geometry", row + 1, sets.rows, "layers"))
    report(PhaseFinished("geometry", time.perf_counter() - began, f"{sets.rows} places in the stream"))
    return replace(quick, rows=tuple(rows), whole=True)


_MEANS = ("cos_g_b", "cos_g_r", "cos_b_r", "norm_g", "norm_b", "norm_r")
_MEDIANS = ("cos_gm_bm", "cos_gm_rm", "cos_bm_rm", "norm_gm", "norm_bm", "norm_rm")


def _relations(good: Array, bad: Array) -> tuple[float | None, ...]:
    """What the columns tell of two centres: three cosines and three lengths."""
    difference = significant(good, bad)
    lengths = (float(np.linalg.norm(good)), float(np.linalg.norm(bad)), float(np.linalg.norm(difference)))
    return (cosine(good, bad), cosine(good, difference), cosine(bad, difference), *lengths)


def cosine(first: Array, second: Array) -> float | None:
    """Cosine of the angle between two vectors; None where one of them is zero."""
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.clip(first @ second / lengths, -1.0, 1.0)) if lengths else None


@dataclass(frozen=True, slots=True)
class _Moments:
    """Means of a set `(rows, d_model)`, and the mean and the largest of the features' variances at every row."""

    mean: Array
    mean_variance: list[float | None]
    max_variance: list[float | None]


def _moments(vectors: Vectors | None) -> _Moments:
    """Moments over the prompts of `(prompts, rows, d_model)`; a single prompt has no variance.

    The variance is the unbiased one (divided by n - 1).
    """
    assert vectors is not None
    means, mean_variances, max_variances = [], [], []
    for row in range(vectors.shape[1]):  # row by row: a float64 copy of everything would take much memory
        points = vectors[:, row].astype(np.float64)
        means.append(points.mean(axis=0))
        variances = points.var(axis=0, ddof=1) if len(points) > 1 else None
        mean_variances.append(None if variances is None else float(variances.mean()))
        max_variances.append(None if variances is None else float(variances.max()))
    return _Moments(np.stack(means), mean_variances, max_variances)


def _variances(prefix: str, good: _Moments, bad: _Moments, row: int) -> dict[str, float | None]:
    return {
        f"{prefix}good_mean_variance": good.mean_variance[row],
        f"{prefix}bad_mean_variance": bad.mean_variance[row],
        f"{prefix}good_max_variance": good.max_variance[row],
        f"{prefix}bad_max_variance": bad.max_variance[row],
    }


def geometric_median(points: Vectors) -> Array:
    """The point `(d_model,)` with the least sum of distances to `points` `(prompts, d_model)`."""
    from geom_median.numpy import compute_geometric_median

    median: Array = compute_geometric_median(points.astype(np.float64)).median
    return median


def silhouette(good: Vectors, bad: Vectors) -> float | None:
    """Mean silhouette of the two sets `(prompts, d_model)` by distance.

    None where a set has one prompt only, or where all vectors are the same.
    """
    from sklearn.metrics import silhouette_score

    if min(len(good), len(bad)) < 2:
        return None
    points = np.concatenate([good, bad]).astype(np.float64)
    points -= points.mean(axis=0)  # the distances stay as they are, and are computed with less rounding
    if not points.any() or np.ptp(points, axis=0).max() == 0:
        return None
    return float(silhouette_score(points, [0] * len(good) + [1] * len(bad)))


def _notes(sets: ResidualSets, rows: Iterable[LayerGeometry]) -> list[str]:
    """Sentences about what cannot be measured on these sets."""
    notes = []
    for name, vectors in (("good", sets.good), ("bad", sets.bad)):
        if len(vectors) == 1:
            notes.append(f"There is one {name} prompt only: no variance of that set, and no silhouette.")
    if all(row.norm_r == 0 for row in rows):
        notes.append("The two sets have the same mean at every layer: there is no direction between them.")
    if sets.mid is None:
        notes.append("Nothing is known of the stream between attention and MLP.")
    return notes


# On disk


def save_geometry(path: Path, geometry: Geometry, source: str) -> None:
    """Keep the table; `source` is the fingerprint of the residual vectors that it was measured from."""
    content = {
        "form": FORM,
        "source": source,
        "whole": geometry.whole,
        "notes": list(geometry.notes),
        "rows": [asdict(row) for row in geometry.rows],
    }
    write_text(path, json.dumps(content) + "\n")


def load_geometry(path: Path, source: str) -> Geometry | None:
    """Read what `save_geometry` wrote; None where there is none, or where it was measured from other vectors."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["form"], content["source"]) != (FORM, source):
            return None
        rows = tuple(LayerGeometry(**row) for row in content["rows"])
        return Geometry(rows, tuple(content["notes"]), bool(content["whole"]))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def geometry_path(run: "Run", trial: int = ORIGINAL) -> Path:
    """Where a run keeps the table of its original model, or of a trial."""
    return inspection_path(run, f"geometry-{trial:04}.json")


def kept_geometry(run: "Run", trial: int = ORIGINAL) -> Geometry | None:
    """The table that a run's folder keeps, if it is of the vectors that it keeps now, with what leaks."""
    residuals = residuals_path(run, trial)
    found = load_geometry(geometry_path(run, trial), fingerprint(residuals)) if residuals.is_file() else None
    return None if found is None else found.with_leak(load_leak(leak_path(run, trial)))


def geometry_of(run: "Run", trial: int = ORIGINAL, sets: ResidualSets | None = None) -> Job[Geometry]:
    """The whole table of a run's original model or a trial: from its folder, or measured and kept there.

    `sets` are the vectors, where they have been loaded. Raises `EngineError` where there are none.
    """
    geometry = kept_geometry(run, trial)
    if geometry is None:
        path = residuals_path(run, trial)
        source = fingerprint(path) if path.is_file() else ""
        geometry = yield from measure_geometry(sets or load_residual_sets(path))
        save_geometry(geometry_path(run, trial), geometry, source)
    return geometry.with_leak(load_leak(leak_path(run, trial)))


def as_csv(geometry: Geometry) -> str:
    """The table as CSV: a header of the columns' keys, an empty field where there is no figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "layer", *(column.key for column in COLUMNS)])
    for row in geometry.rows:
        figures = (getattr(row, column.key) for column in COLUMNS)
        writer.writerow([row.row, row.name, *("" if figure is None else repr(figure) for figure in figures)])
    return text.getvalue()


def as_json(geometry: Geometry) -> dict[str, Any]:
    """The table as plain values, with the columns' symbols and meanings."""
    return {
        "columns": [asdict(column) for column in COLUMNS],
        "notes": list(geometry.notes),
        "rows": [asdict(row) for row in geometry.rows],
    }
