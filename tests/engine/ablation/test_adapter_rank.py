"""The rank of an adapter, chosen for a stated error."""

import pytest
import torch
from tiny_models import tiny_model, unit

from heretic_tui.engine.ablation.weight_edits import Edit, ablate, low_rank
from heretic_tui.profile.schema import Profile


def off(factors, delta):
    """Relative error of the factors, from the matrices themselves."""
    return float((factors.up.double() @ factors.down.double() - delta).norm() / delta.norm())


@pytest.mark.parametrize("error", [0.5, 0.2, 0.05, 0.001])
@pytest.mark.parametrize("which", [0, 1])
def test_the_rank_is_the_smallest_that_keeps_the_error(error, which):
    writer = tiny_model("llama").writers[which]
    edit = Edit(writer, unit()[None], 1.0)
    delta = (ablate(writer.matrix, edit.basis, 1.0, "full") - writer.matrix).double()
    found = low_rank(edit, writer.matrix, "full", 3, error)
    rank = found.down.shape[0]
    assert off(found, delta) <= error + 1e-6
    assert found.error == pytest.approx(off(found, delta), abs=1e-5)
    assert off(low_rank(edit, writer.matrix, "full", rank - 1), delta) > error


def test_without_a_stated_error_the_rank_is_the_settings():
    writer = tiny_model("llama").writers[0]
    assert (
        low_rank(Edit(writer, unit()[None], 1.0), writer.matrix, "full", 3, Profile().adapter_error).down.shape[0] == 3
    )


def test_a_rank_beyond_the_matrix_is_its_full_rank_and_exact():
    writer = tiny_model("llama").writers[0]
    found = low_rank(Edit(writer, unit()[None], 1.0), writer.matrix, "full", 10_000)
    assert found.down.shape[0] == min(writer.matrix.shape)
    assert torch.tensor(found.error) == 0
