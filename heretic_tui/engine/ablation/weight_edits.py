"""From ablation parameters to weight edits: exact, in place or at a packed weight's output, restored bit for bit.

Directional ablation follows Arditi et al. 2024 ("Refusal in Language Models Is Mediated by a Single
Direction"): `W' = W - w v v^T W` with a unit vector v in the output space and a weight w. Of several
orthonormal vectors, the rows of V, it is `W' = W - w V^T V W`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from heretic_tui.engine.ablation.directions import Directions, orthonormal
from heretic_tui.engine.ablation.output_edits import OutputEdit, at_output
from heretic_tui.engine.ablation.style import PLAIN, AblationStyle, RowNormalization
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.model.writers import Writer
from heretic_tui.engine.parameters import AblationParameters

SMALLEST_NORM = 1e-12
SMALLEST_SHARE = 1e-5
"""Of a column that keeps a smaller share of its norm the edit has left little but rounding, which no scale mends."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is taken out of one writer: `weight` times the component in the span of `basis` `(k, out)`, orthonormal."""

    writer: Writer
    basis: Tensor
    weight: float


def edits(
    model: LanguageModel, directions: Directions, parameters: AblationParameters, style: AblationStyle = PLAIN
) -> list[Edit]:
    """The edits that `parameters` ask for, in the profile's style; writers whose weight is 0 are left out."""
    found = []
    for writer in [*model.writers, *(model.embeddings if style.embeddings else ())]:
        weight = style.weight(parameters, writer.component, writer.layer)
        if weight == 0.0:
            continue
        # Embeddings have no direction of their own: every prompt ends in the same token, so the two sets do not differ.
        layer = max(writer.layer, 0)
        basis = directions.basis(parameters.direction_index, layer, parameters.subspace_dimensions)
        if style.gain_aware and writer.gain is not None:
            # With y the writer's output the update is g * y / rms(y), and v . (g * y) = (g * v) . y.
            basis = orthonormal(writer.gain.to(basis.device) * basis)
        found.append(Edit(writer, basis, weight))
    return found


def ablate(matrix: Tensor, basis: Tensor, weight: float, row_normalization: RowNormalization = "none") -> Tensor:
    """Take `weight` times the component in the span of `basis` `(k, out)` out of `matrix` `(out, in)`, in float32.

    Of `(expert, out, in)` every expert is edited by itself. With V the basis, whose rows are orthonormal:

    `none`: `W - w V^T V W`. `pre`: the same on the matrix with unit rows, then the rows' norms put back.
    `full`: like `pre`, then every row scaled to exactly the norm that it had. `columns`: like `none`, then every column
    scaled to the norm that it had, which at weight 1 stays orthogonal to V, while scaling rows lets part of V back in.
    """
    if row_normalization == "none":
        return _without(matrix, basis, weight)
    if row_normalization == "columns":
        return _without_on_columns(matrix, basis, weight)
    norms = row_norms(matrix)
    rows = matrix / norms
    edited = _without(rows, basis, weight)
    if row_normalization == "full":
        edited = edited / row_norms(edited)
    return edited * norms


def _without(matrix: Tensor, basis: Tensor, weight: float) -> Tensor:
    along = _along(matrix, basis)
    if matrix.ndim == 3:
        return torch.baddbmm(matrix, basis.mT.expand(len(matrix), -1, -1), along, alpha=-weight)
    if len(basis) == 1:
        return torch.addr(matrix, basis[0], along[0], alpha=-weight)
    return torch.addmm(matrix, basis.mT, along, alpha=-weight)


def _along(matrix: Tensor, basis: Tensor) -> Tensor:
    """What each vector of the basis meets in the matrix: `(k, in)`, or `(expert, k, in)`."""
    return (basis[0] @ matrix)[..., None, :] if len(basis) == 1 else basis @ matrix


def _without_on_columns(matrix: Tensor, basis: Tensor, weight: float) -> Tensor:
    edited = _without(matrix, basis, weight)
    if weight == 1.0:
        # Rounding leaves a trace of V that grows with a column which lay near it; a second pass takes it out.
        edited = _without(edited, basis, weight)
    return edited * _column_scales(matrix, edited)


def _column_scales(matrix: Tensor, edited: Tensor) -> Tensor:
    before, after = column_norms(matrix), column_norms(edited)
    return torch.where(after > SMALLEST_SHARE * before, before / after, 1.0)


def row_norms(matrix: Tensor) -> Tensor:
    """Norms of each matrix's rows `(out, 1)`, never zero: a zero row stays zero and nothing divides by it."""
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=-1, keepdim=True)
    return norms.clamp_min(SMALLEST_NORM)


def column_norms(matrix: Tensor) -> Tensor:
    """Norms of each matrix's columns `(1, in)`."""
    # Down the columns torch's own norm takes four times as long, and adds up with ten times the rounding.
    return matrix.square().sum(dim=-2, keepdim=True).sqrt()


