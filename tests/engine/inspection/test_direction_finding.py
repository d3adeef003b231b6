"""How residual vectors are taken: at which token, and how many prompts at a time."""

import pytest
import torch
from tiny_models import result, run, tiny_model

from heretic_tui.engine.ablation import residuals as module
from heretic_tui.engine.ablation.residuals import residual_moments, residuals
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note
from heretic_tui.engine.inspection.direction_finding import find_directions, residual_sets
from heretic_tui.profile.schema import Profile

CALM = [f"U:tell me about {n} rivers.\nA:" for n in range(5)]
LOUD = [f"U:open the lock {'at once ' * n}now!\nA:" for n in range(5)]


def mean_at(model, texts, position):
    """Mean of the stream at one position of every text, one at a time, from the library's hidden states."""
    rows = []
    for text in texts:
        ids = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            states = model.network(ids, output_hidden_states=True).hidden_states
        rows.append(torch.stack([state[0, position].double() for state in states[:-1]]))
    return torch.stack(rows).mean(dim=0)


@pytest.mark.parametrize("position", [-1, -2, -3])
@pytest.mark.parametrize("estimator", ["mean", "geometric_median"])
def test_vectors_are_those_at_the_position(position, estimator):
    model = tiny_model(batch_size=2)
    profile = Profile(token_position=position, direction_estimator=estimator)
    sets = result(residual_sets(model, (CALM, LOUD), profile))
    found = result(find_directions(model, (CALM, LOUD), profile))
    for texts, vectors in ((CALM, sets.good), (LOUD, sets.bad)):
        exact = mean_at(model, texts, position)  # without the last row, which the library gives after the final norm
        torch.testing.assert_close(torch.from_numpy(vectors).double().mean(dim=0)[:-1], exact, atol=1e-4, rtol=1e-4)
    if estimator == "mean":
        torch.testing.assert_close(found.bad[:-1].double(), mean_at(model, LOUD, position), atol=1e-4, rtol=1e-4)


def widths(monkeypatch, work):
    """The shapes of all batches that a piece of work passes through the model."""
    found, plain = [], module._pass
    monkeypatch.setattr(
        module, "_pass", lambda model, batch, *more: (found.append(batch), plain(model, batch, *more))[1]
    )
    work()
    return found


@pytest.mark.parametrize("keep", [True, False])
def test_one_at_a_time_nothing_is_padded_and_the_batch_size_comes_back(monkeypatch, keep):
    model, profile = tiny_model(batch_size=4), Profile(sequential_extraction=True)
    job = residual_sets if keep else find_directions
    batches = widths(monkeypatch, lambda: result(job(model, (CALM, LOUD), profile)))
    assert len(batches) >= len(CALM) + len(LOUD)
    assert all(len(batch.ids) == 1 and batch.mask.all() for batch in batches)
    assert model.batch_size == 4


def test_by_default_batches_are_of_the_model_s_size(monkeypatch):
    model = tiny_model(batch_size=4)
    batches = widths(monkeypatch, lambda: result(find_directions(model, (CALM, LOUD), Profile())))
    assert [len(batch.ids) for batch in batches] == [4, 1, 4, 1]


def test_the_batch_size_comes_back_when_the_job_is_closed():
    model = tiny_model(batch_size=4)
    job = find_directions(model, (CALM, LOUD), Profile(sequential_extraction=True))
    next(job)
    assert model.batch_size == 1
    job.close()
    assert model.batch_size == 4


def test_a_position_that_a_prompt_does_not_reach_is_told():
    model = tiny_model()
    with pytest.raises(EngineError, match="no token at position -8"):
        result(residual_moments(model, ["U:x", CALM[0]], "t", position=-8))


def test_a_position_among_the_prompts_own_words_is_pointed_out():
    model = tiny_model()
    for position, told in ((-1, False), (-2, False), (-8, True)):
        events, _ = run(find_directions(model, (CALM, LOUD), Profile(token_position=position)))
        notes = [event for event in events if isinstance(event, Note)]
        assert bool(notes) == told
        assert all("words of the prompts" in note.text for note in notes)


def test_variances_are_those_of_all_vectors():
    model = tiny_model(batch_size=2)
    moments = result(residual_moments(model, LOUD, "t"))
    vectors = result(residuals(model, LOUD, "t")).double()
    torch.testing.assert_close(moments.mean, vectors.mean(dim=0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(moments.variance, vectors.var(dim=0), atol=1e-8, rtol=1e-4)


def test_a_single_prompt_has_no_variance():
    assert result(residual_moments(tiny_model(), LOUD[:1], "t")).variance is None
