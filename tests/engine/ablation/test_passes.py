"""A model that refuses in a second way: the other direction shows once the first is ablated."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny_models import WIDTH, result, run, same_weights, tiny_model, unit, weights_of

from heretic_tui.engine.ablation.directions import Directions, next_directions
from heretic_tui.engine.ablation.residuals import residual_mean
from heretic_tui.engine.ablation.updates import fully_ablated
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.inspection.direction_finding import find_directions
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.pipeline import export, start_study
from heretic_tui.engine.runs.run import Run
from heretic_tui.profile.schema import Profile

CALM = [f"U:tell me about {n} rivers.\nA:" for n in range(12)]
LOUD = [f"U:tell me about {n} rivers!\nA:" for n in range(12)]
STRENGTH = 60.0
FIRST = unit(5)
SECOND = torch.nn.functional.normalize(unit(6) - (unit(6) @ FIRST) * FIRST, dim=0)


@contextmanager
def refusing_twice(model):
    """Layer 0 writes `FIRST` for loud prompts; layer 2 writes `SECOND` for them where it does not see `FIRST`."""
    (loud,) = model.tokenizer("!", add_special_tokens=False)["input_ids"]
    marked, seen = [], []
    with torch.no_grad():
        for layer, vector in ((0, FIRST), (2, SECOND)):
            weights = model.layers[layer].mlp.down_proj.weight
            weights[:, 0] = vector
    model._pristine.clear()

    def look(_, args, options):
        marked[:] = [(options["input_ids"] == loud).any(dim=1)]

    def see(_, args, options):
        stream = args[0] if args else options["hidden_states"]
        seen[:] = [(stream @ FIRST).abs() > STRENGTH / 4]

    def write(args, on):
        inputs = args[0].clone()
        inputs[..., 0] = STRENGTH * on
        return (inputs,)

    handles = [
        model.network.base_model.register_forward_pre_hook(look, with_kwargs=True),
        model.layers[2].register_forward_pre_hook(see, with_kwargs=True),
        model.layers[0].mlp.down_proj.register_forward_pre_hook(
            lambda _, args: write(args, marked[0][:, None].expand(args[0].shape[:2]))
        ),
        model.layers[2].mlp.down_proj.register_forward_pre_hook(
            lambda _, args: write(args, marked[0][:, None] & ~seen[0])
        ),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def profile(passes):
    return Profile(passes=passes, orthogonalize_direction=False)


def left(model, directions):
    """How far the two sets' means lie apart along the second way after the last layer, with the directions ablated."""
    with fully_ablated(model, directions):
        good, bad = (result(residual_mean(model, texts, "t")) for texts in (CALM, LOUD))
    return abs(float((bad - good)[-1] @ SECOND.double()))


def test_one_pass_leaves_a_second_way_of_refusing_that_another_pass_finds():
    model = tiny_model()
    with refusing_twice(model):
        before = weights_of(model)
        one = result(find_directions(model, (CALM, LOUD), profile(1)))
        two = result(find_directions(model, (CALM, LOUD), profile(2)))
        assert same_weights(model, before)
        assert torch.equal(one.vectors, two.vectors) and one.further is None
        assert abs(float(one.vectors[-1] @ SECOND)) < 0.1 and float(one.vectors[1] @ FIRST) > 0.99
        assert two.further.shape == (1, 4, WIDTH)
        assert float(two.further[0, -1] @ SECOND) > 0.99
        assert left(model, one) > 0.8 * STRENGTH
        assert left(model, two) < 0.05 * STRENGTH


def test_what_another_pass_finds_is_orthogonal_to_what_was_known():
    model = tiny_model()
    with refusing_twice(model):
        found = result(find_directions(model, (CALM, LOUD), Profile(passes=3)))
    for layer in range(3):
        basis = found.basis(None, layer).double().numpy()
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-6)
        rows = torch.cat([found.vectors[None], found.further])[:, layer + 1].double().numpy()
        kept = rows[np.linalg.norm(rows, axis=1) > 0]
        np.testing.assert_allclose(kept @ kept.T, np.eye(len(kept)), atol=1e-6)


