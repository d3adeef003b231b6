"""Weights of 4 bits: read, ablated at their modules' outputs, put back, written as adapters and as merged models."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import (
    WIDTH,
    result,
    run,
    same_direction,
    same_weights,
    tiny_network,
    tiny_tokenizer,
    unit,
    weights_of,
)
from torch import nn

from heretic_tui.engine.ablation.directions import load_directions, orthonormal
from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import Edit, ablate, ablated, ablated_bias, edited, edits, output_edit
from heretic_tui.engine.chat.conversation import ChatMessage, OfTrial, Original, Sampling, Turn
from heretic_tui.engine.chat.steering import OfLayer, Steered
from heretic_tui.engine.checkpoints.four_bits import is_four_bit
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Evaluated, Verified
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.export.merged import REPORT, export_merged
from heretic_tui.engine.inspection.leak import leak_path, load_leak
from heretic_tui.engine.inspection.measuring import measure_run
from heretic_tui.engine.inspection.reading import Subject, read_tokens
from heretic_tui.engine.loading.coverage import probe
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.model.writers import Writer
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.pipeline import chat, start_study
from heretic_tui.engine.pipeline import export as export_job
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.exports import measured
from heretic_tui.profile.schema import Profile

NORMALIZATIONS = ["none", "pre", "full", "columns"]
KERNEL = Kernel(1.3, 1.0, 0.6, 2.0)
PARAMETERS = AblationParameters(1.0, {"attn.o_proj": KERNEL, "mlp.down_proj": KERNEL})
PROFILE = Profile(quantization="bnb_4bit", dtypes=["float32"])


def saved(folder, architecture, seed=0):
    """A tiny model with its tokenizer as a folder."""
    tiny_network(architecture, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Gives tiny models in 4 bits by architecture and dtype, each loaded once."""
    known = {}

    def get(architecture, dtype="float32"):
        if (architecture, dtype) not in known:
            folder = saved(tmp_path_factory.mktemp(architecture), architecture)
            profile = PROFILE.model_copy(update={"dtypes": [dtype]})
            known[architecture, dtype] = result(load(str(folder), profile))
        return known[architecture, dtype]

    return get


def logits(model, network=None):
    """Logits of a fixed text at every position."""
    with torch.inference_mode():
        return (network or model.network)(**model.tokenizer("U:what is the time?\nA:", return_tensors="pt")).logits


def dequantized_and_edited(model, row_normalization, parameters=PARAMETERS):
    """The logits of plain modules in the place of the packed ones, the edits made in their weights."""
    network, changes = model.network, {}
    for edit in edits(model, same_direction(model, unit()), parameters):
        writer, v = edit.writer, edit.basis
        owner = network.get_submodule(writer.name if writer.packed else writer.name.rpartition(".")[0])
        matrix = ablate(writer.values, v, edit.weight, row_normalization)
        bias = None if writer.bias is None else ablated_bias(writer.bias.float(), v, edit.weight)
        changes[writer.name] = (writer, owner, matrix, bias)
    plain = {}
    kept = []
    for name, (writer, owner, matrix, bias) in changes.items():
        if writer.packed:
            module = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
            module.weight.data = matrix
            if bias is not None:
                module.bias.data = bias
            plain[name] = owner
            network.set_submodule(name, module)
        else:
            kept.append((writer, writer.matrix.clone(), None if bias is None else writer.bias.clone()))
            writer.matrix.copy_(matrix)
            if bias is not None:
                writer.bias.copy_(bias)
    found = logits(model)
    for name, module in plain.items():
        network.set_submodule(name, module)
    for writer, matrix, bias in kept:
        writer.matrix.copy_(matrix)
        if bias is not None:
            writer.bias.copy_(bias)
    return found


# Loading


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "phi", "mixtral", "qwen3_moe", "qwen3_next"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_that_writes_is_found_and_nothing_leaks(loaded, architecture, dtype):
    model = loaded(architecture, dtype)
    assert any(writer.packed for writer in model.writers)
    assert not model.facts.leaking
    assert model.facts.leak < 1e-3 < 0.05 < model.facts.write


