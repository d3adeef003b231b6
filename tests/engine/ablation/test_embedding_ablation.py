"""Embeddings ablated with the writers: nothing along the direction is left, live, exported and loaded again."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import (
    ARCHITECTURES,
    CONFIGS,
    result,
    run,
    same_direction,
    same_weights,
    tiny_model,
    tiny_network,
    tiny_tokenizer,
    unit,
    weights_of,
)
from transformers import AutoModelForCausalLM, LlamaConfig

from heretic_tui.engine import pipeline
from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import AblationStyle, style_of
from heretic_tui.engine.ablation.weight_edits import ablated, edits
from heretic_tui.engine.background import in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Verified
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.export.merged import REPORT, export_merged
from heretic_tui.engine.inspection.reading import streams
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.parameters import EMBEDDINGS, AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.storage.space import suggest
from heretic_tui.profile.schema import Profile

FULL = Kernel(1.0, 0.0, 1.0, 9.0)
ALL = AblationParameters(1.0, {"attn.o_proj": FULL, "mlp.down_proj": FULL, EMBEDDINGS: Kernel.of_embeddings(1.0)})
TRIED = {"attn.o_proj": Kernel(1.2, 1.0, 0.4, 1.5), EMBEDDINGS: Kernel.of_embeddings(0.7)}
RECORD = TrialRecord(1, AblationParameters(1.3, TRIED), {}, 1.0)
WITH = AblationStyle(embeddings=True)
PROFILE = Profile(row_normalization="none", ablate_embeddings=True)
NORMED = {"bloom"}
"""A norm with a bias of its own stands behind the embeddings."""
TIED = [name for name in CONFIGS if tiny_model(name).embeddings[0].tied]
UNTIED = [name for name in CONFIGS if name not in TIED]


def share_along(model, v):
    """The largest |stream . v| / |stream| at any position and row: the embeddings and after every layer."""
    found = streams(model, "U:Where do rivers come from?\nA:").double()
    return float(((found @ v.double()).abs() / found.norm(dim=-1)).max())


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in NORMED])
@pytest.mark.parametrize("row_normalization", ["none", "columns"])
def test_the_stream_itself_has_no_component_along_a_direction_that_is_ablated_everywhere(
    architecture, row_normalization
):
    model, v = tiny_model(architecture), unit()
    before = weights_of(model)
    assert share_along(model, v) > 0.05
    with ablated(model, same_direction(model, v), ALL, AblationStyle(row_normalization)):
        assert share_along(model, v) > 0.01
    with ablated(model, same_direction(model, v), ALL, AblationStyle(row_normalization, embeddings=True)):
        assert share_along(model, v) < 2e-6
    assert same_weights(model, before)


@pytest.mark.parametrize("share", [0.4, 1.0, 1.3])
def test_every_embedding_loses_its_component_and_nothing_else(share):
    model, v = tiny_model(), unit()
    rows = model.network.get_input_embeddings().weight.double().clone()
    parameters = AblationParameters(1.0, {EMBEDDINGS: Kernel.of_embeddings(share)})
    with ablated(model, same_direction(model, v), parameters, WITH):
        edited = model.network.get_input_embeddings().weight.double()
        expected = rows - share * torch.outer(rows @ v.double(), v.double())
        torch.testing.assert_close(edited, expected, rtol=0, atol=1e-7)


def test_columns_keep_the_length_of_every_embedding():
    model = tiny_model()
    before = model.network.get_input_embeddings().weight.norm(dim=1)
    with ablated(model, same_direction(model, unit()), ALL, AblationStyle("columns", embeddings=True)):
        torch.testing.assert_close(model.network.get_input_embeddings().weight.norm(dim=1), before)


def test_without_the_setting_a_kernel_for_embeddings_edits_nothing():
    model = tiny_model()
    assert EMBEDDINGS not in {edit.writer.component for edit in edits(model, same_direction(model, unit()), ALL)}


def test_a_choice_of_components_and_layers_leaves_the_embeddings_alone():
    model = tiny_model()
    style = AblationStyle(components=("mlp.down_proj",), layers=(2,), embeddings=True)
    found = edits(model, same_direction(model, unit()), ALL, style)
    assert [edit.writer.name for edit in found] == ["model.layers.2.mlp.down_proj", "model.embed_tokens"]


def test_where_every_layer_has_its_own_direction_embeddings_take_that_of_layer_0():
    """Row 0 is that of the last prompt token's embedding, which is the same in both sets."""
    model = tiny_model()
    rows = torch.stack([torch.zeros(len(unit())), *(unit(seed) for seed in range(3))])
    parameters = AblationParameters(None, {EMBEDDINGS: Kernel.of_embeddings(1.0)})
    (edit,) = edits(model, Directions(rows, rows, rows), parameters, WITH)
    assert torch.equal(edit.basis, unit(0)[None])


