import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, POST_NORMED, result, run, same_direction, same_weights, tiny_model, unit, weights_of

from heretic_tui.engine.directions import Directions
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Tick
from heretic_tui.engine.inspection.leak import Leak, load_leak, measure_leak, measure_write, save_leak

TEXTS = ["U:hello there\nA:", "U:what is the capital of Spain?\nA:", "U:x\nA:"]


def own_directions(model):
    """A direction of its own for every layer."""
    rows = torch.stack([unit(seed) for seed in range(len(model.layers) + 1)])
    return Directions(torch.zeros_like(rows), rows, rows)


@pytest.mark.parametrize("architecture", CONFIGS)
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
    from heretic_tui.engine import residuals

    model, passes, plain = tiny_model(), [], residuals.batch_residuals
    monkeypatch.setattr(residuals, "batch_residuals", lambda *args: passes.append(1) or plain(*args))
    run(measure_leak(model, TEXTS, own_directions(model)))
    assert len(passes) == 2 * len(TEXTS)
