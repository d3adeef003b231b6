"""The streaming merge against the source's files, and against an independent computation of the edits."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, PAD, result, run, same_direction, tiny_network, tiny_tokenizer, unit
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, Qwen3MoeConfig

from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import Edit, ablated
from heretic_tui.engine.checkpoints.origins import assemble, origins, take_apart
from heretic_tui.engine.checkpoints.weight_files import INDEX, read, spans, weight_files
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Verified
from heretic_tui.engine.export.merged import REPORT, export_merged
from heretic_tui.engine.export.merging import plan, verify_merge, write_merge
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.model.writers import EXPERTS
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile

RECORD = TrialRecord(
    1,
    AblationParameters(1.3, {"attn.o_proj": Kernel(1.2, 1.0, 0.4, 1.5), "mlp.down_proj": Kernel(0.7, 2.0, 0.1, 1.0)}),
    {},
    1.0,
)
FULL = Profile(row_normalization="full")


def checkpoint(folder, network, shard="60KB", extra=None):
    """A checkpoint of several shards, with a tokenizer, side files, and a tensor that no class knows."""
    network.save_pretrained(folder, max_shard_size=shard)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "LICENSE").write_text("Do as you like.\n", encoding="utf-8")
    (folder / "README.md").write_text("# The source\n", encoding="utf-8")
    (folder / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    save_file(extra or {"mtp.layers.0.weight": torch.arange(6.0).half()}, folder / "model-mtp.safetensors")
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"] |= dict.fromkeys(extra or ["mtp.layers.0.weight"], "model-mtp.safetensors")
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder


def loaded(folder, **settings):
    return result(Session().load(str(folder), Profile(**settings)))


def tensors_of(folder):
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("sources") / "llama", tiny_network("llama"))


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalization", ["full", "columns"])
def test_only_the_edited_tensors_differ_from_the_source_and_they_are_the_trials(
    tmp_path, architecture, dtype, normalization
):
    source = checkpoint(tmp_path / "source", tiny_network(architecture).to(dtype))
    model = loaded(source)
    directions, before = same_direction(model, unit()), tensors_of(source)
    with ablated(model, directions, RECORD.parameters, AblationStyle(normalization)):
        expected = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    profile = Profile(row_normalization=normalization)
    events, _ = run(export_merged(model, directions, RECORD, profile, tmp_path / "out"))
    after = tensors_of(tmp_path / "out")
    assert list(after) == list(before)
    assert {name: tensor.dtype for name, tensor in after.items()} == {name: t.dtype for name, t in before.items()}
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    (verified,) = (event for event in events if isinstance(event, Verified))
    assert (
        len(changed)
        == verified.changed
        == sum(
            not torch.equal(expected[name], tensor)
            for name, tensor in model.network.state_dict(keep_vars=True).items()
            if name != "lm_head.weight"
        )
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    assert not any(isinstance(event, Note) for event in events)


def test_with_no_edit_every_weight_file_and_the_index_are_the_sources_bytes(source, tmp_path):
    model = loaded(source)
    merge = plan(model, [], tmp_path, None, None)
    verify_merge(merge, write_merge(model, merge, "full", lambda _: None), lambda _: None)
    for file in weight_files(source):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_side_files_come_along_and_the_card_is_kept_beside_ours(source, tmp_path):
    model = loaded(source)
    result(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.name != "README.md":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "out" / "README.source.md").read_text(encoding="utf-8") == "# The source\n"
    assert "Made by directional ablation" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_report_names_what_was_changed_and_no_place_on_this_machine(source, tmp_path):
    model = loaded(source)
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    (verified,) = (event for event in events if isinstance(event, Verified))
    text = (tmp_path / "out" / REPORT).read_text(encoding="utf-8")
    report = json.loads(text)
    assert report["method"] == "merge of the source's files"
    assert len(report["verification"]["changed"]) == verified.changed
    assert all("o_proj" in name or "down_proj" in name for name in report["verification"]["changed"])
    assert str(tmp_path) not in text
    assert str(source.parent) not in text


@pytest.mark.parametrize("shard", [None, "50KB", "1GB"])
def test_a_cast_and_other_shards_keep_every_tensor(source, tmp_path, shard):
    model = loaded(source)
    to = tmp_path / "out"
    result(
        export_merged(model, same_direction(model, unit()), RECORD, FULL, to, dtype="bfloat16", max_shard_size=shard)
    )
    before, after = tensors_of(source), tensors_of(to)
    assert after.keys() == before.keys()
    assert after["mtp.layers.0.weight"].dtype == torch.float16  # not the source's main data type, so it keeps its own
    untouched = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(after[untouched], before[untouched].bfloat16())
    files = [file.name for file in weight_files(to)]
    if shard is None:
        assert files == [file.name for file in weight_files(source)]
    else:
        assert (files == ["model.safetensors"]) == (shard == "1GB")
    assert AutoModelForCausalLM.from_pretrained(to, dtype="auto").dtype == torch.bfloat16
    for file in weight_files(to):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() is not None or shard is None


MOE = {
    "vocab_size": 260,
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "num_experts_per_tok": 2,
}
FUSED = {
    "mixtral": MixtralConfig(**MOE, num_local_experts=12),
    "qwen3_moe": Qwen3MoeConfig(**MOE, moe_intermediate_size=24, num_experts=12, head_dim=12),
    "gpt_oss": GptOssConfig(**MOE, num_local_experts=4, head_dim=12),
}


@pytest.mark.parametrize("architecture", FUSED)
@pytest.mark.parametrize("normalization", ["none", "columns"])
def test_fused_experts_are_edited_where_they_lie_one_by_one(tmp_path, architecture, normalization):
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(FUSED[architecture])
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_()
    source = checkpoint(tmp_path / "source", network, shard="100KB")
    model = loaded(source)
    turned = architecture == "gpt_oss"  # (expert, in, out); the others lie (expert, out, in)
    edits = [Edit(writer, unit(writer.layer)[None], 0.9) for writer in model.writers if writer.kind == EXPERTS]
    assert len(edits) == 2
    out = tmp_path / "out"
    out.mkdir()
    merge = plan(model, edits, out, None, None)
    found = verify_merge(merge, write_merge(model, merge, normalization, lambda _: None), lambda _: None)
    shutil.copyfile(source / INDEX, out / INDEX)
    before, after = tensors_of(source), tensors_of(out)
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in before.items()}
    assert set(found.changed) == {name for name in before if not torch.equal(before[name], after[name])}
    assert len(found.changed) == (2 * 2 if turned else 2 * 12)
    for layer in range(2):
        v = unit(layer).double()
        remove = torch.eye(48, dtype=torch.float64) - 0.9 * torch.outer(v, v)
        for name in found.changed:
            if f"layers.{layer}." not in name:
                continue
            old = before[name].double()
            expected = old @ remove if turned else remove @ old
            if normalization == "columns" and not name.endswith("bias"):
                inputs = -1 if turned else -2  # what is summed over for the norm of an input's column
                expected *= old.norm(dim=inputs, keepdim=True) / expected.norm(dim=inputs, keepdim=True)
            torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-5)


def test_the_origin_of_a_parameter_gives_it_and_is_given_back(tmp_path):
    network = AutoModelForCausalLM.from_config(FUSED["qwen3_moe"])
    source = checkpoint(tmp_path / "source", network)
    network = AutoModelForCausalLM.from_pretrained(source)
    stored = {span.name: span for file in weight_files(source) for span in spans(file)}
    found = origins(network, stored)
    experts = network.model.layers[1].mlp.experts.down_proj
    origin = found["model.layers.1.mlp.experts.down_proj"]
    assert origin.names == tuple(f"model.layers.1.mlp.experts.{expert}.down_proj.weight" for expert in range(12))
    parts = [read(stored[name]) for name in origin.names]
    assert torch.equal(assemble(network, origin, parts), experts)
    assert all(torch.equal(one, other) for one, other in zip(take_apart(network, origin, experts), parts, strict=True))


def test_other_names_on_disk_than_in_memory_are_followed(tmp_path):
    source = checkpoint(tmp_path / "source", tiny_network("gpt2"))
    for file in weight_files(source):  # as the hub has GPT-2: without the prefix of the class with a head
        save_file({name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}, file)
    index = json.loads((source / INDEX).read_text(encoding="utf-8"))
    index["weight_map"] = {name.removeprefix("transformer."): file for name, file in index["weight_map"].items()}
    (source / INDEX).write_text(json.dumps(index), encoding="utf-8")
    model = loaded(source)
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    assert not any(isinstance(event, Note) for event in events)
    assert tensors_of(tmp_path / "out").keys() == tensors_of(source).keys()


def test_a_weight_that_the_source_does_not_give_is_said_and_the_model_is_saved_plainly(source, tmp_path):
    model = loaded(source)
    with torch.no_grad():
        model.layers[1].self_attn.o_proj.weight[0, 0] += 1
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    (note,) = (event for event in events if isinstance(event, Note))
    assert "o_proj.weight in memory is not what" in note.text
    (verified,) = (event for event in events if isinstance(event, Verified))
    assert verified.unknown == ("mtp.layers.0.weight",)
    assert json.loads((tmp_path / "out" / REPORT).read_text(encoding="utf-8"))["method"] == "plain save"


def test_a_plain_save_tells_tied_tensors_from_unknown_ones(tmp_path):
    network = tiny_network("gpt2")
    head = {"lm_head.weight": network.lm_head.weight.clone(), "mtp.weight": torch.ones(2)}
    model = loaded(checkpoint(tmp_path / "source", network, extra=head))
    with torch.no_grad():
        model.writers[0].weight[0, 0] += 1
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    (verified,) = (event for event in events if isinstance(event, Verified))
    assert (verified.tied, verified.unknown) == (("lm_head.weight",), ("mtp.weight",))


# Verification


def bytes_at(span, change):
    with span.file.open("r+b") as file:
        file.seek(span.begin)
        data = bytearray(file.read(1))
        file.seek(span.begin)
        file.write(bytes([data[0] ^ change]))


@pytest.mark.parametrize("part", ["embed_tokens", "o_proj", "mtp"])
def test_one_wrong_bit_anywhere_is_found(source, tmp_path, part):
    model = loaded(source)
    merge = plan(model, [], tmp_path, None, None)
    merged = write_merge(model, merge, "full", lambda _: None)
    bytes_at(next(to for sheet in merge.sheets for _, to in sheet.moves if part in to.name), 1)
    with pytest.raises(EngineError, match=f"{part}.* is not what was computed"):
        verify_merge(merge, merged, lambda _: None)


def test_a_tensor_too_many_or_too_few_is_found(source, tmp_path):
    model = loaded(source)
    merge = plan(model, [], tmp_path, None, None)
    merged = write_merge(model, merge, "full", lambda _: None)
    save_file({"mtp.layers.0.weight": torch.arange(6.0).half(), "more": torch.ones(1)}, merge.sheets[-1].file)
    with pytest.raises(EngineError, match="holds more"):
        verify_merge(merge, merged, lambda _: None)
    save_file({}, merge.sheets[-1].file)
    with pytest.raises(EngineError, match=r"lacks mtp\.layers"):
        verify_merge(merge, merged, lambda _: None)


# The source


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_source_that_has_changed_since_it_was_loaded_is_said(source, tmp_path, when):
    copy = shutil.copytree(source, tmp_path / "source")
    model = loaded(copy)
    job = export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out")
    if when == "during":
        next(job)
    (copy / "model-mtp.safetensors").write_bytes((source / "model-mtp.safetensors").read_bytes() + b"")
    with pytest.raises(EngineError, match=r"model-mtp.safetensors has changed since the model was loaded"):
        run(job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("to", ["source", "."])
def test_the_source_is_never_replaced(source, tmp_path, to):
    copy = shutil.copytree(source, tmp_path / "source")
    model = loaded(copy)
    with pytest.raises(EngineError, match="never replaces"):
        run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / to))
    assert tensors_of(copy).keys() == tensors_of(source).keys()