def test_an_edit_takes_out_what_every_pass_found():
    model = tiny_model()
    with refusing_twice(model):
        found = result(find_directions(model, (CALM, LOUD), profile(2)))
    assert found.basis(None, 2).shape == (2, WIDTH)
    torch.testing.assert_close(found.basis(None, 2), torch.stack([found.vectors[3], found.further[0, 3]]))


def test_between_two_layers_what_a_pass_found_is_interpolated_too():
    rows = torch.linalg.qr(torch.randn(WIDTH, 6, generator=torch.Generator().manual_seed(3)))[0].T
    found = Directions(rows[:3], rows[:3], rows[:3], rows[None, 3:]).basis(0.25, 0)
    expected = 0.75 * rows[4] + 0.25 * rows[5]
    torch.testing.assert_close(found[1], expected / expected.norm(), atol=1e-6, rtol=0)


def test_where_nothing_sets_the_centres_apart_any_more_nothing_is_found():
    rows = torch.stack([unit(seed) for seed in range(4)])
    known = Directions(torch.zeros_like(rows), rows, rows)
    assert not next_directions(
        known, torch.zeros_like(rows), 1e-4 * unit(9) + torch.zeros_like(rows), projected=True
    ).any()
    assert not next_directions(known, torch.zeros_like(rows), 0.5 * rows, projected=True).any()


def test_a_pass_keeps_away_from_the_good_centre_where_that_is_asked():
    good, known = torch.stack([unit(1), unit(2)]), torch.stack([unit(3), unit(4)])
    directions = Directions(good, good + known, known)
    found = next_directions(directions, good, good + torch.stack([unit(5), unit(6)]), projected=True).double()
    assert (found * known).sum(dim=1).abs().max() < 1e-6
    # Of the good centre only what lies along the known direction is left, and that is no part of what was found.
    assert (found * good).sum(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize("stop", ["first event of the second pass", "every later one"])
def test_the_weights_come_back_when_the_job_is_closed_in_the_middle_of_a_pass(stop):
    model = tiny_model(batch_size=4)
    before = weights_of(model)
    steps = len(run(find_directions(model, (CALM, LOUD), profile(1)))[0])
    for more in (1,) if stop.startswith("first") else range(2, 7):
        job = find_directions(model, (CALM, LOUD), profile(2))
        for _ in range(steps + more):
            next(job)
        assert not same_weights(model, before)
        job.close()
        assert same_weights(model, before)


def test_each_pass_tells_how_far_it_is_and_what_it_found():
    events, _ = run(find_directions(tiny_model(batch_size=4), (CALM, LOUD), profile(2)))
    assert sum(isinstance(event, Progress) for event in events) == 2 * 6
    (finished,) = (event for event in events if isinstance(event, PhaseFinished))
    assert finished.phase == "pass 2" and finished.result.endswith("layers")


def test_a_study_of_two_passes_and_two_directions_is_exported_as_it_was_measured(tiny_folder, short_profile, tmp_path):
    changes = {"passes": 2, "subspace_dimensions": 2, "n_trials": 2, "row_normalization": "none"}
    found = Run(result(start_study(str(tiny_folder), short_profile.model_copy(update=changes), "two", tmp_path)).path)
    events, _ = run(export(found, 1, tmp_path / "out", verify_scores=True))
    assert {name: score.value for name, score in events[-1].scores.items()} == pytest.approx(
        {name: score.value for name, score in found.record(1).scores.items()}, abs=1e-6
    )
    assert result(export(found, 1, tmp_path / "adapter", adapter=True)).rank == 3


def test_the_weights_of_a_trial_that_is_given_hold_no_trace_of_the_passes(tiny_folder):
    # What a pass ablates fully must not be taken for the original by the trials that follow.
    model = tiny_model()
    kernel = Kernel(0.5, 1.0, 0.5, 10.0)
    parameters = AblationParameters(None, {"attn.o_proj": kernel, "mlp.down_proj": kernel})
    found = result(find_directions(model, (CALM, LOUD), profile(2)))
    fresh = tiny_model()
    with ablated(model, found, parameters):
        after = weights_of(model)
    with ablated(fresh, found, parameters):
        assert same_weights(fresh, after)
