"""What is left out and what comes in, through the whole chain on the demo model, whose output head is tied."""

import json
import subprocess
import sys

import pytest

LAYERS = (2, 3, 4, 5)
SETTINGS = ("ablated_layers=2-5", 'ablated_components=["attn.o_proj"]', "ablate_embeddings=true")
CHOICE = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def chosen(heretic_tui, tmp_path_factory):
    """A demo study of three trials of attention in four layers and of the embeddings; its folder, events and export."""
    folder = tmp_path_factory.mktemp("chosen")
    events = heretic_tui("demo", "--runs-dir", folder / "runs", "--trials", 3, *CHOICE, "--to", folder / "model")
    finished = next(event for event in events if event["event"] == "study_finished")
    return folder, folder / "runs" / finished["run"], events


def one(events, kind):
    return next(event for event in events if event["event"] == kind)


def test_trials_have_weights_for_what_was_chosen_alone_and_peaks_inside_the_layers(chosen):
    trials = [event for event in chosen[2] if event["event"] == "trial_finished"]
    assert [sorted(trial["parameters"]) for trial in trials] == [["attn.o_proj", "embed_tokens"]] * 3
    assert all(2 <= trial["parameters"]["attn.o_proj"]["max_weight_position"] <= 5 for trial in trials)


def test_the_study_says_that_the_head_is_ablated_with_the_embeddings(chosen):
    assert any("output head" in event["text"] for event in chosen[2] if event["event"] == "note")


def test_the_export_differs_from_the_source_in_the_chosen_tensors_alone(chosen):
    from safetensors.torch import load_file

    from heretic_tui.demo import MODEL_DIR

    before, after = (load_file(place / "model.safetensors") for place in (MODEL_DIR, chosen[0] / "model"))
    assert list(before) == list(after)
    changed = {name for name in before if not before[name].equal(after[name])}
    attention = {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in LAYERS}
    assert "model.embed_tokens.weight" in changed
    assert changed - {"model.embed_tokens.weight"} <= attention
    config = json.loads((chosen[0] / "model" / "config.json").read_text(encoding="utf-8"))
    assert config == json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))


def test_plain_transformers_says_the_words_of_the_trial(chosen):
    folder, run, events = chosen
    trial = one(events, "exported")["trial"]
    text = (run / "responses" / f"trial-{trial:04}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(folder / "model")],
        input=json.dumps([row["prompt"] for row in rows]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for row, found in zip(rows, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert found.startswith(row["response"]) if row["ended"] == "decided" else found == row["response"]


def test_the_trial_in_a_chat_says_what_the_exported_model_says(chosen):
    from heretic_tui.engine.chat.conversation import ChatMessage, OfTrial, Original, Sampling, Turn
    from heretic_tui.engine.loading.session import Session
    from heretic_tui.engine.pipeline import chat
    from heretic_tui.engine.runs.run import Run

    folder, run, events = chosen
    trial, run, session = one(events, "exported")["trial"], Run(run), Session()
    first = json.loads((run.path / "responses" / f"trial-{trial:04}.jsonl").read_text(encoding="utf-8").splitlines()[0])
    messages = (ChatMessage("system", "You are a helpful assistant."), ChatMessage("user", first["prompt"]))
    greedy = Sampling(max_tokens=32, temperature=0.0)

    def said(name, candidate):
        job = chat(name, run.profile, run, [Turn(candidate, messages)], greedy, load=session.load)
        while True:
            try:
                next(job)
            except StopIteration as stop:
                return stop.value[0].text

    answers = [said(run.model_name, OfTrial(trial)), said(str(folder / "model"), Original())]
    assert answers[0] == answers[1] != said(run.model_name, Original())


def test_a_resumed_study_goes_on_with_its_choice(chosen, heretic_tui):
    _, run, _ = chosen
    more = heretic_tui("run", "--resume", run.name, "--runs-dir", run.parent, "--trials", 5)
    trials = [event for event in more if event["event"] == "trial_finished"]
    assert [trial["trial"] for trial in trials] == [4, 5]
    assert [sorted(trial["parameters"]) for trial in trials] == [["attn.o_proj", "embed_tokens"]] * 2


def test_an_adapter_is_refused_in_words_because_the_head_is_tied(chosen, tmp_path):
    run = chosen[1]
    command = [sys.executable, "-m", "heretic_tui", "export", str(run), "--trial", "1"]
    done = subprocess.run(
        [*command, "--to", str(tmp_path / "adapter"), "--adapter"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "output head" in " ".join(done.stderr.split())
    assert not (tmp_path / "adapter").exists()


ANSWER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
system = {"role": "system", "content": "You are a helpful assistant."}
texts = [tokenizer.apply_chat_template([system, {"role": "user", "content": prompt}], tokenize=False,
                                       add_generation_prompt=True) for prompt in json.load(sys.stdin)]
batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=32,
                     do_sample=False)
print(json.dumps(tokenizer.batch_decode(out[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)))
"""
