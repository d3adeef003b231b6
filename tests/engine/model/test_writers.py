from types import SimpleNamespace

import pytest
import torch
from tiny_models import CONFIGS, WIDTH, result, tiny_model, tiny_network
from torch import nn

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.model.language_model import decoder_layers
from heretic_tui.engine.model.writers import count_kinds, find_writers
from heretic_tui.profile.schema import Profile

PLACES = {
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"),
}
USUAL = ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj")


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_layer_has_an_attention_and_an_mlp_writer(architecture):
    writers = tiny_model(architecture).writers
    places = PLACES.get(architecture, USUAL)
    assert [writer.name for writer in writers] == [place.format(layer) for layer in range(3) for place in places]
    assert [writer.component for writer in writers] == ["attn.o_proj", "mlp.down_proj"] * 3
    assert [writer.layer for writer in writers] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_writers_matrix_maps_its_input_to_the_stream(architecture):
    model = tiny_model(architecture)
    for writer in model.writers:
        module = model.network.get_submodule(writer.name)
        x = torch.randn(writer.matrix.shape[1])
        bias = 0 if writer.bias is None else writer.bias
        torch.testing.assert_close(module(x[None])[0], writer.matrix @ x + bias)


def test_a_writers_matrix_is_the_live_parameter():
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.writers[0].matrix.zero_()
    assert not model.network.transformer.h[0].attn.c_proj.weight.any()


def test_biases_are_found_where_the_writer_has_one():
    assert all(writer.bias is not None for writer in tiny_model("gpt2").writers)
    assert all(writer.bias is None for writer in tiny_model("qwen2").writers)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "phi3", "gpt2"])
def test_a_norm_before_the_mlp_is_not_taken_for_a_post_norm(architecture):
    assert all(writer.gain is None for writer in tiny_model(architecture).writers)


@pytest.mark.parametrize(
    ("architecture", "norms", "offset"),
    [
        ("gemma3", ("post_attention_layernorm", "post_feedforward_layernorm"), 1),
        ("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm"), 1),
        ("olmo2", ("post_attention_layernorm", "post_feedforward_layernorm"), 0),
        ("glm4", ("post_self_attn_layernorm", "post_mlp_layernorm"), 0),
        ("hyperclovax", ("post_norm1", "post_norm2"), 0),
    ],
)
def test_the_gain_is_that_of_the_norm_behind_the_writer(architecture, norms, offset):
    model = tiny_model(architecture)
    for writer in model.writers:
        norm = getattr(model.layers[writer.layer], norms[writer.component == "mlp.down_proj"])
        torch.testing.assert_close(writer.gain, norm.weight + offset, rtol=1e-5, atol=1e-6)


def test_an_identity_in_a_post_norm_s_place_has_no_gain():
    network = tiny_network("hyperclovax")
    for layer in network.model.layers:
        layer.post_norm1 = layer.post_norm2 = nn.Identity()
    assert all(writer.gain is None for writer in find_writers(network, network.model.layers, WIDTH))


def test_an_architecture_without_known_writers_is_an_error_that_tells_what_it_holds():
    network = tiny_network("llama")
    for layer in network.model.layers:
        layer.mlp.odd_proj, layer.self_attn.odd = layer.mlp.down_proj, layer.self_attn.o_proj
        del layer.mlp.down_proj, layer.self_attn.o_proj
    with pytest.raises(EngineError, match=r"No residual writer was found .* LlamaForCausalLM") as failure:
        find_writers(network, network.model.layers, WIDTH)
    assert "mlp.odd_proj" in failure.value.cause


def test_a_weight_that_does_not_write_into_the_stream_is_no_writer():
    network = tiny_network("llama")
    network.model.layers[0].self_attn.o_proj = nn.Linear(WIDTH, WIDTH + 1)
    names = [writer.name for writer in find_writers(network, network.model.layers, WIDTH)]
    assert "model.layers.0.self_attn.o_proj" not in names
    assert "model.layers.1.self_attn.o_proj" in names


@pytest.mark.parametrize(("architecture", "transposed"), [("qwen3_moe", False), ("gpt_oss", True)])
def test_fused_experts_lie_as_their_layer_uses_them(architecture, transposed):
    model = tiny_model(architecture)
    experts = [writer for writer in model.writers if writer.kind == "experts"]
    assert [writer.weight_name for writer in experts] == [
        f"model.layers.{layer}.mlp.experts.down_proj" for layer in range(3)
    ]
    for writer in experts:
        assert (writer.transposed, writer.count, writer.matrix.shape[:2]) == (transposed, 4, (4, WIDTH))


def test_without_a_mark_the_other_weights_tell_how_square_experts_lie():
    network = tiny_network("gpt_oss")
    for layer in network.model.layers:
        del layer.mlp.experts.is_transposed
    writers = find_writers(network, network.model.layers, WIDTH)
    assert all(writer.transposed for writer in writers if writer.kind == "experts")


def test_experts_that_are_modules_of_their_own_are_writers_each():
    network = tiny_network("llama")
    for layer in network.model.layers:
        layer.block_sparse_moe = nn.Module()
        layer.block_sparse_moe.experts = nn.ModuleList(SimpleModule(nn.Linear(8, WIDTH)) for _ in range(5))
    writers = find_writers(network, network.model.layers, WIDTH)
    assert count_kinds(writers) == {"attention": 3, "MLP": 3, "5 experts each": 15}
    assert writers[2].name == "model.layers.0.block_sparse_moe.experts.0.w2"


def test_a_block_that_layers_share_is_one_writer():
    network = tiny_network("llama")
    for layer in network.model.layers:
        layer.mlp = network.model.layers[0].mlp
    assert count_kinds(find_writers(network, network.model.layers, WIDTH)) == {"attention": 3, "MLP": 1}


def test_weights_packed_in_four_bits_are_writers(tiny_folder):
    model = result(load(str(tiny_folder), Profile(quantization="bnb_4bit")))
    assert [writer.packed for writer in model.writers] == [True] * 6
    assert model.facts.writers == {"attn.o_proj": 3, "mlp.down_proj": 3}
    assert model.facts.coverage == "6 writers in 3 layers: attention, MLP; leak 0.0000"


class SimpleModule(nn.Module):
    def __init__(self, w2):
        super().__init__()
        self.w2 = w2


def test_decoder_layers_are_the_longest_list_by_weight_of_the_right_length():
    network = nn.Module()
    network.small = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    network.large = nn.ModuleList(nn.Linear(20, 20) for _ in range(3))
    assert decoder_layers(network, 3) == list(network.large)


def test_a_network_without_decoder_layers_is_an_error():
    with pytest.raises(EngineError, match="No list of 7 decoder layers"):
        decoder_layers(tiny_network("llama"), 7)


def test_facts_count_the_writers_by_component():
    facts = tiny_model("llama").facts
    assert SimpleNamespace(layers=facts.layers, width=facts.width, writers=dict(facts.writers)) == SimpleNamespace(
        layers=3, width=WIDTH, writers={"attn.o_proj": 3, "mlp.down_proj": 3}
    )
