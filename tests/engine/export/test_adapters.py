"""An adapter, loaded by plain PEFT on the original model, is the trial: in every weight, every bias and the logits."""

import json

import pytest
import torch
from peft import PeftModel
from tiny_models import ARCHITECTURES, result, run, same_direction, tiny_model, tiny_network, unit

from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.events import Note
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile

EVERYWHERE = Kernel(1.2, 1.0, 0.4, 5.0)
RECORD = TrialRecord(1, AblationParameters(None, {ATTENTION: EVERYWHERE, MLP: EVERYWHERE}), {}, 1.0)
FUSED = [
    "llama4",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "gpt_oss",
    "deepseek_v3",
    "qwen3_next",
    "granite_hybrid",
    "gemma4_moe",
]
IDS = torch.tensor([list(b"U:what is the capital of France?\nA:")])


def logits(network):
    with torch.inference_mode():
        return network(input_ids=IDS, use_cache=False).logits.double()


def exported(architecture, folder, **settings):
    """What the adapter's export says, and the logits and weights of the original and of the ablated model."""
    model, profile = tiny_model(architecture), Profile(**settings)
    directions = same_direction(model, unit())
    written = result(export_adapter(model, directions, RECORD, profile, folder))
    before = logits(model.network)
    with ablated(model, directions, RECORD.parameters, AblationStyle(profile.row_normalization)):
        ablated_weights = {name: weights.clone() for name, weights in model.network.state_dict().items()}
        after = logits(model.network)
    return model, written, before, after, ablated_weights


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_peft_makes_the_ablated_model_of_the_original_one(architecture, tmp_path):
    _, written, before, after, weights = exported(architecture, tmp_path / "out", row_normalization="none")
    assert (written.rank, written.error) == (1, 0.0)
    adapted = PeftModel.from_pretrained(tiny_network(architecture), tmp_path / "out")
    size = (after - before).norm()
    assert size > 1
    assert (logits(adapted) - after).norm() < 1e-5 * size
    merged = adapted.merge_and_unload()
    assert (logits(merged) - after).norm() < 1e-5 * size
    for name, found in merged.state_dict().items():
        torch.testing.assert_close(found, weights[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("architecture", [*FUSED, "llama", "gpt2"])
@pytest.mark.parametrize("normalization", ["full", "columns"])
def test_every_weight_of_an_approximate_adapter_is_within_the_stated_error(architecture, normalization, tmp_path):
    settings = {"row_normalization": normalization, "adapter_error": 0.02}
    model, written, before, after, weights = exported(architecture, tmp_path / "out", **settings)
    assert written.rank > 1
    assert 0 < written.error <= 0.02
    adapted = PeftModel.from_pretrained(tiny_network(architecture), tmp_path / "out")
    # The errors of several weights add up; and at single positions a router may choose another expert.
    off = (logits(adapted) - after).norm(dim=-1) / (after - before).norm(dim=-1)
    assert off.median() < 3 * 0.02
    found, worst = adapted.merge_and_unload().state_dict(), 0.0
    original = model.network.state_dict()
    for writer in model.writers:
        name = writer.weight_name
        for made, wanted, old in zip(*(_matrices(state[name]) for state in (found, weights, original)), strict=True):
            worst = max(worst, float((made - wanted).norm() / (wanted - old).norm()))
    assert worst == pytest.approx(written.error, rel=1e-2)


def _matrices(weights):
    return weights.double() if weights.ndim == 3 else weights.double()[None]


@pytest.mark.parametrize("architecture", ["gpt2", "phi"])
def test_an_adapter_that_carries_biases_with_its_factors_can_be_switched_off(architecture, tmp_path):
    _, _, before, _, _ = exported(architecture, tmp_path / "out", row_normalization="none")
    adapted = PeftModel.from_pretrained(tiny_network(architecture), tmp_path / "out")
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), before)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))["lora_bias"] is True


def test_a_fixed_rank_is_kept_and_its_error_said(tmp_path):
    settings = {"row_normalization": "full", "full_normalization_lora_rank": 2}
    _, written, *_ = exported("qwen3_moe", tmp_path / "out", **settings)
    assert written.rank == 2
    assert 0.02 < written.error < 1


def test_an_adapter_that_replaces_biases_says_so(tmp_path):
    for architecture, told in (("gpt_oss", True), ("gpt2", False), ("mixtral", False)):
        model = tiny_model(architecture)
        events, _ = run(
            export_adapter(model, same_direction(model, unit()), RECORD, Profile(), tmp_path / architecture)
        )
        notes = [event.text for event in events if isinstance(event, Note)]
        assert [("3 biases" in note) for note in notes] == [True] * told
