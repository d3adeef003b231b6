"""Principal components against an eigen-decomposition of the covariance, and the shelf of directions."""

import numpy as np
import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.components import component, components_of, principal_components
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.residual_sets import ResidualSets
from heretic_tui.engine.inspection.shelf import Shelf, open_shelf, pinned


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 0.1, 12)
    good, bad = (rng.normal(size=(20, 3, 12)) * scales + 5 for _ in range(2))
    bad[:, 1, 4] += 9
    return ResidualSets(good.astype(np.float32), bad.astype(np.float32))


@pytest.mark.parametrize(("count", "width"), [(40, 12), (7, 30)])
def test_components_are_the_covariances_eigenvectors(count, width):
    vectors = np.random.default_rng(1).normal(size=(count, width)) * np.linspace(4, 0.5, width) + 100
    found = principal_components(vectors.astype(np.float32), 5)
    centred = vectors.astype(np.float32).astype(np.float64)
    centred -= centred.mean(axis=0)
    values, eigenvectors = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-values)[:5]
    np.testing.assert_allclose(found.shares, values[order] / values.sum(), rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.vectors * eigenvectors[:, order].T, axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), atol=1e-5)


def test_a_planted_direction_is_the_first_component_and_points_to_the_bad_prompts(sets):
    found = components_of(sets, 1)
    planted = np.eye(12)[4]
    assert found.vectors[0] @ planted > 0.9
    assert all(found.vectors[number] @ sets.differences[1] >= 0 for number in range(len(found.vectors)))
    assert component(found, 1, 1).row == 1
    assert "explains" in component(found, 1, 1).made


def test_where_there_is_no_variance_nothing_is_explained():
    for vectors, words in (
        (np.ones((1, 4)), "One residual vector"),
        (np.ones((5, 4)), "are the same"),
        (np.full((5, 4), np.nan), "not all finite"),
    ):
        with pytest.raises(EngineError, match=words):
            principal_components(vectors)


def test_there_are_no_more_components_than_the_rank():
    vectors = np.random.default_rng(2).normal(size=(3, 10))
    assert len(principal_components(vectors).shares) == 2


def test_a_shelf_gives_directions_by_key(sets, tmp_path):
    library = DirectionLibrary(tmp_path)
    vectors = sets.directions.astype(np.float32)
    shelf = Shelf(library, vectors, sets, "m", "r")
    library.save(direction("it", np.ones(12)), "mine [bold]x[/]")
    for key, row, expected in (
        ("own", 1, vectors[1]),
        ("own", 2, vectors[2]),
        ("layer:in", 1, vectors[0]),
        ("layer:1", 0, vectors[2]),
        ("mine [bold]x[/]", 0, np.ones(12) / np.sqrt(12)),
    ):
        np.testing.assert_allclose(shelf.at(key, row).vector, expected, atol=1e-6)
    assert not shelf.has("pc:2", 1)
    assert np.array_equal(shelf.at("pc:2", 1).vector, shelf.at("pc:0:2", 0).vector)
    assert shelf.has("pc:2", 1)
    assert pinned("own", 1) == "layer:0"
    assert pinned("pc:2", 1) == "pc:0:2"
    assert pinned("layer:in", 1) == "layer:in"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("layer:7", "no layer '7'"),
        ("pc:x", "is no direction"),
        ("pc:99", "no component 99"),
        ("nobody", "no direction nobody in the library"),
    ],
)
def test_a_key_of_nothing_is_refused_in_plain_words(sets, tmp_path, key, words):
    shelf = Shelf(DirectionLibrary(tmp_path), sets.directions.astype(np.float32), sets)
    with pytest.raises(EngineError, match=words):
        shelf.at(key, 1)


def test_without_a_run_there_is_only_the_library(tmp_path):
    shelf = open_shelf(tmp_path, None)
    with pytest.raises(EngineError, match="no residual directions"):
        shelf.at("own", 0)
    with pytest.raises(EngineError, match="no residual directions"):
        shelf.at("layer:1", 0)


def test_components_without_saved_vectors_say_how_to_get_them(study, tmp_path):
    shelf = open_shelf(tmp_path, study.path)
    assert shelf.at("own", 1).run == study.name
    with pytest.raises(EngineError, match="need the residual vectors"):
        shelf.at("pc:1", 1)


def test_two_identical_sets_have_no_direction_and_say_so(tmp_path):
    same = np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32)
    sets = ResidualSets(same, same.copy())
    shelf = Shelf(DirectionLibrary(tmp_path), sets.directions.astype(np.float32), sets)
    with pytest.raises(EngineError, match="do not differ at layer 0"):
        shelf.at("own", 1)