def test_learned_positions_are_ablated_with_the_tokens():
    assert [writer.name for writer in tiny_model("gpt2").embeddings] == ["transformer.wte", "transformer.wpe"]
    assert [writer.kind for writer in tiny_model("opt").embeddings] == ["embeddings", "position embeddings"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_embeddings_of_every_architecture_are_found_and_no_other_towers(architecture):
    model = tiny_model(architecture)
    table = model.network.get_input_embeddings().weight
    assert any(writer.weight is table for writer in model.embeddings)
    assert not any("vision" in writer.name or "visual" in writer.name for writer in model.embeddings)


# The search


def test_one_weight_is_sampled_for_the_embeddings_and_it_reaches_zero():
    import optuna

    trial = optuna.trial.FixedTrial(
        {"direction_scope": "global", "direction_index": 1.0, f"{EMBEDDINGS}.max_weight": -0.1}
    )
    kernel = suggest(trial, [EMBEDDINGS], 2).kernels[EMBEDDINGS]
    found = trial.distributions[f"{EMBEDDINGS}.max_weight"]
    assert (found.low, found.high) == (-0.25, 1.5)
    assert kernel.weight(-1) == 0.0
    assert len(trial.distributions) == 3


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.5])
def test_the_kernel_of_embeddings_weighs_nothing_in_any_layer(weight):
    kernel = Kernel.of_embeddings(weight)
    assert [kernel.weight(layer) for layer in range(-1, 4)] == [weight, 0, 0, 0, 0]


# Exports


def checkpoint(folder, architecture, dtype=torch.float32):
    tiny_network(architecture).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder):
    return result(Session().load(str(folder), Profile()))