def test_a_writer_that_is_missed_leaks(loaded):
    model = loaded("llama")
    assert probe(model, model.writers[1:]).leaking == [0]


def test_parameters_are_counted_by_value(loaded):
    assert loaded("gpt2").facts.parameters == sum(weights.numel() for weights in tiny_network("gpt2").parameters())


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3_moe"])
def test_fused_experts_are_left_as_they_are_and_all_else_is_packed(loaded, architecture):
    model = loaded(architecture)
    assert {(writer.kind, writer.packed) for writer in model.writers} == {("attention", True), ("experts", False)}


def test_the_head_is_left_as_it_is(loaded):
    assert not is_four_bit(loaded("llama").network.get_output_embeddings().weight)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_values_are_near_the_checkpoint_s_and_those_that_a_module_computes_with(loaded, architecture):
    """NF4 is off by 9% for normal weights; rows of 48 are no whole number of blocks of 64 values."""
    stored, model = tiny_network(architecture).state_dict(), loaded(architecture)
    for writer in model.writers:
        weight = stored[writer.weight_name].T if architecture == "gpt2" else stored[writer.weight_name]
        assert 0.05 * weight.norm() < (writer.values - weight).norm() < 0.11 * weight.norm()
        module = model.network.get_submodule(writer.name)
        made = module(torch.eye(weight.shape[1])) - (0.0 if writer.bias is None else writer.bias)
        torch.testing.assert_close(made.T, writer.values, rtol=1e-5, atol=1e-6)


