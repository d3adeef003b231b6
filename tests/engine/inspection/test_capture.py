import numpy as np
import pytest
import torch
from planted import deep_model, planted, unit
from tiny_models import CONFIGS, POST_NORMED, WIDTH, result, run, same_weights, tiny_model, weights_of
from transformers import CohereConfig, GPTNeoXConfig, PhiConfig

from heretic_tui.engine.ablation.residuals import residual_mean, residuals
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished
from heretic_tui.engine.inspection.capture import capture, capture_sets, mid_places
from heretic_tui.engine.inspection.geometry import quick_geometry
from heretic_tui.engine.inspection.layer_rule import pick_layers
from heretic_tui.engine.inspection.similarity import measure_similarity

GOOD = [f"U:tell me about {n} rivers\nA:" for n in range(7)]
BAD = [f"U:open lock {n}!\nA:" for n in range(5)]
PARALLEL = {
    "neox": GPTNeoXConfig,
    "phi": PhiConfig,
    "cohere": CohereConfig,
}
SMALL = {"vocab_size": 260, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3}
PRE_MLP = {"gemma2": "pre_feedforward_layernorm", "gemma3": "pre_feedforward_layernorm", "gpt2": "ln_2", "olmo2": "mlp"}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_place_between_attention_and_mlp_is_found_in_every_layer(architecture):
    model = tiny_model(architecture)
    names = {module: name for name, module in model.network.named_modules()}
    found = [names[place].rpartition(".")[2] for place in mid_places(model, GOOD[0])]
    assert found == [PRE_MLP.get(architecture, "post_attention_layernorm")] * 3


