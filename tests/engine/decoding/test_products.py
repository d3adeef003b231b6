import pytest
import torch
from tiny_models import result, tiny_model
from torch import nn

from heretic_tui.engine.decoding import products
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.log_probabilities import first_token_log_probabilities
from heretic_tui.engine.decoding.products import Products

ROWS = [1, 7, 8, 31, 32, 64, 65, 200]


@pytest.fixture(params=[True, False], ids=["slow in 16 bits", "quick in 16 bits"])
def slow_in_16_bits(request, monkeypatch):
    """A processor that multiplies bfloat16 slowly, and one that does not."""
    monkeypatch.setattr(products, "float32_is_quicker", lambda dtype: request.param)
    return request.param


@pytest.fixture(params=[True, False], ids=["packs", "cannot pack"])
def packs(request, monkeypatch):
    """A processor for which weights are packed, and one for which they are not."""
    assert not request.param or products.packs_rightly(), "this build of torch cannot pack weights"
    monkeypatch.setattr(products, "packing_is_quicker", lambda: request.param)
    return request.param


def network(dtype, bias=True, outputs=24):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, outputs, bias=bias)).to(dtype)


@pytest.mark.parametrize("outputs", [24, 24 * 40])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_a_float32_product_is_what_the_module_gives(rows, bias, outputs, packs):
    plain = network(torch.float32, bias, outputs)
    inputs = torch.randn(rows, 40)
    exact = inputs.double() @ plain[0].weight.double().t() + (plain[0].bias.double() if bias else 0)
    with torch.inference_mode(), Products(plain, rows).used():
        found = plain(inputs)
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
    assert found.is_contiguous()


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_a_bfloat16_product_is_the_exact_sum_rounded_once(rows, bias, keeps, slow_in_16_bits, packs):
    plain = network(torch.bfloat16, bias)
    inputs = torch.randn(rows, 40).bfloat16()
    exact = inputs.double() @ plain[0].weight.double().t() + (plain[0].bias.double() if bias else 0)
    with torch.inference_mode(), Products(plain, rows if keeps else 0).used():
        found = plain(inputs)
    assert found.dtype == torch.bfloat16
    # One rounding is at most half of a unit in the last of bfloat16's eight places.
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=2**-8)


def test_rows_may_lie_in_more_dimensions(packs):
    plain = network(torch.float32)
    inputs = torch.randn(4, 5, 40)
    with torch.inference_mode():
        expected = plain(inputs)
        with Products(plain, 4).used():
            found = plain(inputs)
    assert found.shape == (4, 5, 24)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_network_is_itself_again_afterwards_even_after_an_error():
    plain = network(torch.float32)
    with pytest.raises(ValueError, match="stop"), Products(plain, 8).used():
        raise ValueError("stop")
    assert "forward" not in plain[0].__dict__


def test_modules_that_compute_in_a_way_of_their_own_are_left_alone():
    class Own(nn.Linear):
        pass

    wrapped = nn.Linear(4, 4)
    wrapped.forward = lambda inputs: inputs
    assert Products(nn.Sequential(Own(4, 4), wrapped), 8).linears == []


def test_hooks_on_a_module_still_see_what_goes_through_it():
    plain, seen = network(torch.float32), []
    plain[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.inference_mode(), Products(plain, 8).used():
        plain(torch.randn(8, 40))
    assert seen == [(8, 24)]


def test_copies_that_would_fill_the_memory_are_not_kept(monkeypatch, packs):
    monkeypatch.setattr(products, "float32_is_quicker", lambda dtype: True)
    plain = network(torch.bfloat16)
    roomy = Products(plain, 8)
    assert (roomy.packs, roomy.keeps) == (packs, not packs)
    monkeypatch.setattr(products, "free_memory", lambda device: 4 * 4 * 40 * 24)
    tight = Products(plain, 8)
    assert not tight.packs
    assert not tight.keeps


def test_nothing_is_prepared_where_no_step_follows(packs):
    plain = network(torch.float32)
    assert not Products(plain, 0).packs


def test_weights_edited_between_two_answers_count_in_the_second(monkeypatch, packs):
    """The float32 copies must not outlive the weights that they were made of."""
    monkeypatch.setattr(products, "float32_is_quicker", lambda dtype: True)
    model = tiny_model("llama", batch_size=8)
    model.network.to(torch.bfloat16)
    texts = [f"U:prompt {number}\nA:" for number in range(8)]
    before = [found.tokens for found in result(generate(model, texts, 6, "test"))]
    plain = result(first_token_log_probabilities(model, texts, "test"))
    with torch.no_grad():
        for layer in model.layers:
            layer.mlp.down_proj.weight.zero_()
    after = [found.tokens for found in result(generate(model, texts, 6, "test"))]
    assert after != before
    assert not torch.equal(result(first_token_log_probabilities(model, texts, "test")), plain)
    monkeypatch.setattr(products, "_quickened", lambda module: False)
    fresh = result(first_token_log_probabilities(model, texts, "test"))
    monkeypatch.undo()
    torch.testing.assert_close(result(first_token_log_probabilities(model, texts, "test")), fresh, atol=0.1, rtol=0)


def test_what_is_quicker_is_found_on_the_machine():
    assert isinstance(products.float32_is_quicker(torch.bfloat16), bool)
    assert isinstance(products.packing_is_quicker(), bool)
