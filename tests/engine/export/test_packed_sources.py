"""Checkpoints whose weights are packed in a few bits: what loading unpacks is exported as plain numbers, and told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import COMMON, result, run, same_direction, tiny_network, tiny_tokenizer, unit
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM

from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.checkpoints.origins import UnknownOrigin
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Verified
from heretic_tui.engine.export.merged import REPORT, export_merged
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.loading.outline import outline
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile

KERNEL = Kernel(1.2, 1.0, 0.4, 5.0)
RECORD = TrialRecord(1, AblationParameters(1.3, {ATTENTION: KERNEL, MLP: KERNEL}), {}, 1.0)
FULL = Profile(row_normalization="full")


def packed_gpt_oss(folder):
    """A checkpoint with its experts in MXFP4: blocks of 32 values of 4 bits, and a scale for each."""
    torch.manual_seed(0)
    config = GptOssConfig(
        **{**COMMON, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16},
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
    )
    network = GptOssForCausalLM(config)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(std=0.15) if weights.ndim > 1 else weights.add_(0.3 * torch.randn_like(weights))
    network.to(torch.bfloat16).save_pretrained(folder)
    plain, packed = load_file(folder / "model.safetensors"), {}
    for name, tensor in plain.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            packed[name] = tensor
            continue
        experts, inner, outer = tensor.shape
        packed[f"{name}_blocks"] = torch.randint(0, 256, (experts, outer, inner // 32, 16), dtype=torch.uint8)
        packed[f"{name}_scales"] = torch.randint(122, 125, (experts, outer, inner // 32), dtype=torch.uint8)
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    quantized(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn", "router", "lm_head"]})
    return folder


def packed_llama(folder):
    """A checkpoint with its linear weights in FP8, and a scale for each."""
    tiny_network("llama").to(torch.bfloat16).save_pretrained(folder)
    plain, packed = load_file(folder / "model.safetensors"), {}
    for name, tensor in plain.items():
        if not name.endswith("_proj.weight"):
            packed[name] = tensor
            continue
        packed[name] = (tensor.float() * 100).to(torch.float8_e4m3fn)
        packed[f"{name.removesuffix('weight')}weight_scale_inv"] = torch.full((1, 1), 0.01)
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    quantized(folder, {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"})
    return folder


def quantized(folder, words):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": words}), encoding="utf-8")
    tiny_tokenizer().save_pretrained(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may leave them packed")
@pytest.mark.parametrize(("source", "method"), [(packed_gpt_oss, "mxfp4"), (packed_llama, "fp8")])
def test_unpacked_weights_are_exported_as_plain_numbers_and_that_is_told(source, method, tmp_path):
    folder, out = source(tmp_path / "source"), tmp_path / "out"
    model = result(load(str(folder), FULL))
    directions = same_direction(model, unit(width=model.facts.width))
    with ablated(model, directions, RECORD.parameters, AblationStyle("full")):
        wanted = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    events, _ = run(export_merged(model, directions, RECORD, FULL, out))
    (note,) = (event for event in events if isinstance(event, Note))
    assert f"is packed in its files ({method})" in note.text
    assert "in bfloat16" in note.text
    assert any(isinstance(event, Verified) for event in events)
    report = json.loads((out / REPORT).read_text(encoding="utf-8"))
    assert report["method"] == "plain save"
    assert "quantization_config" not in json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    again, info = AutoModelForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in wanted.items())


def test_a_packed_source_has_no_merge_by_outline(tmp_path):
    folder = packed_gpt_oss(tmp_path / "source")
    model = result(load(str(folder), FULL))
    directions = same_direction(model, unit(width=64))
    with pytest.raises(UnknownOrigin, match="packed in its files"):
        run(export_merged(result(outline(model.facts, str(folder), FULL)), directions, RECORD, FULL, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_packing_that_nothing_here_reads_is_refused_in_words(method, tmp_path):
    folder = tmp_path / "source"
    tiny_network("llama").save_pretrained(folder)
    quantized(folder, {"quant_method": method, "bits": 4, "group_size": 32})
    with pytest.raises(EngineError, match=f"packed.*{method}|{method}.*packed"):
        result(load(str(folder), FULL))
