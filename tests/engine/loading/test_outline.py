"""A merge of an outlined model, whose weights have stayed on disk, is the merge of the loaded one."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, result, run, same_direction, tiny_network, tiny_tokenizer, unit

from heretic_tui.engine import pipeline
from heretic_tui.engine.checkpoints.origins import UnknownOrigin
from heretic_tui.engine.events import ModelLoaded, Note, Verified
from heretic_tui.engine.export.merged import export_merged
from heretic_tui.engine.loading import loader
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.loading.outline import outline
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile

KERNEL = Kernel(1.2, 1.0, 0.4, 5.0)
RECORD = TrialRecord(1, AblationParameters(1.3, {ATTENTION: KERNEL, MLP: KERNEL}), {}, 1.0)
FULL = Profile(row_normalization="full")


def checkpoint(folder, architecture, dtype=torch.float32):
    tiny_network(architecture).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_architecture_is_merged_alike_whether_loaded_or_outlined(architecture, dtype, tmp_path):
    source = checkpoint(tmp_path / "source", architecture, getattr(torch, dtype))
    profile = FULL.model_copy(update={"dtypes": [dtype]})
    loaded = result(load(str(source), profile))
    outlined = result(outline(loaded.facts, str(source), profile))
    assert outlined.outlined and not loaded.outlined
    assert outlined.facts == loaded.facts
    assert all(weights.is_meta for weights in outlined.network.parameters() if weights.ndim > 1)
    directions = same_direction(loaded, unit())
    for model, to in ((loaded, "loaded"), (outlined, "outlined")):
        events, _ = run(export_merged(model, directions, RECORD, profile, tmp_path / to))
        (verified,) = (event for event in events if isinstance(event, Verified))
        assert verified.changed >= 6
    for path in (tmp_path / "loaded").iterdir():
        assert (tmp_path / "outlined" / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_export_with_an_outline_loads_no_weights(study, tmp_path):
    unused = partial(pytest.fail, "the model was loaded")
    events, exported = run(pipeline.export(study, 1, tmp_path / "out", load=unused, outline=outline))
    assert not any(isinstance(event, ModelLoaded) for event in events)
    assert any(isinstance(event, Note) and "stay on disk" in event.text for event in events)
    result(pipeline.export(study, 1, tmp_path / "whole"))
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert exported.form == "merged"


def test_a_session_gives_the_model_that_it_holds_and_keeps_no_outline(study, tmp_path):
    session = Session()
    result(pipeline.export(study, 1, tmp_path / "one", load=session.load, outline=session.outline))
    assert session.model is None
    model = result(session.load(study.model_name, study.profile))
    assert result(session.outline(model.facts, study.model_name, study.profile)) is model


def test_an_adapter_is_made_of_the_loaded_weights(study, tmp_path):
    _, exported = run(pipeline.export(study, 1, tmp_path / "out", adapter=True, outline=outline))
    assert exported.form == "adapter"


def test_the_scores_of_an_outlined_export_are_measured_on_the_loaded_one(study, tmp_path):
    events, _ = run(pipeline.export(study, 2, tmp_path / "out", verify_scores=True, outline=outline))
    assert [event for event in events if isinstance(event, ModelLoaded)]


def test_where_the_files_do_not_tell_enough_the_model_is_loaded(study, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "find_writers", partial(_without_mlp, loader.find_writers))
    events, _ = run(pipeline.export(study, 1, tmp_path / "out", outline=outline))
    assert any(isinstance(event, Note) and "not all of its writers" in event.text for event in events)
    (loaded,) = (event for event in events if isinstance(event, ModelLoaded))
    assert "found by probing" in loaded.facts.writer_kinds
    assert any(isinstance(event, Verified) for event in events)


def _without_mlp(find, *arguments):
    return [writer for writer in find(*arguments) if writer.component == ATTENTION]


def test_a_tensor_of_another_shape_than_the_class_has_is_not_merged(tmp_path):
    source = checkpoint(tmp_path / "source", "llama")
    facts = result(load(str(source), FULL)).facts
    file = source / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.self_attn.o_proj.weight"
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, file, {"format": "pt"})
    model = result(outline(facts, str(source), FULL))
    with pytest.raises(UnknownOrigin, match="is not what"):
        run(export_merged(model, same_direction(model, unit()), RECORD, FULL, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_pickled_weights_have_no_outline(tmp_path):
    source = checkpoint(tmp_path / "source", "llama")
    facts = result(load(str(source), FULL)).facts
    (source / "model.safetensors").unlink()
    with pytest.raises(UnknownOrigin, match="safetensors"):
        result(outline(facts, str(source), FULL))


def test_a_configuration_that_nobody_knows_has_no_outline(tmp_path):
    source = checkpoint(tmp_path / "source", "llama")
    facts = result(load(str(source), FULL)).facts
    (source / "config.json").write_text(json.dumps({"model_type": "nothing-known"}), encoding="utf-8")
    with pytest.raises(UnknownOrigin, match="nothing-known"):
        result(outline(facts, str(source), FULL))