def held(model, directions, parameters, profile):
    """The weights while a trial is measured; in a thread like the export's, for sums depend on how many share them."""

    def inside(_):
        with ablated(model, directions, parameters, style_of(profile)):
            return weights_of(model)

    return result(in_background(inside))


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalization", ["none", "full"])
def test_a_merge_reloads_as_the_trial_was_with_head_and_embeddings_tied_or_not(
    tmp_path, architecture, dtype, normalization
):
    model = loaded(checkpoint(tmp_path / "source", architecture, dtype))
    profile = PROFILE.model_copy(update={"row_normalization": normalization})
    expected = held(model, same_direction(model, unit()), RECORD.parameters, profile)
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, profile, tmp_path / "out"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(again.state_dict()[name], weights) for name, weights in expected.items())
    (verified,) = (event for event in events if isinstance(event, Verified))
    report = json.loads((tmp_path / "out" / REPORT).read_text(encoding="utf-8"))
    assert report["method"] == "merge of the source's files"
    changed = report["verification"]["changed"]
    tables = [name for name in changed if name.endswith(("embed_tokens.weight", "wte.weight"))]
    assert len(tables) == 1
    assert verified.changed + verified.identical == verified.tensors


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_plain_save_reloads_as_the_trial_was(tmp_path, architecture):
    model = tiny_model(architecture)
    expected = held(model, same_direction(model, unit()), RECORD.parameters, PROFILE)
    result(export_merged(model, same_direction(model, unit()), RECORD, PROFILE, tmp_path / "out"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert all(torch.equal(again[name], weights) for name, weights in expected.items())


def test_a_tied_head_that_the_source_stores_as_well_is_written_under_both_names(tmp_path):
    source = tmp_path / "source"
    config = LlamaConfig(**{**tiny_network("llama").config.to_dict(), "tie_word_embeddings": True})
    AutoModelForCausalLM.from_config(config).save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    model = loaded(source)
    expected = held(model, same_direction(model, unit()), RECORD.parameters, PROFILE)
    result(export_merged(model, same_direction(model, unit()), RECORD, PROFILE, tmp_path / "out"))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["model.embed_tokens.weight"], expected["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], expected["lm_head.weight"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert all(torch.equal(again[name], weights) for name, weights in expected.items())


@pytest.mark.parametrize("architecture", TIED)
def test_tied_embeddings_are_refused_as_an_adapter(tmp_path, architecture):
    model = tiny_model(architecture)
    for writer in model.writers:  # those of GPT-2 have biases, which are refused before
        object.__setattr__(writer, "bias", None)
    with pytest.raises(EngineError, match="output head"):
        result(export_adapter(model, same_direction(model, unit()), RECORD, PROFILE, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", UNTIED)
@pytest.mark.parametrize("normalization", ["none", "pre"])
def test_an_adapter_gives_the_logits_of_the_trial(tmp_path, architecture, normalization):
    model = loaded(checkpoint(tmp_path / "source", architecture))
    profile = PROFILE.model_copy(update={"row_normalization": normalization})
    directions, ids = same_direction(model, unit()), torch.tensor([[70, 71, 72, 73]])
    with (
        torch.inference_mode(),
        ablated(model, directions, RECORD.parameters, AblationStyle(normalization, embeddings=True)),
    ):
        expected = model.network(input_ids=ids).logits
    written = result(export_adapter(model, directions, RECORD, profile, tmp_path / "adapter"))
    assert (written.rank, written.error) == (1, 0.0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "source")
    with torch.inference_mode():
        plain = base(input_ids=ids).logits
        found = PeftModel.from_pretrained(base, tmp_path / "adapter")(input_ids=ids).logits
    assert (plain - expected).norm() > 0.01 * expected.norm()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# A study from end to end


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_a_study_samples_the_embeddings_says_what_is_tied_and_its_export_is_the_trial(
    architecture, short_profile, tmp_path
):
    source = checkpoint(tmp_path / architecture, architecture)
    profile = short_profile.model_copy(update={"n_trials": 3, "max_response_length": 4, "ablate_embeddings": True})
    events, finished = run(pipeline.start_study(str(source), profile, "short", tmp_path / "runs"))
    notes = [event.text for event in events if isinstance(event, Note) and "output head" in event.text]
    assert len(notes) == (architecture in TIED)
    study = Run(finished.path)
    assert [list(record.parameters.kernels)[-1] for record in study.records()] == [EMBEDDINGS] * 3
    result(pipeline.export(study, 1, tmp_path / "out"))
    assert "embeddings too" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    model = loaded(source)
    directions = pipeline.load_directions(study.path / pipeline.DIRECTIONS)
    expected = held(model, directions, study.record(1).parameters, profile)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert all(torch.equal(again[name], weights) for name, weights in expected.items())


def test_a_model_whose_embeddings_are_narrower_than_its_stream_is_refused(short_profile):
    model = tiny_model("opt")
    model.embeddings = []
    with pytest.raises(EngineError, match="embeddings"):
        pipeline.check_coverage(model, short_profile.model_copy(update={"ablate_embeddings": True}))
