import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, WIDTH, result, run, tiny_model

from heretic_tui.engine.ablation.residuals import batch_residuals, captured, residual_mean, residuals, winsorized
from heretic_tui.engine.events import Progress

TEXTS = [
    "U:hello\nA:",
    "U:what is the capital of France, and of Spain?\nA:",
    "U:x\nA:",
    "S:be brief\nU:why is the sky blue?\nA:",
    "U:one more\nA:",
]


def alone(model, text):
    """The library's own hidden states of one unpadded prompt, and its final norm's output, at the last position."""
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        output = model.network(input_ids=ids, output_hidden_states=True, use_cache=False)
    return torch.stack([states[0, -1] for states in output.hidden_states])


@pytest.mark.parametrize("architecture", CONFIGS)
def test_vectors_are_the_library_s_hidden_states_up_to_the_last_layer(architecture):
    model = tiny_model(architecture)
    found = result(residuals(model, TEXTS[1:2], "test"))[0]
    torch.testing.assert_close(found[:-1], alone(model, TEXTS[1])[:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_the_last_vector_is_taken_before_the_final_norm(architecture):
    model = tiny_model(architecture)
    found = result(residuals(model, TEXTS[1:2], "test"))[0, -1]
    normed = alone(model, TEXTS[1])[-1]
    norm = model.network.transformer.ln_f if architecture == "gpt2" else model.network.model.norm
    assert not torch.allclose(found, normed, atol=1e-2)
    torch.testing.assert_close(norm(found), normed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_left_padding_changes_no_vector(architecture):
    model = tiny_model(architecture)
    together = result(residuals(model, TEXTS, "test"))
    for text, vectors in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(result(residuals(model, [text], "test"))[0], vectors, rtol=1e-4, atol=1e-4)


def test_vectors_come_in_the_order_of_the_prompts_whatever_the_batch_size():
    model = tiny_model()
    together = result(residuals(model, TEXTS, "test"))
    model.batch_size = 2
    torch.testing.assert_close(result(residuals(model, TEXTS, "test")), together, rtol=1e-4, atol=1e-4)


def test_there_is_a_vector_for_the_embeddings_and_one_for_every_layer():
    assert result(residuals(tiny_model(), TEXTS, "test")).shape == (5, 4, WIDTH)


def test_vectors_of_a_bfloat16_model_are_float32():
    model = tiny_model()
    model.network.bfloat16()
    assert result(residuals(model, TEXTS, "test")).dtype == torch.float32


def test_no_hook_is_left_behind_even_when_a_pass_fails():
    model = tiny_model()
    with pytest.raises(RuntimeError, match="boom"), captured(model.layers):
        raise RuntimeError("boom")
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.layers)


def test_no_logits_are_computed():
    model = tiny_model()
    model.network.lm_head = None
    assert batch_residuals(model, model.encode(TEXTS)).shape == (5, 4, WIDTH)


@pytest.mark.parametrize("quantile", [1.0, 0.9])
def test_the_mean_is_that_of_the_full_residuals(quantile):
    model = tiny_model(batch_size=2)
    whole = result(residuals(model, TEXTS, "test", quantile)).double().numpy()
    mean = result(residual_mean(model, TEXTS, "test", quantile))
    assert mean.dtype == torch.float64
    np.testing.assert_allclose(mean.numpy(), whole.mean(axis=0), rtol=1e-12)


def test_progress_counts_every_prompt_once():
    events, _ = run(residual_mean(tiny_model(batch_size=2), TEXTS, "good"))
    assert events == [Progress("good", done, 5, "prompts") for done in (2, 4, 5)]


# Winsorization


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
def test_magnitudes_are_clamped_at_their_own_vector_s_quantile(quantile):
    vectors = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0)) ** 3
    limits = np.quantile(np.abs(vectors.double().numpy()), quantile, axis=-1, keepdims=True)
    expected = np.clip(vectors.double().numpy(), -limits, limits)
    np.testing.assert_allclose(winsorized(vectors, quantile).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_quantile_of_one_changes_nothing():
    vectors = torch.randn(3, 4, 50)
    assert torch.equal(winsorized(vectors, 1.0), vectors)


def test_winsorization_takes_the_batches_of_large_models():
    # 128 prompts of an 8B model: more numbers than torch.quantile accepts in one call.
    vectors = torch.ones(1).expand(128, 33, 4096)
    assert winsorized(vectors, 0.9).shape == vectors.shape