@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_is_captured_there_plus_the_mlp_s_update_is_the_layer_s_output(architecture):
    model = tiny_model(architecture)
    found = result(capture(model, GOOD[:1], "test", mids=mid_places(model, GOOD[0])))
    updates = [_mlp_update(model, architecture, layer, GOOD[0]) for layer in model.layers]
    torch.testing.assert_close(found.mid[0] + torch.stack(updates), found.after[0, 1:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found.mid, found.after[:, :-1], atol=1e-2)


def _mlp_update(model, architecture, layer, text):
    """What the layer's MLP, or the norm after it, gave at the last position."""
    names = {"gemma2": "post_feedforward_layernorm", "gemma3": "post_feedforward_layernorm"}
    names |= {"olmo2": "post_feedforward_layernorm", "glm4": "post_mlp_layernorm", "hyperclovax": "post_norm2"}
    given = []
    module = layer.get_submodule(names.get(architecture, "mlp"))
    handle = module.register_forward_hook(lambda _, __, output: given.append(output[0, -1].clone()))
    with torch.inference_mode():
        model.network(input_ids=model.encode([text]).ids)
    handle.remove()
    return given[0]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", *POST_NORMED])
def test_the_place_is_found_in_bfloat16_too(architecture):
    model = tiny_model(architecture)
    expected = mid_places(model, GOOD[0])
    model.network.bfloat16()
    assert mid_places(model, GOOD[0]) == expected


@pytest.mark.parametrize("architecture", PARALLEL)
def test_where_attention_and_mlp_read_the_same_stream_there_is_no_such_place(architecture, monkeypatch):
    import tiny_models

    kept = {"num_attention_heads": 4, **SMALL}
    monkeypatch.setitem(tiny_models.ARCHITECTURES, architecture, lambda: PARALLEL[architecture](**kept))
    network = tiny_models.tiny_network(architecture)
    model = tiny_model()
    model.network, model.layers = network, network.base_model.layers
    model.__dict__.pop("forward_names", None)
    assert mid_places(model, GOOD[0]) == ()
    sets = result(capture_sets(model, GOOD, BAD))
    assert sets.mid is None and sets.good.shape == (7, 4, WIDTH)


def test_a_place_that_one_layer_lacks_is_no_place():
    model = tiny_model()
    layer = model.layers[1]
    plain = layer.forward
    layer.forward = lambda *args, **options: plain(*args, **options) * 2
    assert mid_places(model, GOOD[0]) == ()


def test_the_vectors_after_the_layers_are_those_of_a_study():
    model = tiny_model(batch_size=3)
    sets = result(capture_sets(model, GOOD, BAD))
    np.testing.assert_allclose(sets.good, result(residuals(model, GOOD, "test")).numpy(), rtol=1e-5, atol=1e-6)
    mean = result(residual_mean(model, BAD, "test")).numpy()
    np.testing.assert_allclose(sets.bad.mean(axis=0, dtype=np.float64), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_batch_size_and_the_order_change_nothing(size):
    model = tiny_model(batch_size=size)
    mids = mid_places(model, GOOD[0])
    found = result(capture(model, GOOD, "test", mids=mids))
    alone = result(capture(model, GOOD[4:5], "test", mids=mids))
    torch.testing.assert_close(found.after[4], alone.after[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mid[4], alone.mid[0], rtol=1e-4, atol=1e-5)


def test_magnitudes_are_clamped_as_in_the_study():
    model = tiny_model()
    sets = result(capture_sets(model, GOOD, BAD, 0.9))
    expected = result(residuals(model, GOOD, "test", 0.9)).numpy()
    np.testing.assert_allclose(sets.good, expected, rtol=1e-5, atol=1e-6)
    for vectors in (sets.good, sets.good_mid):
        magnitudes = np.abs(vectors)
        quantiles = np.quantile(magnitudes, 0.9, axis=-1)
        np.testing.assert_allclose(magnitudes.max(axis=-1), quantiles, rtol=0.2)


def test_the_memory_is_told():
    events, sets = run(capture_sets(tiny_model(), GOOD, BAD))
    told = next(event for event in events if isinstance(event, PhaseFinished))
    assert sets.bytes == 12 * (4 + 3) * WIDTH * 4
    assert told.result == "7 + 5 prompts at 4 places in the stream and 3 between attention and MLP, 16.1 kB"


def test_memory_that_runs_out_halves_the_batch_and_nothing_is_lost(monkeypatch):
    from heretic_tui.engine.inspection import capture as module

    model, plain = tiny_model(batch_size=8), module.batch_residuals
    expected = result(capture(model, GOOD, "test"))

    def greedy(model, batch, *options):
        if len(batch.ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, batch, *options)

    monkeypatch.setattr(module, "batch_residuals", greedy)
    events, found = run(capture(model, GOOD, "test"))
    torch.testing.assert_close(found.after, expected.after, rtol=1e-4, atol=1e-5)
    assert any("Out of memory" in getattr(event, "text", "") for event in events)


def test_no_hook_is_left_behind_when_it_is_stopped():
    model = tiny_model(batch_size=1)
    before = hooks(model)
    job = capture_sets(model, GOOD, BAD)
    next(job)
    job.close()
    assert hooks(model) == before


def hooks(model):
    """How many hooks every module has; the library has some of its own."""
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.network.modules()]


def test_capturing_changes_no_weight():
    model = tiny_model()
    before = weights_of(model)
    result(capture_sets(model, GOOD, BAD))
    assert same_weights(model, before)


# Planted in a model's own stream

CALM = [f"U:tell me about {n} rivers.\nA:" for n in range(24)]
LOUD = [f"U:tell me about {n} rivers!\nA:" for n in range(24)]


@pytest.mark.parametrize("seed", range(3))
def test_a_direction_planted_in_a_model_is_recovered_at_its_layer(monkeypatch, seed):
    draws = np.random.default_rng(seed)
    model = deep_model(monkeypatch, 12)
    # In few dimensions chance puts a direction along a layer's own mean; the rule would rightly prefer another layer.
    means = np.linalg.qr(result(residual_mean(model, CALM, "test")).numpy().T)[0]
    direction = draws.normal(size=WIDTH)
    direction = unit(direction - means @ (means.T @ direction))
    rows = np.zeros((12, WIDTH))
    rows[5:] = 80.0 * direction
    with planted(model, "!", rows):
        sets = result(capture_sets(model, CALM, LOUD))
    assert abs(sets.directions[6] @ direction) > 0.99
    assert np.abs(sets.directions[:6] @ direction).max() < 0.7
    assert pick_layers(quick_geometry(sets)).layers[0] == 5
    assert measure_similarity(sets.directions).verdict == "one direction, stable from layer 5 on"


@pytest.mark.parametrize("seed", range(3))
def test_three_directions_planted_in_a_model_are_a_subspace_of_about_three(monkeypatch, seed):
    draws = np.random.default_rng(seed)
    model = deep_model(monkeypatch, 18)
    axes = np.linalg.qr(draws.normal(size=(WIDTH, 3)))[0].T
    with planted(model, "!", 200.0 * axes[np.arange(18) % 3]):
        sets = result(capture_sets(model, CALM, LOUD))
    assert measure_similarity(sets.directions).verdict == "a subspace of about 3"


def test_a_model_that_overflows_is_told_with_the_place():
    model = tiny_model()
    rows = np.zeros((3, WIDTH))
    rows[1, 0] = np.inf
    with planted(model, "!", rows):
        sets = result(capture_sets(model, CALM, LOUD))
    with pytest.raises(EngineError, match=r"layer 1, bad prompt 1"):
        sets.check()
