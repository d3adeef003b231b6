import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, POST_NORMED, WIDTH, run, same_direction, tiny_model, unit

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import Edit, ablate, ablated, edits, low_rank
from heretic_tui.engine.events import Tick
from heretic_tui.engine.parameters import AblationParameters, Kernel

ROWS, COLUMNS = 24, 40
TEXTS = ["U:hello\nA:", "U:what is the capital of France?\nA:", "U:x\nA:"]


def matrix(seed=0):
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def direction(seed=1):
    return unit(seed, ROWS)


def expected(weights, v, share, row_normalization):
    """The definition, in float64: the projector built as a matrix and multiplied out."""
    w, v = weights.double().numpy(), v.double().numpy()
    projector = np.eye(len(v)) - share * np.outer(v, v)
    if row_normalization == "none":
        return projector @ w
    if row_normalization == "columns":
        pairs = zip(w.T, (projector @ w).T, strict=True)
        return np.array([new * np.sqrt((old**2).sum() / (new**2).sum()) for old, new in pairs]).T
    norms = np.array([np.sqrt((row**2).sum()) for row in w])
    edited = projector @ np.array([row / norm for row, norm in zip(w, norms, strict=True)])
    if row_normalization == "full":
        edited = np.array([row / np.sqrt((row**2).sum()) for row in edited])
    return np.diag(norms) @ edited


def everywhere(share=1.0, index=1.0):
    """The same weight in every layer."""
    kernel = Kernel(share, 1.0, share, 10.0)
    return AblationParameters(index, {"attn.o_proj": kernel, "mlp.down_proj": kernel})


def snapshot(model):
    return {name: weights.clone() for name, weights in model.network.state_dict().items()}


