"""Edits that keep every column's norm, against their definition in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_models import unit

from heretic_tui.engine.ablation.weight_edits import SMALLEST_SHARE, Edit, ablate, low_rank

ROWS, COLUMNS = 576, 1536


@pytest.fixture(scope="module")
def matrix():
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def v():
    return unit(1, ROWS)


def lengths(weights):
    return torch.linalg.vector_norm(weights.double(), dim=-2)


def leak(weights, v):
    """The largest share of a column that lies along `v`."""
    return float(((v.double() @ weights.double()).abs() / lengths(weights)).max())


@pytest.mark.parametrize("share", [0.3, 1.0, 1.5])
def test_every_column_keeps_its_length(matrix, v, share):
    torch.testing.assert_close(lengths(ablate(matrix, v[None], share, "columns")), lengths(matrix), rtol=5e-7, atol=0)


def test_at_weight_one_nothing_of_the_direction_is_left_where_full_lets_part_of_it_back_in(matrix, v):
    lopsided = matrix * torch.linspace(0.2, 3.0, ROWS)[:, None]
    assert leak(lopsided, v) > 0.05
    assert leak(ablate(lopsided, v[None], 1.0, "columns"), v) < 2e-7
    assert leak(ablate(lopsided, v[None], 1.0, "full"), v) > 1e-2


def test_a_column_of_zeros_stays_one(matrix, v):
    weights = matrix.clone()
    weights[:, 3] = 0
    edited = ablate(weights, v[None], 1.0, "columns")
    assert torch.equal(edited[:, 3], torch.zeros(ROWS))
    assert torch.isfinite(edited).all()


def test_of_a_column_along_the_direction_nothing_is_left_to_scale(matrix, v):
    weights = matrix.clone()
    weights[:, 3] = 100 * v
    edited = ablate(weights, v[None], 1.0, "columns")
    assert lengths(edited)[3] < 1e-4
    torch.testing.assert_close(lengths(edited)[4:], lengths(matrix)[4:], rtol=5e-7, atol=0)


def test_a_column_near_the_direction_keeps_its_length_and_nothing_along_it(matrix, v):
    across = matrix[:, 0] - (matrix[:, 0] @ v) * v
    weights = torch.stack([100 * v + share * across for share in (1.0, 1e-1, 1e-2)], dim=1)
    edited = ablate(weights, v[None], 1.0, "columns")
    assert leak(edited, v) < 2e-7
    torch.testing.assert_close(lengths(edited), lengths(weights), rtol=5e-7, atol=0)


@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
def test_every_expert_is_edited_by_itself(v, row_normalization):
    experts = torch.randn(3, ROWS, 40, generator=torch.Generator().manual_seed(2))
    experts *= torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    edited = ablate(experts, v[None], 0.8, row_normalization)
    for one, whole in zip(edited, experts, strict=True):
        torch.testing.assert_close(one, ablate(whole, v[None], 0.8, row_normalization), rtol=1e-5, atol=1e-6)


# Factors


@pytest.mark.parametrize("rank", [1, 3])
def test_an_adapter_states_how_far_it_is_off(matrix, v, rank):
    factors = low_rank(Edit(None, v[None], 1.0), matrix, "columns", rank)
    w, along = matrix.double().numpy(), v.double().numpy()
    exact = w - np.outer(along, along @ w)
    exact = exact * np.linalg.norm(w, axis=0) / np.linalg.norm(exact, axis=0)
    update = (factors.up.double() @ factors.down.double()).numpy()
    error = np.linalg.norm(update - (exact - w)) / np.linalg.norm(exact - w)
    assert (factors.up.shape, factors.down.shape) == ((ROWS, rank), (rank, COLUMNS))
    assert factors.error == pytest.approx(error, rel=1e-3)
    assert factors.error < 0.05


def test_a_stated_error_is_kept(matrix, v):
    one = low_rank(Edit(None, v[None], 1.0), matrix[:, :200], "columns", 1)
    several = low_rank(Edit(None, v[None], 1.0), matrix[:, :200], "columns", 1, one.error / 2)
    assert several.error <= one.error / 2
    assert several.down.shape[0] > 1


# Wild matrices

NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32).map(lambda number: number if abs(number) > 1e-12 else 0.0)


@st.composite
def wild(draw):
    """A matrix `(out, in)` with columns that may be anything, along the direction too, and a unit vector `(out,)`."""
    rows, columns = draw(st.integers(2, 12)), draw(st.integers(1, 6))
    long = draw(arrays(np.float64, rows, elements=st.floats(-1, 1)).filter(lambda v: np.linalg.norm(v) > 1e-3))
    v = (long / np.linalg.norm(long)).astype(np.float32)
    matrix = draw(arrays(np.float32, (rows, columns), elements=NUMBERS))
    near = draw(st.lists(st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.1]), max_size=columns))
    for column, share in enumerate(near):
        across = draw(arrays(np.float32, rows, elements=st.floats(-1, 1, width=32)))
        matrix[:, column] = draw(st.sampled_from([1e-6, 1.0, 1e6])) * (v + np.float32(share) * across)
    return matrix, v


@given(wild(), st.sampled_from([1.0, 2.0]) | st.floats(0.0, 1.5))
def test_any_matrix_gets_what_the_definition_says_or_keeps_the_plain_edit_where_only_rounding_is_left(drawn, share):
    matrix, v = drawn
    found = ablate(torch.from_numpy(matrix), torch.from_numpy(v)[None], share, "columns").double().numpy()
    w, along = matrix.astype(np.float64), v.astype(np.float64)
    plain = w - share * np.outer(along, along @ w)
    assert np.isfinite(found).all()
    for column, before in enumerate(np.linalg.norm(w, axis=0)):
        after = np.linalg.norm(plain[:, column])
        if before == 0:
            assert not found[:, column].any()
        elif after < before * SMALLEST_SHARE / 2:
            assert np.linalg.norm(found[:, column]) < before * SMALLEST_SHARE
        elif after > before * SMALLEST_SHARE * 2:
            assert np.linalg.norm(found[:, column]) == pytest.approx(before, rel=1e-6)
            # What rounding does to the plain edit is scaled with it.
            assert np.linalg.norm(found[:, column] - plain[:, column] * before / after) < 2e-6 * before**2 / after
            if share == 1.0:
                assert abs(along @ found[:, column]) < 1e-6 * before
