"""The verdict on planted directions: many seeds, widths, depths and noises, so that no threshold is made for one."""

import numpy as np
import pytest
from planted import basis, blurred, in_turn, mixed, one_from, stream_sets, turning, unit, with_embeddings

from heretic_tui.engine.inspection.similarity import measure_similarity

SHAPES = [(16, 64), (30, 576), (32, 2048)]
NOISE = [1.0, 0.95, 0.88]
SEEDS = range(4)


def judged(directions, cosine, draws):
    return measure_similarity(with_embeddings(blurred(directions, cosine, draws)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cosine", NOISE)
@pytest.mark.parametrize(("layers", "width"), SHAPES)
def test_a_direction_that_stays_from_a_layer_on_is_one_direction(layers, width, cosine, seed):
    draws = np.random.default_rng(seed)
    start = layers // 2 - 1
    found = judged(one_from(start, layers, width, draws), cosine, draws)
    assert found.verdict == f"one direction, stable from layer {start} on"
    assert found.kind == "one" and found.dimension == 1
    assert found.block == (start, layers - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cosine", NOISE)
@pytest.mark.parametrize("plant", [mixed, turning, in_turn])
@pytest.mark.parametrize(("layers", "width"), SHAPES[1:])
def test_three_planted_directions_are_a_subspace_of_about_three(layers, width, plant, cosine, seed):
    draws = np.random.default_rng(seed)
    found = judged(plant(3, layers, width, draws), cosine, draws)
    assert (found.verdict, found.kind, found.dimension) == ("a subspace of about 3", "subspace", 3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 4])
def test_the_subspace_s_dimension_is_found(count, seed):
    draws = np.random.default_rng(seed)
    assert judged(mixed(count, 48, 576, draws), 0.95, draws).dimension == count


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("layers", "width"), SHAPES)
def test_unrelated_directions_have_nothing_in_common(layers, width, seed):
    found = measure_similarity(with_embeddings(unit(np.random.default_rng(seed).normal(size=(layers, width)))))
    assert (found.verdict, found.kind, found.dimension) == (
        "no common direction: every layer has its own",
        "none",
        None,
    )


def test_the_same_direction_everywhere_is_said_so():
    draws = np.random.default_rng(0)
    found = judged(np.tile(basis(1, 64, draws), (12, 1)), 0.95, draws)
    assert found.verdict == "one direction, the same at every layer"


def test_a_direction_in_the_middle_layers_is_placed():
    draws = np.random.default_rng(0)
    directions = unit(draws.normal(size=(20, 64)))
    directions[2:16] = basis(1, 64, draws)[0]
    assert judged(directions, 0.95, draws).verdict == "one direction, in layers 2 to 15"


def test_the_last_layers_may_turn_away():
    draws = np.random.default_rng(0)
    directions = one_from(8, 20, 64, draws)
    directions[-1] = unit(draws.normal(size=64))
    found = judged(directions, 0.95, draws)
    assert found.verdict == "one direction, stable from layer 8 on"
    assert found.block == (8, 18)


def test_the_sign_of_a_direction_does_not_matter():
    draws = np.random.default_rng(0)
    directions = one_from(6, 20, 64, draws)
    directions[10:15] *= -1
    assert judged(directions, 0.95, draws).verdict == "one direction, stable from layer 6 on"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_direction_is_recovered_from_residual_vectors(seed):
    sets, planted = stream_sets(layers=16, planted_at=7, prompts=200, seed=seed)
    cosines = np.abs(sets.directions @ planted)
    assert cosines[8:].min() > 0.99
    assert cosines[:8].max() < 0.9
    assert measure_similarity(sets.directions).verdict == "one direction, stable from layer 7 on"


# The figures


def test_cosines_and_spectrum_are_those_of_a_plain_computation():
    rows = np.random.default_rng(0).normal(size=(7, 20)) * np.arange(1, 8)[:, None]
    found = measure_similarity(rows)
    for first in range(7):
        for second in range(7):
            product = sum(a * b for a, b in zip(rows[first], rows[second], strict=True))
            lengths = np.sqrt(sum(rows[first] ** 2) * sum(rows[second] ** 2))
            assert found.cosines[first, second] == pytest.approx(product / lengths, abs=1e-12)
    layers = rows[1:] / np.sqrt((rows[1:] ** 2).sum(axis=1, keepdims=True))
    squares = np.sort(np.linalg.eigvalsh(layers @ layers.T))[::-1]
    np.testing.assert_allclose(found.spectrum, squares / squares.sum(), rtol=1e-9)
    assert found.first_share == pytest.approx(squares[0] / 6)
    assert found.effective_dimension == pytest.approx(squares.sum() ** 2 / (squares**2).sum())


def test_a_layer_without_a_direction_has_no_cosines_and_does_not_count():
    draws = np.random.default_rng(0)
    directions = with_embeddings(np.tile(basis(1, 32, draws), (12, 1)))
    directions[3] = 0
    found = measure_similarity(directions)
    assert np.isnan(found.cosines[3]).all() and np.isnan(found.cosines[:, 0]).all()
    assert found.verdict == "one direction, the same at every layer"


@pytest.mark.parametrize("layers", [1, 3])
def test_of_few_layers_nothing_is_said(layers):
    found = measure_similarity(with_embeddings(unit(np.random.default_rng(0).normal(size=(layers, 16)))))
    assert found.kind == "unknown" and f"only {layers} layers" in found.verdict


def test_two_identical_sets_have_no_directions_to_compare():
    found = measure_similarity(np.zeros((13, 16)))
    assert found.kind == "unknown" and "no layer has a direction" in found.verdict
    assert found.first_share is None and found.effective_dimension is None