def test_a_processor_with_avx512_bf16_does_not_lay_packed_weights_out_anew(monkeypatch, tmp_path, loaded):
    """There bitsandbytes would do so in a module's first pass, and what is read from the weight later be no values."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = result(load(str(saved(tmp_path, "llama")), PROFILE))
    logits(model)
    for writer, known in zip(model.writers, loaded("llama").writers, strict=True):
        assert not hasattr(model.network.get_submodule(writer.name).weight.quant_state, "packing_format_for_cpu")
        assert torch.equal(writer.values, known.values)


# Ablation


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mixtral", "gpt_oss", "falcon"])
@pytest.mark.parametrize("row_normalization", NORMALIZATIONS)
def test_an_ablation_is_that_of_the_unpacked_weights(loaded, architecture, row_normalization):
    model = loaded(architecture)
    with ablated(model, same_direction(model, unit()), PARAMETERS, AblationStyle(row_normalization)):
        found = logits(model)
    torch.testing.assert_close(found, dequantized_and_edited(model, row_normalization), rtol=1e-4, atol=1e-4)
    assert (found - logits(model)).norm() > 0.01 * found.norm()


@pytest.mark.parametrize("row_normalization", NORMALIZATIONS)
def test_a_subspace_is_taken_out_and_a_zero_row_brings_no_infinities(row_normalization):
    """The operator on an output `W x + b` against the edited weight and bias, with three directions at once."""
    weight = torch.randn(WIDTH, 40, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    bias = torch.linspace(-1, 1, WIDTH)
    writer = Writer("w", "attn.o_proj", "attention", 0, weight, "w.weight", bias, "w.bias", False, None)
    edit = Edit(writer, orthonormal(torch.stack([unit(1), unit(2), unit(3)])), 0.8)
    matrix, changed = edited(edit, weight, bias, row_normalization)
    made = output_edit(edit, row_normalization)
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    y = (x if made.inputs is None else x * made.inputs) @ weight.T
    torch.testing.assert_close(made.of_output(y), x @ matrix.T + changed, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row_normalization", NORMALIZATIONS)
def test_afterwards_everything_is_bit_for_bit_what_it_was(loaded, architecture, dtype, row_normalization):
    model = loaded(architecture, dtype)
    before, weights = logits(model), weights_of(model)
    with ablated(model, same_direction(model, unit()), PARAMETERS, AblationStyle(row_normalization)):
        assert not torch.equal(logits(model), before)
    assert same_weights(model, weights)
    assert torch.equal(logits(model), before)


def test_an_error_within_an_ablation_leaves_nothing_behind(loaded):
    model = loaded("gpt2")
    before = logits(model)
    with pytest.raises(KeyError), ablated(model, same_direction(model, unit()), PARAMETERS):
        raise KeyError
    assert torch.equal(logits(model), before)


# What is refused


def test_a_gguf_file_is_not_packed_in_four_bits(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match="GGUF"):
        result(load(str(tmp_path / "model.gguf"), PROFILE))


def test_weights_that_are_quantized_already_are_not_packed_again(tmp_path):
    folder = saved(tmp_path / "m", "llama")
    config = (folder / "config.json").read_text(encoding="utf-8")
    quantized = config.replace(
        "{", '{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128},', 1
    )
    (folder / "config.json").write_text(quantized, encoding="utf-8")
    with pytest.raises(EngineError, match=r"quantized already \(gptq\)"):
        result(load(str(folder), PROFILE))


# A study, and what is written of it


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder, short_profile):
    """A study of two trials in 4 bits."""
    profile = short_profile.model_copy(update={"quantization": "bnb_4bit", "dtypes": ["float32"], "n_trials": 2})
    runs = tmp_path_factory.mktemp("runs")
    return Run(result(start_study(str(tiny_folder), profile, "short", runs)).path)


def test_a_study_measures_its_trials_and_says_what_the_weights_were(finished):
    facts, _ = finished.model()
    assert (facts.quantization, facts.dtype, facts.leaking) == ("4 bits", "float32", [])
    assert len(finished.records()) == 2
    assert all(record.scores["kl_divergence"].value > 0 for record in finished.records())


def test_the_whole_export_is_the_exact_edit_of_the_checkpoint_s_own_values(finished, tiny_folder, tmp_path):
    events, _ = run(export_job(finished, 1, tmp_path / "out", verify_scores=True))
    (verified,) = (event for event in events if isinstance(event, Verified))
    assert verified.unknown == verified.tied == ()
    stored, written = (load_file(folder / "model.safetensors") for folder in (tiny_folder, tmp_path / "out"))
    assert stored.keys() == written.keys()
    plain = result(load(str(tiny_folder), Profile(dtypes=["float32"])))
    changes = {
        edit.writer.weight_name: edited(edit, edit.writer.matrix, None, finished.profile.row_normalization)[0]
        for edit in edits(plain, load_directions(finished.path / DIRECTIONS), finished.record(1).parameters)
    }
    assert verified.changed == len(changes) > 0
    for name, tensor in written.items():
        assert torch.equal(tensor, changes.get(name, stored[name]))


def test_the_report_tells_both_scores_and_what_each_was_measured_in(finished, tmp_path):
    events, _ = run(export_job(finished, 1, tmp_path / "out", verify_scores=True))
    (found,) = (event for event in events if isinstance(event, Evaluated))
    told = json.loads((tmp_path / "out" / REPORT).read_text(encoding="utf-8"))["measured"]
    assert {name: part["weights"] for name, part in told.items()} == {
        "original": "float32",
        "trial": "4 bits",
        "export": "float32",
    }
    assert told["trial"]["scores"] == finished.record(1).as_json()["scores"]
    assert told["export"]["scores"] == {name: score.as_json() for name, score in found.scores.items()}
    words = measured(found, finished.record(1).scores)
    assert words.startswith("Trial measured in 4 bits: refusals ")
    assert "; export in float32: refusals " in words


def test_a_checkpoint_with_other_weights_is_not_merged_with(finished, tiny_folder, tmp_path):
    """What is in memory must have been made of the files that are edited."""
    model = result(load(str(tiny_folder), finished.profile))
    other = saved(tmp_path / "other", "llama", seed=5)
    model.source, model.stamps = other, {}
    job = export_merged(
        model, load_directions(finished.path / DIRECTIONS), finished.record(1), finished.profile, tmp_path / "out"
    )
    with pytest.raises(EngineError, match=r"packed in 4 bits, and .* is far from what"):
        run(job)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["gpt2", "mixtral", "gemma3", "falcon"])
def test_weights_are_found_in_the_checkpoint_however_they_lie_there(architecture, tmp_path):
    """GPT-2's square matrices lie the other way round; Mixtral's experts lie one by one."""
    folder = saved(tmp_path / "source", architecture)
    directions = None
    written = {}
    for quantization in ("none", "bnb_4bit"):
        model = result(load(str(folder), PROFILE.model_copy(update={"quantization": quantization})))
        directions = same_direction(model, unit())
        record = TrialRecord(1, PARAMETERS, {}, 1.0)
        result(export_merged(model, directions, record, PROFILE, tmp_path / quantization))
        written[quantization] = load_file(tmp_path / quantization / "model.safetensors")
    assert written["none"].keys() == written["bnb_4bit"].keys()
    assert all(torch.equal(tensor, written["bnb_4bit"][name]) for name, tensor in written["none"].items())


@pytest.mark.parametrize("row_normalization", NORMALIZATIONS)
def test_an_adapter_on_the_packed_base_is_the_ablation_within_its_stated_error(loaded, row_normalization, tmp_path):
    model = loaded("llama")
    profile = PROFILE.model_copy(update={"row_normalization": row_normalization, "adapter_error": 1e-3})
    directions = same_direction(model, unit())
    written = result(export_adapter(model, directions, TrialRecord(1, PARAMETERS, {}, 1.0), profile, tmp_path / "a"))
    with ablated(model, directions, PARAMETERS, AblationStyle(row_normalization)):
        exact = logits(model)
    base = result(load(model.name, PROFILE))
    adapted = logits(model, PeftModel.from_pretrained(base.network, tmp_path / "a"))
    assert (adapted - exact).norm() <= (2 * written.error + 1e-5) * exact.norm()
    assert (adapted - logits(model)).norm() > 0.05 * exact.norm()


def test_a_checkpoint_that_is_packed_itself_is_studied_and_given_an_adapter_only(finished, short_profile, tmp_path):
    model = result(load(finished.profile.model, finished.profile))
    model.network.save_pretrained(tmp_path / "packed")
    model.tokenizer.save_pretrained(tmp_path / "packed")
    profile = short_profile.model_copy(update={"dtypes": ["float32"], "n_trials": 1})
    study = Run(result(start_study(str(tmp_path / "packed"), profile, "short", tmp_path / "runs")).path)
    assert study.model()[0].quantization == "4 bits"
    result(export_job(study, 1, tmp_path / "adapter", adapter=True))
    with pytest.raises(EngineError, match="packed in 4 bits"):
        result(export_job(study, 1, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# Chat, steering, inspector


def test_trials_and_steered_answers_are_given_and_nothing_is_left_of_them(finished):
    session = Session()
    model = result(session.load(finished.model_name, finished.profile))
    before = logits(model)
    asked = (ChatMessage("user", "Hello"),)
    turns = [Turn(one, asked) for one in (Original(), OfTrial(1), Steered("added", OfLayer(1), 4.0))]
    job = chat(finished.model_name, finished.profile, finished, turns, Sampling(max_tokens=12), load=session.load)
    texts = [answer.text for answer in result(job)]
    assert len(set(texts)) > 1
    assert torch.equal(logits(model), before)


def test_the_inspector_measures_a_trial_and_reads_its_tokens(finished):
    session = Session()
    for trial in (0, 1):
        result(measure_run(finished, trial, load=session.load))
    original, ablated_once = (load_leak(leak_path(finished, trial)) for trial in (0, 1))
    assert max(original.leak) < 1e-5
    assert original.write != ablated_once.write
    original, trial = result(read_tokens(Subject.of_run(finished), "Hello", (0, 1), load=session.load))
    assert original.pieces == trial.pieces
    assert not np.array_equal(original.streams, trial.streams)
