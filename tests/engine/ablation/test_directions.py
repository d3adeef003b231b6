import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from heretic_tui.engine.ablation.directions import (
    Directions,
    geometric_medians,
    load_directions,
    measure_directions,
    save_directions,
)
from heretic_tui.engine.errors import EngineError

LAYERS, WIDTH = 5, 16


def centres(seed=0):
    """Two sets of centres that lie close together and far from the origin, as real ones do."""
    random = np.random.default_rng(seed)
    good = 10 * random.normal(size=(LAYERS + 1, WIDTH))
    bad = good + random.normal(size=(LAYERS + 1, WIDTH))
    return torch.from_numpy(good), torch.from_numpy(bad)


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_a_direction_is_the_normalized_difference_of_the_centres():
    good, bad = centres()
    found = measure_directions(good, bad, projected=False)
    np.testing.assert_allclose(found.vectors.numpy(), unit_rows(bad.numpy() - good.numpy()), atol=1e-6)


def test_centres_are_kept_as_they_are():
    good, bad = centres()
    found = measure_directions(good, bad, projected=False)
    assert torch.equal(found.good, good.float())
    assert torch.equal(found.bad, bad.float())


def test_a_projected_direction_has_nothing_of_the_good_centre():
    good, bad = centres()
    found = measure_directions(good, bad, projected=True).vectors.double().numpy()
    along = np.abs((found * unit_rows(good.numpy())).sum(axis=1))
    assert along.max() < 1e-6


def test_a_projected_direction_is_the_difference_without_that_component():
    good, bad = (centre.numpy() for centre in centres())
    found = measure_directions(*centres(), projected=True).vectors.numpy()
    for layer in range(LAYERS + 1):
        projector = np.eye(WIDTH) - np.outer(good[layer], good[layer]) / (good[layer] @ good[layer])
        np.testing.assert_allclose(found[layer], unit_rows(projector @ (bad[layer] - good[layer])), atol=1e-6)


def test_small_differences_of_large_centres_are_computed_in_float64():
    good, bad = centres()
    good, bad = good + 1e6, bad + 1e6
    found = measure_directions(good, bad, projected=False)
    np.testing.assert_allclose(found.vectors.numpy(), unit_rows(bad.numpy() - good.numpy()), atol=1e-6)


def test_embeddings_that_are_the_same_leave_a_zero_row_and_no_error():
    good, bad = centres()
    bad[0] = good[0]
    found = measure_directions(good, bad, projected=True)
    assert not found.vectors[0].any()
    torch.testing.assert_close(found.vectors[1:].norm(dim=1), torch.ones(LAYERS))


@pytest.mark.parametrize("projected", [False, True])
def test_identical_sets_are_an_error(projected):
    good, _ = centres()
    with pytest.raises(EngineError, match="the same residual vectors"):
        measure_directions(good, good.clone(), projected=projected)


def test_residual_vectors_that_are_not_finite_are_an_error():
    good, bad = centres()
    bad[2, 3] = torch.nan
    with pytest.raises(EngineError, match="not finite"):
        measure_directions(good, bad, projected=False)


# Choosing a direction


@pytest.fixture
def directions():
    return measure_directions(*centres(), projected=False)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_per_layer_scope_takes_the_direction_after_the_layer(directions, layer):
    assert torch.equal(directions.at(None, layer), directions.vectors[layer + 1])


@pytest.mark.parametrize("index", range(LAYERS))
def test_a_whole_index_is_the_direction_after_that_layer(directions, index):
    torch.testing.assert_close(directions.at(float(index), 0), directions.vectors[index + 1])


@pytest.mark.parametrize(("index", "share"), [(0.25, 0.25), (2.5, 0.5), (3.75, 0.75)])
def test_an_index_between_two_layers_mixes_their_directions(directions, index, share):
    lower, upper = (directions.vectors[int(index) + row].double().numpy() for row in (1, 2))
    mixed = unit_rows((1 - share) * lower + share * upper)
    np.testing.assert_allclose(directions.at(index, 0).numpy(), mixed, atol=1e-6)


def test_a_global_direction_is_the_same_for_every_layer(directions):
    assert all(torch.equal(directions.at(2.3, layer), directions.at(2.3, 0)) for layer in range(LAYERS))


# Geometric medians


def test_a_geometric_median_minimizes_the_summed_distance():
    random = np.random.default_rng(3)
    points = random.normal(size=(15, 2, 4)) ** 3  # skewed, so that it is not the mean
    found = geometric_medians(torch.from_numpy(points).float()).double().numpy()
    for layer in range(2):
        best = minimize(
            lambda centre, own=points[:, layer]: np.linalg.norm(own - centre, axis=1).sum(),
            points[:, layer].mean(axis=0),
            method="BFGS",
            options={"gtol": 1e-9},
        )
        np.testing.assert_allclose(found[layer], best.x, atol=1e-3)
        assert np.linalg.norm(best.x - points[:, layer].mean(axis=0)) > 0.05


def test_one_far_away_prompt_hardly_moves_a_geometric_median():
    points = torch.randn(20, 1, 4, generator=torch.Generator().manual_seed(0))
    spoilt = points.clone()
    spoilt[0] = 1e4
    moved = (geometric_medians(spoilt) - geometric_medians(points)).norm()
    assert moved < 0.5


def test_the_geometric_median_of_equal_vectors_is_that_vector():
    vector = torch.randn(1, 3, 4)
    torch.testing.assert_close(geometric_medians(vector.expand(6, -1, -1)).float(), vector[0])


# On disk


def test_directions_survive_the_disk_bit_for_bit(tmp_path, directions):
    path = tmp_path / "directions.safetensors"
    save_directions(path, directions)
    found = load_directions(path)
    for name in ("good", "bad", "vectors"):
        assert torch.equal(getattr(found, name), getattr(directions, name))


def test_views_can_be_saved(tmp_path):
    rows = torch.randn(WIDTH).expand(LAYERS + 1, -1)
    save_directions(tmp_path / "directions.safetensors", Directions(rows, rows, rows))
    assert torch.equal(load_directions(tmp_path / "directions.safetensors").vectors, rows)


def test_saving_leaves_nothing_else_behind(tmp_path, directions):
    save_directions(tmp_path / "directions.safetensors", directions)
    assert [path.name for path in tmp_path.iterdir()] == ["directions.safetensors"]
