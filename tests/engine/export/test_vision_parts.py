"""Models that see: a merge keeps their vision part byte for byte, also where the loaded class is for text only."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import (
    LLAMA4,
    QWEN3_5,
    WIDTH,
    result,
    run,
    same_direction,
    tiny_network,
    tiny_tokenizer,
    unit,
)
from transformers import (
    AutoModelForImageTextToText,
    Llama4Config,
    Llama4ForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import ablated
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
VISION = {"hidden_size": 32, "depth": 2, "num_heads": 4, "intermediate_size": 48, "out_hidden_size": WIDTH}
TEXT_ONLY = {
    "qwen3_5": lambda: Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(
            text_config=QWEN3_5,
            vision_config={**VISION, "patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
            image_token_id=258,
        )
    ),
    "llama4": lambda: Llama4ForConditionalGeneration(
        Llama4Config(
            text_config=LLAMA4,
            vision_config={
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "image_size": 32,
                "patch_size": 16,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
            image_token_index=258,
        )
    ),
}
"""Models that are loaded as a class for text only, and saved here as the class that sees."""
SEEING = ["gemma3_vision", "gemma4_vision", "mistral3", "qwen2_5_vl"]
"""Models that are loaded as the class that sees."""


def seeing_network(architecture):
    if architecture in SEEING:
        return tiny_network(architecture)
    torch.manual_seed(0)
    network = TEXT_ONLY[architecture]()
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(std=0.15) if weights.ndim > 1 else weights.add_(0.3 * torch.randn_like(weights))
    return network


def checkpoint(folder, architecture):
    seeing_network(architecture).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def stored(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("outlined", [False, True])
@pytest.mark.parametrize("architecture", [*SEEING, *TEXT_ONLY])
def test_the_vision_part_is_kept_and_the_text_part_is_the_trials(architecture, outlined, tmp_path):
    source, out = checkpoint(tmp_path / "source", architecture), tmp_path / "out"
    model = result(load(str(source), FULL))
    assert ("ConditionalGeneration" in model.facts.architecture) == (architecture in SEEING)
    directions = same_direction(model, unit())
    with ablated(model, directions, RECORD.parameters, AblationStyle("full")):
        wanted = {writer.weight_name.rpartition("layers.")[2]: writer.weight.clone() for writer in model.writers}
    if outlined:
        model = result(outline(model.facts, str(source), FULL))
    events, _ = run(export_merged(model, directions, RECORD, FULL, out))
    assert not any(isinstance(event, Note) for event in events)
    (verified,) = (event for event in events if isinstance(event, Verified))
    before, after = stored(source), stored(out)
    assert list(after) == list(before)
    assert verified.tensors == len(before)
    seen = [name for name in before if "vis" in name or "multi_modal" in name]
    assert len(seen) > 20
    assert all(torch.equal(after[name], before[name]) for name in seen)
    assert verified.kept == (0 if architecture in SEEING else len(seen))
    report = json.loads((out / REPORT).read_text(encoding="utf-8"))
    assert report["verification"]["kept"] == (sorted(seen) if verified.kept else [])
    again, info = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    parameters = {
        name.rpartition("layers.")[2]: weights for name, weights in again.named_parameters() if "vis" not in name
    }
    assert all(torch.equal(parameters[name], weights) for name, weights in wanted.items())


@pytest.mark.parametrize("architecture", ["gemma3_vision", "mistral3", "qwen2_5_vl"])
def test_a_configuration_of_the_text_part_alone_is_refused_in_words(architecture, tmp_path):
    source = checkpoint(tmp_path / "source", architecture)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config["text_config"]), encoding="utf-8")
    with pytest.raises(EngineError, match=r"lacks .* of the model's tensors|could not be loaded"):
        result(load(str(source), FULL))