def identical(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# One matrix


@pytest.mark.parametrize("share", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
def test_an_edit_is_its_definition_in_float64(row_normalization, share):
    found = ablate(matrix(), direction()[None], share, row_normalization).double().numpy()
    np.testing.assert_allclose(found, expected(matrix(), direction(), share, row_normalization), atol=3e-6)


def test_weight_one_leaves_nothing_of_the_direction():
    edited = ablate(matrix(), direction()[None], 1.0).double()
    assert (direction().double() @ edited).abs().max() < 1e-6


def test_full_keeps_the_norm_of_every_row():
    edited = ablate(matrix(), direction()[None], 1.2, "full")
    torch.testing.assert_close(edited.norm(dim=1), matrix().norm(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
def test_an_edit_leaves_the_matrix_that_it_was_given_alone(row_normalization):
    weights = matrix()
    ablate(weights, direction()[None], 1.0, row_normalization)
    assert torch.equal(weights, matrix())


@pytest.mark.parametrize("row_normalization", ["pre", "full"])
def test_a_zero_row_brings_no_infinities(row_normalization):
    weights = matrix()
    weights[3] = 0
    edited = ablate(weights, direction()[None], 1.0, row_normalization)
    assert torch.isfinite(edited).all()
    assert edited[3].abs().max() < 1e-9


# Factors


@pytest.mark.parametrize("row_normalization", ["none", "pre"])
def test_none_and_pre_are_exact_at_rank_one(row_normalization):
    factors = low_rank(Edit(None, direction()[None], 1.3), matrix(), row_normalization, 1)
    assert (factors.up.shape, factors.down.shape, factors.error) == ((ROWS, 1), (1, COLUMNS), 0.0)
    update = (factors.up.double() @ factors.down.double()).numpy()
    exact = expected(matrix(), direction(), 1.3, row_normalization) - matrix().double().numpy()
    np.testing.assert_allclose(update, exact, atol=3e-6)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_full_states_the_relative_error_of_its_factors(rank):
    factors = low_rank(Edit(None, direction()[None], 1.3), matrix(), "full", rank)
    exact = expected(matrix(), direction(), 1.3, "full") - matrix().double().numpy()
    update = (factors.up.double() @ factors.down.double()).numpy()
    error = np.linalg.norm(update - exact) / np.linalg.norm(exact)
    assert factors.up.shape == (ROWS, rank)
    assert factors.error == pytest.approx(error, abs=1e-5)


def test_no_factors_of_the_same_rank_come_nearer():
    factors = low_rank(Edit(None, direction()[None], 1.3), matrix(), "full", 3)
    exact = expected(matrix(), direction(), 1.3, "full") - matrix().double().numpy()
    singular = np.linalg.svd(exact, compute_uv=False)
    assert factors.error == pytest.approx(np.sqrt((singular[3:] ** 2).sum() / (singular**2).sum()), abs=1e-5)


def test_a_rank_above_the_matrix_s_own_has_no_error():
    assert low_rank(Edit(None, direction()[None], 1.0), matrix(), "full", 100).error < 1e-6


# A model


def leaks(model, v):
    """|update . v| / |update| at every position of every layer, in float64."""
    found = []

    def after(_, args, options, output):
        stream = args[0] if args else options["hidden_states"]
        output = output[0] if isinstance(output, tuple) else output
        update = (output - stream).double()[encoded.mask.bool()]
        found.append(((update @ v.double()).abs() / update.norm(dim=-1)).max().item())

    encoded = model.encode(TEXTS)
    handles = [layer.register_forward_hook(after, with_kwargs=True) for layer in model.layers]
    try:
        with torch.inference_mode():
            model.network(input_ids=encoded.ids, attention_mask=encoded.mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("row_normalization", ["none", "columns"])
def test_no_layer_writes_along_a_direction_that_is_ablated_everywhere(architecture, row_normalization):
    model, v = tiny_model(architecture), unit()
    assert min(leaks(model, v)) > 1e-2
    with ablated(model, same_direction(model, v), everywhere(), AblationStyle(row_normalization)):
        assert max(leaks(model, v)) < 1e-5


@pytest.mark.parametrize("architecture", CONFIGS)
def test_rows_that_get_their_norm_back_let_part_of_the_direction_back_in(architecture):
    model, v = tiny_model(architecture), unit()
    with ablated(model, same_direction(model, v), everywhere(), AblationStyle("full")):
        assert max(leaks(model, v)) > 1e-3


@pytest.mark.parametrize("architecture", POST_NORMED)
def test_the_plain_formula_leaks_where_a_norm_follows_the_writer(architecture):
    model, v = tiny_model(architecture), unit()
    with ablated(model, same_direction(model, v), everywhere(), AblationStyle(gain_aware=False)):
        assert max(leaks(model, v)) > 1e-2


def test_the_gain_turns_the_direction():
    model, v = tiny_model("gemma3"), unit()
    for edit in edits(model, same_direction(model, v), everywhere()):
        layer = model.layers[edit.writer.layer]
        attention = edit.writer.component == "attn.o_proj"
        norm = layer.post_attention_layernorm if attention else layer.post_feedforward_layernorm
        turned = (1 + norm.weight.double().numpy()) * v.double().numpy()
        np.testing.assert_allclose(edit.basis[0].numpy(), turned / np.linalg.norm(turned), atol=1e-6)


@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_live_weights_hold_the_edit(architecture, row_normalization):
    model, v = tiny_model(architecture), unit()
    before = [writer.matrix.clone() for writer in model.writers]
    with ablated(model, same_direction(model, v), everywhere(0.7), AblationStyle(row_normalization)):
        for writer, original in zip(model.writers, before, strict=True):
            live = model.network.get_submodule(writer.name).weight
            live = live.T if architecture == "gpt2" else live
            np.testing.assert_allclose(
                live.double().numpy(), expected(original, v, 0.7, row_normalization), rtol=0, atol=1e-6
            )


def test_a_writers_bias_loses_the_direction_too():
    model, v = tiny_model("gpt2"), unit()
    before = [writer.bias.double().numpy().copy() for writer in model.writers]
    projector = np.eye(WIDTH) - 0.7 * np.outer(v.double().numpy(), v.double().numpy())
    with ablated(model, same_direction(model, v), everywhere(0.7)):
        for writer, bias in zip(model.writers, before, strict=True):
            np.testing.assert_allclose(writer.bias.double().numpy(), projector @ bias, atol=1e-6)


def test_nothing_but_the_writers_changes():
    model = tiny_model("gpt2")
    before = snapshot(model)
    own = {f"{writer.name}.{part}" for writer in model.writers for part in ("weight", "bias")}
    with ablated(model, same_direction(model, unit()), everywhere()):
        changed = {name for name, weights in model.network.state_dict().items() if not weights.equal(before[name])}
    assert changed == own


def test_bfloat16_weights_are_computed_in_float32_and_rounded_once():
    model, v = tiny_model("llama"), unit()
    model.network.bfloat16()
    before = [writer.matrix.float() for writer in model.writers]
    with ablated(model, same_direction(model, v), everywhere()):
        for writer, original in zip(model.writers, before, strict=True):
            exact = torch.from_numpy(expected(original, v, 1.0, "none")).float().bfloat16()
            # Where float32 falls on the other side of a rounding boundary than float64 the last bit may differ.
            assert (writer.matrix != exact).float().mean() < 1e-3


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("row_normalization", ["none", "full", "columns"])
def test_weights_come_back_bit_for_bit(architecture, row_normalization):
    model = tiny_model(architecture)
    before = snapshot(model)
    for share in (1.0, 0.5):
        with ablated(model, same_direction(model, unit()), everywhere(share), AblationStyle(row_normalization)):
            assert not identical(before, snapshot(model))
    assert identical(before, snapshot(model))


def test_weights_come_back_when_the_body_raises():
    model = tiny_model()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="boom"), ablated(model, same_direction(model, unit()), everywhere()):
        raise RuntimeError("boom")
    assert identical(before, snapshot(model))


def test_weights_come_back_when_an_edit_fails_halfway(monkeypatch):
    from heretic_tui.engine.ablation import weight_edits

    model = tiny_model()
    before = snapshot(model)
    whole, calls = weight_edits.ablate, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("boom")
        return whole(*arguments)

    monkeypatch.setattr(weight_edits, "ablate", failing)
    with pytest.raises(RuntimeError, match="boom"), ablated(model, same_direction(model, unit()), everywhere()):
        pass
    assert identical(before, snapshot(model))


def test_weights_come_back_when_a_job_is_closed_while_it_holds_them():
    model = tiny_model()
    before = snapshot(model)

    def job():
        with ablated(model, same_direction(model, unit()), everywhere()):
            while True:
                yield Tick()

    running = job()
    next(running)
    assert not identical(before, snapshot(model))
    running.close()
    assert identical(before, snapshot(model))


def test_a_second_ablation_starts_from_the_original_and_not_from_the_first():
    model, v = tiny_model(), unit()
    original = model.writers[0].matrix.clone()
    with ablated(model, same_direction(model, v), everywhere(0.5)):
        pass
    with ablated(model, same_direction(model, v), everywhere(0.5)):
        np.testing.assert_allclose(
            model.writers[0].matrix.double().numpy(), expected(original, v, 0.5, "none"), atol=1e-6
        )


def test_layers_beyond_the_kernel_are_not_edited():
    model = tiny_model()
    narrow = AblationParameters(1.0, {"attn.o_proj": Kernel(1.0, 2.0, 0.5, 1.0)})
    found = edits(model, same_direction(model, unit()), narrow)
    assert [(edit.writer.name, edit.weight) for edit in found] == [
        ("model.layers.1.self_attn.o_proj", 0.5),
        ("model.layers.2.self_attn.o_proj", 1.0),
    ]


def test_per_layer_scope_takes_every_layers_own_direction():
    model = tiny_model()
    rows = torch.stack([unit(seed) for seed in range(4)])
    found = edits(model, Directions(rows, rows, rows), everywhere(index=None))
    for edit in found:
        assert torch.equal(edit.basis[0], rows[edit.writer.layer + 1])


def test_an_ablated_model_runs_as_often_as_it_likes():
    model = tiny_model()
    from heretic_tui.engine.decoding.greedy import generate

    def answer():
        return run(generate(model, TEXTS, 8, "test"))[1]

    plain = answer()
    with ablated(model, same_direction(model, unit()), everywhere()):
        assert answer() == answer() != plain
    assert answer() == plain
