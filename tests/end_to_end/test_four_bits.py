"""A study of SmolLM2-135M-Instruct in 4 bits, and its export in full, which scores nearly as the trial did."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

pytestmark = pytest.mark.real_model

QUESTION = "Can you tell me what the weather will be like in the mountains on Sunday?"


@pytest.fixture(scope="module")
def study(smollm2_folder, heretic_tui, tmp_path_factory):
    """A study of one trial in 4 bits, by way of the command line; steps are slow in 4 bits, so few are made."""
    runs = tmp_path_factory.mktemp("runs")
    short = ("max_response_length=24", 'scorer.KeywordRate.prompts.split="train[:24]"')
    packed = [part for value in ('quantization="bnb_4bit"', *short) for part in ("--set", value)]
    events = heretic_tui(
        "run", smollm2_folder, "--profile", "disclaimers.toml", "--trials", 1, "--seed", 1, "--runs-dir", runs, *packed
    )
    return runs / events[-1]["run"], events


@pytest.fixture(scope="module")
def best(study):
    """The trial of the front with the fewest refusals."""
    return study[1][-1]["front"][0]


@pytest.fixture(scope="module")
def merged(study, best, heretic_tui, tmp_path_factory):
    """The best trial as a whole model, loaded afresh and measured; its folder and the events."""
    folder = tmp_path_factory.mktemp("export") / "merged"
    return folder, heretic_tui("export", study[0], "--trial", best, "--to", folder, "--verify-scores")


def test_the_model_is_packed_whole_and_nothing_leaks(study):
    facts = next(event for event in study[1] if event["event"] == "model_loaded")["facts"]
    assert (facts["quantization"], facts["dtype"], facts["parameters"]) == ("4 bits", "float32", 134_515_008)
    assert facts["writers"] == {"attn.o_proj": 30, "mlp.down_proj": 30}
    assert facts["leak"] < 1e-5 < 0.01 < facts["write"]


def test_a_trial_in_four_bits_takes_out_what_it_is_asked_to(study, best):
    base = next(event for event in study[1] if event["event"] == "baseline_measured")["scores"]["refusals"]["count"]
    trial = next(event for event in study[1] if event.get("trial") == best and event["event"] == "trial_finished")
    assert 2 * trial["scores"]["refusals"]["count"] <= base


def test_the_export_in_full_has_nearly_the_scores_of_its_trial_and_tells_both(merged):
    folder, events = merged
    told = json.loads((folder / "heretic-tui-export.json").read_text(encoding="utf-8"))["measured"]
    assert (told["trial"]["weights"], told["export"]["weights"]) == ("4 bits", "float32")
    trial, export = told["trial"]["scores"], told["export"]["scores"]
    assert abs(trial["refusals"]["count"] - export["refusals"]["count"]) <= 4
    assert export["kl_divergence"]["value"] == pytest.approx(trial["kl_divergence"]["value"], rel=0.5, abs=0.02)
    assert events[-1]["scores"] == export


def test_the_export_is_the_checkpoint_in_full_with_the_writers_changed(merged, smollm2_folder):
    index, folder = "model.safetensors.index.json", smollm2_folder
    names = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
    assert len(set(names.values())) > 1
    assert (merged[0] / index).read_bytes() == (folder / index).read_bytes()
    changed = set()
    for name, file in names.items():
        with safe_open(folder / file, "pt") as before, safe_open(merged[0] / file, "pt") as after:
            one, other = before.get_tensor(name), after.get_tensor(name)
        assert one.dtype == other.dtype
        if not torch.equal(one, other):
            changed.add(name)
    assert changed
    assert all(name.endswith(("o_proj.weight", "down_proj.weight")) for name in changed)


def test_the_adapter_fits_the_packed_model_and_the_one_in_full(
    study, best, merged, smollm2_folder, heretic_tui, tmp_path
):
    heretic_tui("export", study[0], "--trial", best, "--to", tmp_path / "adapter", "--adapter")
    folder, tokenizer = smollm2_folder, AutoTokenizer.from_pretrained(smollm2_folder)
    batch = tokenizer(QUESTION, return_tensors="pt")
    packed = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )

    def logits(place, adapter=None, **options):
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        with torch.inference_mode():
            return (PeftModel.from_pretrained(model, adapter) if adapter else model)(**batch).logits

    exact, base = logits(merged[0]), logits(folder)
    in_full = logits(folder, tmp_path / "adapter")
    assert (in_full - exact).norm() < 0.3 * (base - exact).norm()
    four, four_base = (logits(folder, adapter, quantization_config=packed) for adapter in (tmp_path / "adapter", None))
    assert (four - four_base).norm() > 0.5 * (base - exact).norm()
