"""Directions through the unembedding, against the gain and the matrix multiplied by hand."""

import numpy as np
import pytest
import torch
from looking import holding, subject
from tiny_models import CONFIGS, result, tiny_model

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.vocabulary import final_norm, gained, logit_changes, read_vocabulary

NORMS = {"gpt2": "transformer.ln_f"}


def by_hand(model, vector):
    """Unembedding times the gained direction, in float64."""
    norm = dict(model.network.named_modules())[NORMS.get(model.name.removeprefix("tiny-"), "model.norm")]
    weight = norm.weight.detach().double().numpy()
    gain = 1 + weight if "Gemma" in type(norm).__name__ else weight
    step = vector.astype(np.float64)
    if isinstance(norm, torch.nn.LayerNorm):
        step = (step - step.mean()) / np.sqrt(((step - step.mean()) ** 2).mean() * len(step))
    head = model.network.get_output_embeddings().weight.detach().double().numpy()
    return head @ (gain * step)


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_every_architectures_final_norm_is_taken_into_account(architecture):
    model = tiny_model(architecture)
    vector = np.random.default_rng(1).normal(size=model.facts.width)
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    changes, name = logit_changes(model, torch.from_numpy(vector))
    assert name == NORMS.get(architecture, "model.norm")
    expected = by_hand(model, vector)[: len(changes)]
    np.testing.assert_allclose(changes.numpy(), expected, rtol=2e-3, atol=2e-4)


def test_the_lists_are_the_largest_and_the_smallest_changes():
    model = tiny_model()
    found = direction("it", np.random.default_rng(2).normal(size=48))
    read = result(read_vocabulary(subject(), found, top=7, load=holding(model)))
    changes = by_hand(model, found.vector)
    changes -= changes.mean()
    order = np.argsort(-changes)
    assert [word.token for word in read.promoted] == order[:7].tolist()
    assert [word.token for word in read.suppressed] == order[::-1][:7].tolist()
    np.testing.assert_allclose([word.value for word in read.promoted], changes[order[:7]], rtol=1e-3, atol=1e-4)
    assert read.through == "model.norm"


def test_a_token_that_is_half_a_character_is_shown_as_the_tokenizer_writes_it():
    model = tiny_model()
    read = result(read_vocabulary(subject(), direction("it", np.ones(48)), top=260, load=holding(model)))
    assert len(read.promoted) == 260
    assert all(word.text and "\ufffd" not in word.text for word in read.promoted)


def test_rows_that_only_pad_the_matrix_are_left_out():
    model = tiny_model()
    model.network.resize_token_embeddings(300)
    changes, _ = logit_changes(model, torch.ones(48) / 48**0.5)
    assert len(changes) == len(model.tokenizer) == 260


def test_a_norm_in_half_precision_gives_the_same_gain():
    model = tiny_model()
    norm, _ = final_norm(model)
    vector = torch.nn.functional.normalize(torch.randn(48, generator=torch.Generator().manual_seed(0)), dim=0)
    exact = gained(norm, vector)
    rounded = gained(norm.bfloat16(), vector)
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=2e-3)


def test_no_hook_is_left():
    model = tiny_model()
    final_norm(model)
    assert not any(module._forward_hooks for module in model.network.modules())


def test_another_width_is_refused():
    with pytest.raises(EngineError, match="has 5 numbers"):
        result(read_vocabulary(subject(), direction("short", np.ones(5)), load=holding(tiny_model())))


def test_a_model_without_an_unembedding_says_so(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.network, "get_output_embeddings", lambda: None)
    with pytest.raises(EngineError, match="no unembedding"):
        result(read_vocabulary(subject(), direction("it", np.ones(48)), load=holding(model)))
