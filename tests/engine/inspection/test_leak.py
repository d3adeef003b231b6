import numpy as np
import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    POST_NORMED,
    result,
    run,
    same_direction,
    same_weights,
    tiny_model,
    unit,
    weights_of,
)

from heretic_tui.engine.ablation import updates
from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.updates import fully_ablated
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Tick
from heretic_tui.engine.inspection.leak import Leak, load_leak, measure_leak, measure_write, save_leak

RESCALING = ["gemma4", "gemma4_moe", "gemma4_vision"]
"""Those that multiply the whole stream by a number of its own after each layer."""
TEXTS = ["U:hello there\nA:", "U:what is the capital of Spain?\nA:", "U:x\nA:"]


def own_directions(model):
    """A direction of its own for every layer."""
    rows = torch.stack([unit(seed) for seed in range(len(model.layers) + 1)])
    return Directions(torch.zeros_like(rows), rows, rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_leaks_once_every_writer_is_ablated(architecture):
    model = tiny_model(architecture)
    found = result(measure_leak(model, TEXTS, own_directions(model)))
    assert max(found.leak) < 1e-5
    assert min(found.write) > 1e-3


@pytest.mark.parametrize("missed", ["attn.o_proj", "mlp.down_proj"])
def test_a_writer_that_is_missed_is_seen_in_its_layer(missed):
    model = tiny_model()
    model.writers = [writer for writer in model.writers if (writer.layer, writer.component) != (1, missed)]
    found = result(measure_leak(model, TEXTS, own_directions(model)))
    assert found.leak[1] > 0.005
    assert max(found.leak[0], found.leak[2]) < 1e-5


@pytest.mark.parametrize("architecture", RESCALING)
def test_rescaling_the_whole_stream_is_no_leak(architecture):
    model = tiny_model(architecture)
    assert all(0.4 <= float(layer.layer_scalar) <= 0.8 for layer in model.layers)
    directions = own_directions(model)
    found = result(measure_leak(model, TEXTS, directions))
    assert max(found.leak) < 1e-5
    with fully_ablated(model, directions):
        plain = result(measure_write(model, TEXTS, directions)).write
    assert min(plain) > 0.001  # what goes in along a direction comes out shorter, which is part of the update


@pytest.mark.parametrize("architecture", RESCALING)
def test_a_writer_that_is_missed_is_seen_where_the_stream_is_rescaled(architecture):
    model = tiny_model(architecture)
    model.writers = [writer for writer in model.writers if (writer.layer, writer.component) != (1, "attn.o_proj")]
    found = result(measure_leak(model, TEXTS, own_directions(model)))
    assert found.leak[1] > 0.005
    assert max(found.leak[0], found.leak[2]) < 1e-5


def test_the_leak_is_that_of_a_plain_computation_on_a_cleaned_stream():
    model = tiny_model("gemma4")
    directions, missed = own_directions(model), "mlp.down_proj"
    model.writers = [writer for writer in model.writers if writer.component != missed]
    leak = result(measure_leak(model, TEXTS, directions)).leak
    with fully_ablated(model, directions):
        shares = np.mean([shares_of_a_cleaned_stream(model, text, directions) for text in TEXTS], axis=0)
    assert leak == pytest.approx(shares, rel=1e-4)
    assert min(shares) > 0.005


def shares_of_a_cleaned_stream(model, text, directions):
    """Each layer's share at the last position, in NumPy float64, where its input has no component along v."""
    entered, left = [], []
    vectors = directions.vectors[1:].double().numpy()

    def before(_, args, options):
        stream = (args[0] if args else options["hidden_states"]).double().numpy()
        v = vectors[len(entered)]
        clean = stream - np.einsum("btd,d,e->bte", stream, v, v)
        entered.append(clean[0, -1])
        clean = torch.from_numpy(clean).float()
        return ((clean, *args[1:]), options) if args else (args, {**options, "hidden_states": clean})

    def after(_, __, output):
        left.append((output[0] if isinstance(output, tuple) else output)[0, -1].double().numpy())

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in model.layers]
    handles += [layer.register_forward_hook(after) for layer in model.layers]
    with torch.inference_mode():
        model.network(input_ids=model.encode([text]).ids, use_cache=False)
    for handle in handles:
        handle.remove()
    added = np.array(left) - np.array(entered)
    return np.abs((added * vectors).sum(axis=1)) / np.sqrt((added**2).sum(axis=1))


@pytest.mark.parametrize("architecture", POST_NORMED)
def test_without_regard_for_the_norm_s_gain_it_leaks(architecture):
    model = tiny_model(architecture)
    directions = own_directions(model)
    assert max(result(measure_leak(model, TEXTS, directions, gain_aware=False)).leak) > 0.003
    assert max(result(measure_leak(model, TEXTS, directions, gain_aware=True)).leak) < 1e-5


def test_the_shares_are_those_of_a_plain_computation():
    model = tiny_model()
    directions = own_directions(model)
    found = result(measure_write(model, TEXTS, directions)).write
    for layer in range(3):
        shares = []
        for text in TEXTS:
            ids = model.encode([text]).ids
            states = model.network(input_ids=ids, output_hidden_states=True).hidden_states
            vectors = [state[0, -1].double().numpy() for state in states]
            if layer == 2:  # the library's last state has gone through the final norm
                continue
            update = vectors[layer + 1] - vectors[layer]
            along = sum(a * b for a, b in zip(update, directions.vectors[layer + 1].double().numpy(), strict=True))
            shares.append(abs(along) / np.sqrt(sum(update**2)))
        if shares:
            assert found[layer] == pytest.approx(np.mean(shares), rel=1e-4)


def test_a_layer_without_a_direction_writes_nothing_along_it():
    model = tiny_model()
    directions = same_direction(model, torch.zeros(48))
    assert result(measure_write(model, TEXTS, directions)).write == (0.0, 0.0, 0.0)


def test_the_weights_are_put_back_also_when_it_is_stopped_in_the_middle():
    model = tiny_model()
    before = weights_of(model)
    result(measure_leak(model, TEXTS, own_directions(model)))
    assert same_weights(model, before)
    job = measure_leak(model, TEXTS, own_directions(model))
    assert next(job) == Tick() and next(job) == Tick()
    assert not same_weights(model, before)
    job.close()
    assert same_weights(model, before)


def test_it_is_kept_and_read_again(tmp_path):
    for leak in (Leak((0.1, 0.2), (0.0, 1e-8)), Leak((0.5,), None)):
        save_leak(tmp_path / "leak.json", leak)
        assert load_leak(tmp_path / "leak.json") == leak
    assert load_leak(tmp_path / "none.json") is None
    (tmp_path / "leak.json").write_text('{"write": 3}')
    with pytest.raises(EngineError, match="is damaged"):
        load_leak(tmp_path / "leak.json")


def test_it_takes_two_passes_over_every_text(monkeypatch):
    model, passes, plain = tiny_model(), [], updates.batch_residuals
    monkeypatch.setattr(updates, "batch_residuals", lambda *args: passes.append(1) or plain(*args))
    run(measure_leak(model, TEXTS, own_directions(model)))
    assert len(passes) == 2 * len(TEXTS)
