"""Projections: where the sets lie, how points move, that runs repeat, and what happens with few prompts."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from planted import stream_sets
from tiny_models import result, run

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress
from heretic_tui.engine.inspection import projection as projections
from heretic_tui.engine.inspection.projection import (
    COMPONENTS,
    PACMAP,
    aligned,
    kept_projection,
    load_projection,
    median_on_plane,
    pairs_of,
    principal_components,
    project,
    project_run,
    projection_path,
    save_projection,
)
from heretic_tui.engine.inspection.residual_sets import ResidualSets, residuals_path, save_residual_sets
from heretic_tui.engine.runs.run import Run

LAYERS, PROMPTS = 6, 40


def made(layers=LAYERS, prompts=PROMPTS, **options):
    return stream_sets(layers=layers, prompts=prompts, planted_at=2, **options)[0]


def first(sets, count):
    return ResidualSets(sets.good[:count], sets.bad[:count])


def drift(points):
    """How far a point moves from layer to layer, in standard deviations."""
    moves = np.linalg.norm(np.diff(points, axis=0), axis=2).mean(axis=1)
    return moves / points[1:].std(axis=(1, 2))


@pytest.fixture(scope="session")
def sets():
    return made()


@pytest.fixture(scope="session")
def projected(sets):
    """Events and result; importing PaCMAP takes seconds, once."""
    return run(project(sets))


def test_every_layer_has_a_point_for_every_prompt(projected):
    events, projection = projected
    assert projection.method == PACMAP
    assert projection.good.shape == projection.bad.shape == (LAYERS, PROMPTS, 2)
    assert np.isfinite(projection.all).all()
    told = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in told] == list(range(LAYERS + 1))
    assert {event.total for event in told} == {LAYERS}


def test_the_medians_lie_left_and_right(projected):
    _, projection = projected
    for good, bad in zip(projection.good, projection.bad, strict=True):
        left, right = median_on_plane(good), median_on_plane(bad)
        assert left[0] < right[0]
        assert left[1] == pytest.approx(right[1], abs=1e-3 * projection.all.std())


def test_a_planted_direction_parts_the_sets(projected):
    _, projection = projected
    assert projection.good[-1][:, 0].max() < projection.bad[-1][:, 0].min()


def test_points_stay_near_where_they_were(projected):
    _, projection = projected
    random = np.random.default_rng(0)
    shuffled = np.stack([random.permutation(layer) for layer in projection.all])
    assert drift(projection.all[2:]).max() < drift(shuffled[2:]).min() / 2


def test_the_same_vectors_and_seed_give_the_same_points(sets, projected):
    assert np.array_equal(result(project(sets)).all, projected[1].all)
    assert not np.array_equal(result(project(sets, seed=1)).all, projected[1].all)


def test_two_states_share_their_axes(sets):
    after = ResidualSets(sets.good, sets.good + np.float32(1e-3))
    projection = result(project(sets, after))
    assert projection.good_after.shape == projection.bad_after.shape == (LAYERS, PROMPTS, 2)
    # The trial's prompts, all of them, lie where the original's good ones do.
    assert median_on_plane(projection.bad_after[-1])[0] < median_on_plane(projection.bad[-1])[0] - 1
    assert median_on_plane(projection.good[-1])[0] < median_on_plane(projection.bad[-1])[0]


@pytest.mark.parametrize(("prompts", "method"), [(1, COMPONENTS), (2, COMPONENTS), (8, PACMAP), (20, PACMAP)])
def test_few_prompts_are_shown_too(sets, prompts, method):
    projection = result(project(first(sets, prompts)))
    assert projection.method == method
    assert np.isfinite(projection.all).all()
    assert projection.good.shape == (LAYERS, prompts, 2)


def test_identical_sets_are_no_failure(sets):
    projection = result(project(ResidualSets(sets.good, sets.good)))
    assert np.isfinite(projection.all).all()


def test_vectors_that_are_all_the_same_are_no_failure():
    same = np.ones((20, 3, 8), np.float32)
    assert np.isfinite(result(project(ResidualSets(same, same))).all).all()


def test_broken_vectors_are_named(sets):
    broken = sets.bad.copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(EngineError, match=r"layer 3, bad prompt 4"):
        result(project(ResidualSets(sets.good, broken)))


def test_a_trial_of_another_width_is_refused(sets):
    other = ResidualSets(sets.good[..., :8], sets.bad[..., :8])
    with pytest.raises(EngineError, match="another shape"):
        result(project(sets, other))


def test_a_closed_job_projects_no_further_layer(monkeypatch):
    arranged, going_on, layers = projections._arranged, threading.Event(), []

    def waits(*given):
        layers.append(threading.current_thread())
        if len(layers) == 3:
            assert going_on.wait(60)
        return arranged(*given)

    monkeypatch.setattr(projections, "_arranged", waits)
    job = project(made(layers=40, prompts=20))
    while len(layers) < 3:
        next(job)
    job.close()
    going_on.set()
    layers[-1].join()
    assert len(layers) == 3


def test_near_pairs_are_the_nearest_and_far_ones_are_not():
    # On a line with equal steps, the scaled distance orders neighbors as the distance does.
    line = np.arange(200, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    near, middle, far = pairs_of(line - line.mean(axis=0), np.random.default_rng(0))
    assert near.shape == (200 * 30, 2)
    assert middle.shape == (200 * 15, 2)
    assert far.shape == (200 * 60, 2)
    inner = near[(near[:, 0] >= 50) & (near[:, 0] < 150)]
    assert np.abs(inner[:, 0] - inner[:, 1]).max() <= 16
    assert not {map(tuple, near)} & {map(tuple, far)}
    for pairs in (near, middle, far):
        assert (pairs[:, 0] != pairs[:, 1]).all()
    ordered = far[np.lexsort((far[:, 1], far[:, 0]))].reshape(200, 60, 2)
    assert (np.diff(ordered[:, :, 1], axis=1) > 0).all()
    assert np.abs(middle[:, 0] - middle[:, 1]).mean() < np.abs(far[:, 0] - far[:, 1]).mean()


def test_blocks_change_nothing(monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((100, 8), dtype=np.float32)
    whole = pairs_of(vectors, np.random.default_rng(1))[0]
    monkeypatch.setattr(projections, "BLOCK", 33)
    assert np.array_equal(pairs_of(vectors, np.random.default_rng(1))[0], whole)


def test_principal_components_are_those_of_a_full_decomposition():
    vectors = np.random.default_rng(0).standard_normal((80, 60)) * np.geomspace(10, 0.1, 60)
    vectors = (vectors - vectors.mean(axis=0)).astype(np.float32)
    left, sizes, _ = np.linalg.svd(vectors.astype(np.float64))
    exact = left[:, :2] * sizes[:2]
    found = principal_components(vectors)
    assert np.abs(np.abs(found) - np.abs(exact)).max() < 0.02 * np.abs(exact).max()


def test_a_mirror_image_is_taken_where_it_lies_nearer():
    random = np.random.default_rng(0)
    points = random.standard_normal((20, 2)).astype(np.float32)
    points[10:, 0] += 5
    before = aligned(points, 10, 10)
    assert np.allclose(aligned(points * np.float32([1, -1]), 10, 10, before), before, atol=1e-4)


def test_what_was_computed_is_read_again_without_the_library(tmp_path, projected):
    _, projection = projected
    path = tmp_path / "projection.safetensors"
    save_projection(path, projection, ["mark"])
    code = f"""
import sys
from pathlib import Path
from heretic_tui.engine.inspection.projection import load_projection
assert load_projection(Path({str(path)!r}), ["mark"]).good.shape == {projection.good.shape}
assert not {{"torch", "pacmap", "numba", "sklearn", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert load_projection(path, ["another"]) is None


def test_a_run_keeps_its_projection_until_its_vectors_change(tmp_path, sets, projected, monkeypatch):
    monkeypatch.setattr(projections, "project", lambda *_: (yield from [Progress("p", 0, 1)]) or projected[1])
    folder = Run(tmp_path)
    save_residual_sets(residuals_path(folder), sets)
    assert kept_projection(folder) is None
    assert len(run(project_run(folder))[0]) == 1
    assert run(project_run(folder))[0] == []
    save_residual_sets(residuals_path(folder), first(sets, 30))
    assert kept_projection(folder) is None
    projection_path(folder).write_bytes(b"not at all")
    assert kept_projection(folder) is None


def test_a_damaged_file_is_named(tmp_path):
    path = Path(tmp_path / "projection.safetensors")
    path.write_bytes(b"\0" * 40)
    with pytest.raises(EngineError, match="damaged"):
        load_projection(path, [])
