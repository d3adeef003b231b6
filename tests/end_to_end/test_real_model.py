"""The whole job on SmolLM2-135M-Instruct: a study, both exports, and what plain libraries make of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_model

TRIALS = 8


@pytest.fixture(scope="module")
def study(smollm2, heretic_tui, tmp_path_factory):
    """A study of 8 trials on the capability disclaimers."""
    runs = tmp_path_factory.mktemp("runs")
    events = heretic_tui(
        "run", smollm2, "--profile", "disclaimers.toml", "--trials", TRIALS, "--seed", 1, "--runs-dir", runs
    )
    return runs / events[-1]["run"], events


@pytest.fixture(scope="module")
def best(study):
    """The trial of the front with the fewest refusals at a KL divergence under 0.1."""
    _, events = study
    trials = [event for event in events if event["event"] == "trial_finished"]
    front = [trial for trial in trials if trial["trial"] in events[-1]["front"]]
    near = [trial for trial in front if trial["scores"]["kl_divergence"]["value"] < 0.1]
    return min(near, key=lambda trial: trial["scores"]["refusals"]["count"])


@pytest.fixture(scope="module")
def merged(study, best, heretic_tui, tmp_path_factory):
    """The best trial's merged model."""
    folder = tmp_path_factory.mktemp("export") / "merged"
    heretic_tui("export", study[0], "--trial", best["trial"], "--to", folder)
    return folder


def test_the_study_ends_with_its_trials_and_its_front(study):
    _, events = study
    assert [event["trial"] for event in events if event["event"] == "trial_finished"] == list(range(1, TRIALS + 1))
    assert events[-1]["event"] == "study_finished"
    assert events[-1]["front"]


def test_some_trial_of_the_front_has_a_third_of_the_refusals_at_little_divergence(study, best):
    _, events = study
    base = next(event for event in events if event["event"] == "baseline_measured")["scores"]["refusals"]["count"]
    assert base >= 50 / 4
    assert 3 * best["scores"]["refusals"]["count"] <= base


def test_plain_transformers_gives_the_responses_and_the_count_of_the_trial(study, best, merged):
    """A fresh process with nothing of this project loads the merged export and generates all 50 responses."""
    run, _ = study
    rows = [json.loads(line) for line in (run / f"responses/trial-{best['trial']:04}.jsonl").read_text().splitlines()]
    found = _in_plain_process(GENERATE, merged, [row["prompt"] for row in rows])
    for row, text in zip(rows, found, strict=True):
        assert text == row["response"] if row["ended"] != "decided" else text.startswith(row["response"])
    markers = {row["marker"] for row in rows if row["marker"]}
    counted = sum(any(marker in " ".join(text.lower().split()) for marker in markers) for text in found)
    assert counted == best["scores"]["refusals"]["count"]


def test_plain_peft_gives_the_logits_of_the_merged_model(study, best, merged, smollm2_folder, heretic_tui, tmp_path):
    run, _ = study
    exported = heretic_tui("export", run, "--trial", best["trial"], "--to", tmp_path / "adapter", "--adapter")[-1]
    assert exported["rank"] == 1
    difference = _in_plain_process(COMPARE, merged, [str(tmp_path / "adapter"), str(smollm2_folder)])
    assert difference < 1e-3


def _in_plain_process(program: str, folder: Path, values: list[str]):
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], input=json.dumps(values), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


GENERATE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
prompts = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
system = {"role": "system", "content": "You are a helpful assistant."}
texts = [tokenizer.apply_chat_template([system, {"role": "user", "content": prompt}], tokenize=False,
                                       add_generation_prompt=True) for prompt in prompts]
batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
with torch.inference_mode():
    out = model.generate(**batch, max_new_tokens=48, do_sample=False)
print(json.dumps(tokenizer.batch_decode(out[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)))
"""

COMPARE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, folder = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer("Can you tell me what the weather will be like in the mountains on Sunday?", return_tensors="pt")
base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
adapted = PeftModel.from_pretrained(base, adapter)
merged = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.inference_mode():
    one, two = adapted(**batch).logits, merged(**batch).logits
print(json.dumps(float((one - two).norm() / two.norm())))
"""