def ablated_bias(bias: Tensor, basis: Tensor, weight: float) -> Tensor:
    """A writer's bias writes into the stream too: the plain edit on `(out,)` or `(expert, out)`, float32."""
    for vector in basis:
        bias = bias - weight * (bias @ vector)[..., None] * vector
    return bias


@contextmanager
def ablated(
    model: LanguageModel, directions: Directions, parameters: AblationParameters, style: AblationStyle = PLAIN
) -> Iterator[None]:
    """Hold the model ablated; on leaving, every weight is bit for bit what it was.

    The edited values go into the live parameters' own memory, computed in float32 and rounded once. Where weights are
    packed in 4 bits, the edits act on what their modules put out.
    """
    with ExitStack() as held:
        for edit in edits(model, directions, parameters, style):
            held.enter_context(_held(model, edit, style.row_normalization))
        yield


@contextmanager
def _held(model: LanguageModel, edit: Edit, row_normalization: RowNormalization) -> Iterator[None]:
    """Hold one edit: in place or, of a packed weight, at its module's output."""
    writer = edit.writer
    if writer.packed:
        with at_output(model.network.get_submodule(writer.name), output_edit(edit, row_normalization)):
            yield
        return
    try:
        with torch.no_grad():
            apply(model, edit, row_normalization)
        yield
    finally:
        with torch.no_grad():
            model.restore(writer)


def apply(model: LanguageModel, edit: Edit, row_normalization: RowNormalization) -> None:
    """Write one edit into its live parameter, starting from the pristine values."""
    writer = edit.writer
    original = model.pristine(writer)
    matrix, bias = edited(edit, original.matrix, original.bias, row_normalization)
    writer.matrix.copy_(matrix)
    if writer.bias is not None and bias is not None:
        writer.bias.copy_(bias)


def edited(
    edit: Edit, matrix: Tensor, bias: Tensor | None, row_normalization: RowNormalization
) -> tuple[Tensor, Tensor | None]:
    """What an edit makes of a writer's original values `(out, in)` and `(out,)`: float32, on the writer's device."""
    basis = edit.basis.to(edit.writer.weight.device, torch.float32)
    return (
        ablate(matrix.to(basis), basis, edit.weight, row_normalization),
        None if bias is None else ablated_bias(bias.to(basis), basis, edit.weight),
    )


@torch.no_grad()
def output_edit(edit: Edit, row_normalization: RowNormalization) -> OutputEdit:
    """The edit of a writer's own weight `(out, in)` as an operator on its output, exact for each row normalization."""
    matrix, writer, weight = edit.writer.values, edit.writer, edit.weight
    basis = edit.basis.to(matrix)
    reads, writes, scale, inputs = basis, weight * basis, None, None
    if row_normalization in {"pre", "full"}:
        # With n the rows' norms, n * (W / n - w V^T V W / n) = W - w (n * V^T) (V / n) W.
        norms = row_norms(matrix)
        reads, writes = basis / norms.mT, writes * norms.mT
        if row_normalization == "full":
            scale = 1.0 / row_norms(_without(matrix / norms, basis, weight)).squeeze(-1)
    elif row_normalization == "columns":
        inputs = _column_scales(matrix, _without(matrix, basis, weight)).squeeze(-2)
    bias = None if writer.bias is None else ablated_bias(writer.bias.detach().to(basis), basis, weight)
    return OutputEdit(reads, writes, scale, inputs, bias)


@dataclass(frozen=True, slots=True)
class LowRank:
    """An edit as a low-rank update `W' - W ~ up @ down`; `error` is relative, in the Frobenius norm of `W' - W`."""

    writer: Writer
    up: Tensor
    down: Tensor
    error: float


def low_rank(
    edit: Edit, matrix: Tensor, row_normalization: RowNormalization, rank: int, error: float | None = None
) -> LowRank:
    """Factors of the edit of `matrix` `(out, in)`, float32: exact for none and pre, by SVD for the others.

    Exact factors have the rank of the edit's basis. By SVD it is `rank` and one more for each further direction,
    or where an `error` is given the smallest at which the factors are no further off.
    """
    basis = edit.basis.to(matrix)
    if row_normalization == "none":
        return LowRank(edit.writer, -edit.weight * basis.mT, _along(matrix, basis), 0.0)
    if row_normalization == "pre":
        norms = row_norms(matrix)
        return LowRank(edit.writer, -edit.weight * norms * basis.mT, _along(matrix / norms, basis), 0.0)
    delta = ablate(matrix, basis, edit.weight, row_normalization) - matrix
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    errors = errors_by_rank(s)
    rank = rank + len(basis) - 1 if error is None else int((errors > error).sum())
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    return LowRank(edit.writer, u[:, :rank] * root, root[:, None] * vt[:rank], float(errors[rank]))


def errors_by_rank(singular_values: Tensor) -> Tensor:
    """Relative Frobenius error of the best approximation of each rank from 0 to full, by Eckart and Young."""
    squares = singular_values.double().square()
    rest = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])
    return (rest / rest[0].clamp_min(SMALLEST_NORM**2)).sqrt()
