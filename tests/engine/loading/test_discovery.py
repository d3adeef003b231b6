"""What happens where the table of writers is not enough."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    COMMON,
    GEMMA,
    VOCABULARY,
    WIDTH,
    result,
    run,
    same_weights,
    tiny_model,
    tiny_tokenizer,
    weights_of,
)
from transformers import Gemma3nTextConfig, OPTConfig

from heretic_tui.engine import pipeline
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import ModelLoaded, Progress
from heretic_tui.engine.loading import discovery
from heretic_tui.engine.loading.loader import assemble, load, prove
from heretic_tui.engine.model import writers
from heretic_tui.engine.runs.run import Run

HARD = ["llama", "gpt2", "gemma3", "qwen2_moe", "gpt_oss", "bamba", "falcon", "gemma4", "lfm2"]


def known_by_half(architecture, dtype=torch.float32):
    """A model of which only the attention's writers are known, and what the table would have found."""
    model = tiny_model(architecture)
    model.network.to(dtype)
    whole = {writer.weight_name for writer in model.writers}
    model.writers = [writer for writer in model.writers if writer.kind == "attention"]
    return model, whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", HARD)
def test_probing_finds_just_the_writers_that_are_not_known(architecture, dtype, monkeypatch):
    model, whole = known_by_half(architecture, dtype)
    monkeypatch.setattr(writers, "POST_NORMS", ())  # the norms behind them must be found as well
    before = weights_of(model)
    result(prove(model))
    assert {writer.weight_name for writer in model.writers} == whole
    assert (model.facts.leaking, discovery.FOUND in model.facts.writer_kinds) == ([], True)
    assert [writer.layer for writer in model.writers] == sorted(writer.layer for writer in model.writers)
    assert same_weights(model, before)


def test_the_search_tells_how_far_it_is():
    model, _ = known_by_half("llama")
    events, _ = run(prove(model))
    steps = [event for event in events if isinstance(event, Progress)]
    assert {event.phase for event in steps} == {"search for writers"}
    assert [event.done for event in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].done <= steps[-1].total


def test_writers_that_nothing_in_the_layers_accounts_for_still_leak():
    model = leaking_model()
    before = weights_of(model)
    result(prove(model))
    assert model.facts.leaking == [1]
    assert model.facts.leak > 0.02
    assert same_weights(model, before)


def leaking_model():
    """A model with a layer that adds something of its own, which no weight in it makes."""
    model = tiny_model("llama")
    model.layers[1].register_forward_hook(lambda _, __, output: output + torch.linspace(-3, 3, WIDTH))
    return model


def test_a_leak_stops_a_study_before_there_is_a_run(short_profile, tmp_path):
    model = leaking_model()
    result(prove(model))
    with pytest.raises(EngineError, match="Not all that writes into the residual stream") as failure:
        result(pipeline.start_study("tiny", short_profile, "short", tmp_path, given(model)))
    assert "6 writers in 3 layers: attention, MLP; leak 0." in failure.value.cause
    assert "in layers 1." in failure.value.cause
    assert "allow_leak" in failure.value.remedy
    assert not list(tmp_path.iterdir())


def test_weights_packed_in_an_unknown_way_stop_a_study_before_there_is_a_run(short_profile, tmp_path):
    model = tiny_model("llama")
    packed = torch.zeros(WIDTH, WIDTH // 8, dtype=torch.int32)
    model.writers = [replace(writer, weight=packed) for writer in model.writers]
    result(prove(model))
    assert model.facts.leak is None
    with pytest.raises(EngineError, match="packed in a few bits"):
        result(pipeline.start_study("tiny", short_profile, "short", tmp_path, given(model)))
    assert not list(tmp_path.iterdir())


def test_a_leak_that_is_allowed_stops_nothing(short_profile, tmp_path):
    model = leaking_model()
    result(prove(model))
    profile = short_profile.model_copy(update={"allow_leak": True, "n_trials": 1})
    finished = result(pipeline.start_study("tiny", profile, "short", tmp_path, given(model)))
    assert Run(finished.path).model()[0].leaking == [1]


def given(model):
    """A loader that has the model already."""

    def load(_, __):
        yield ModelLoaded(model.facts)
        return model

    return load


def test_loading_a_model_measures_its_leak(tiny_folder, short_profile):
    events, model = run(load(str(tiny_folder), short_profile))
    facts = events[-1].facts
    assert facts == model.facts
    assert facts.coverage == "6 writers in 3 layers: attention, MLP; leak 0.0000"
    assert facts.leak < 1e-6 < 0.05 < facts.write


def test_an_older_run_s_facts_can_still_be_read(study):
    path = study.path / "model.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("writer_kinds", "write", "leak", "leaking"):
        del content["facts"][name]
    path.write_text(json.dumps(content), encoding="utf-8")
    facts = study.model()[0]
    assert facts.coverage == "6 writers in 3 layers: attn.o_proj, mlp.down_proj; leak not measured"


def test_facts_come_back_from_a_run_as_they_were(study):
    facts, settled = study.model()
    study.save_model(replace(facts, leaking=[2], leak=0.5), settled)
    assert study.model()[0] == replace(facts, leaking=[2], leak=0.5)


def test_layers_that_carry_several_streams_are_refused(monkeypatch):
    config = Gemma3nTextConfig(
        **{**GEMMA, "intermediate_size": [64] * 3},
        num_kv_shared_layers=0,
        activation_sparsity_pattern=[0.0] * 3,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY,
        laurel_rank=8,
        altup_num_inputs=2,
    )
    monkeypatch.setitem(ARCHITECTURES, "gemma3n", lambda: config)
    model = tiny_model("gemma3n")
    before = weights_of(model)
    with pytest.raises(EngineError, match="carry 2 residual streams at once"):
        result(prove(model))
    assert same_weights(model, before)


def centred():
    """A model whose post-norms take the mean away and add a bias, as no known one does."""
    network = tiny_model("olmo2").network
    for layer in network.model.layers:
        for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
            norm = torch.nn.LayerNorm(WIDTH)
            norm.weight.data, norm.bias.data = getattr(layer, name).weight.data, torch.linspace(-0.5, 0.5, WIDTH)
            setattr(layer, name, norm)
    return assemble("centred", network.requires_grad_(False), tiny_tokenizer())


def normed_stream(monkeypatch):
    """OPT as its smallest model is: the norms stand behind the additions, in the stream itself."""
    config = OPTConfig(**COMMON, ffn_dim=64, word_embed_proj_dim=WIDTH, do_layer_norm_before=False)
    monkeypatch.setitem(ARCHITECTURES, "opt_post", lambda: config)
    return tiny_model("opt_post")


@pytest.mark.parametrize("which", ["centred", "normed stream"])
def test_norms_that_the_formula_does_not_reach_are_seen_as_a_leak(which, monkeypatch, short_profile, tmp_path):
    model = centred() if which == "centred" else normed_stream(monkeypatch)
    result(prove(model))
    assert model.facts.leaking == [0, 1, 2]
    assert model.facts.leak > 0.02
    with pytest.raises(EngineError, match="Not all that writes into the residual stream"):
        result(pipeline.start_study("tiny", short_profile, "short", tmp_path, given(model)))
