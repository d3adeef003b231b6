import numpy as np
import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.residual_sets import (
    ResidualSets,
    fingerprint,
    load_residual_sets,
    residuals_path,
    save_residual_sets,
)
from heretic_tui.engine.runs.run import Run


def sets(mid=True, seed=0):
    draws = np.random.default_rng(seed)
    shapes = [(5, 4, 8), (3, 4, 8), *([(5, 3, 8), (3, 3, 8)] if mid else [])]
    return ResidualSets(*(draws.normal(size=shape).astype(np.float32) for shape in shapes))


@pytest.mark.parametrize("mid", [True, False])
def test_what_is_saved_is_read_again_bit_for_bit(tmp_path, mid):
    saved = sets(mid)
    save_residual_sets(tmp_path / "residuals.safetensors", saved)
    found = load_residual_sets(tmp_path / "residuals.safetensors")
    for (name, first), (other, second) in zip(saved.arrays(), found.arrays(), strict=True):
        assert name == other
        np.testing.assert_array_equal(first, second)


def test_directions_are_unit_vectors_along_the_difference_of_the_means():
    found = sets()
    for row in range(4):
        difference = found.bad[:, row].astype(np.float64).mean(axis=0) - found.good[:, row].astype(np.float64).mean(0)
        np.testing.assert_allclose(found.directions[row], difference / np.sqrt(sum(difference**2)), rtol=1e-9)


def test_other_vectors_have_another_fingerprint_and_the_same_ones_the_same(tmp_path):
    first, second, again = (tmp_path / name for name in ("a", "b", "c"))
    save_residual_sets(first, sets())
    save_residual_sets(second, sets(seed=1))
    save_residual_sets(again, sets())
    assert fingerprint(first) == fingerprint(again) != fingerprint(second)


def test_a_large_file_is_told_apart_without_being_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
    before = fingerprint(path)
    with path.open("r+b") as file:
        file.seek(2_999_999_999)
        file.write(b"x")
    assert fingerprint(path) != before


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_told(tmp_path, content):
    path = tmp_path / "residuals.safetensors"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is damaged"):
        load_residual_sets(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(EngineError, match="inspect some --measure"):
        load_residual_sets(residuals_path(Run(tmp_path / "some")))
