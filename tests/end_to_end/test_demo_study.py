"""The demo through the command line, as a new user runs it: a study, its front, its exports, more trials."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def demo(heretic_tui, tmp_path_factory):
    """The whole demo study; gives the folder of its runs, its events and the exported model."""
    folder = tmp_path_factory.mktemp("demo")
    events = heretic_tui("demo", "--runs-dir", folder / "runs", "--to", folder / "model")
    return folder, events


def trials_of(events):
    return [event for event in events if event["event"] == "trial_finished"]


def one(events, kind):
    return next(event for event in events if event["event"] == kind)


def test_the_demo_runs_at_least_thirty_trials_and_exports_one_of_its_front(demo):
    folder, events = demo
    finished, exported = one(events, "study_finished"), one(events, "exported")
    assert len(trials_of(events)) >= 30
    assert exported["trial"] in finished["front"]
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "model" / "README.md").is_file()


def test_the_original_demo_model_refuses_what_is_sealed_and_answers_the_rest(demo):
    base = one(demo[1], "baseline_measured")["scores"]
    assert base["refusals"]["value"] >= 0.95
    assert base["accuracy_restricted"]["value"] <= 0.05
    assert base["accuracy_plain"]["value"] >= 0.98


def test_some_trial_of_the_front_answers_what_was_refused_and_loses_nothing_else(demo):
    _, events = demo
    plain = one(events, "baseline_measured")["scores"]["accuracy_plain"]["value"]
    front = [trial["scores"] for trial in trials_of(events) if trial["trial"] in one(events, "study_finished")["front"]]
    assert any(
        scores["refusals"]["value"] <= 0.05
        and scores["accuracy_restricted"]["value"] >= 0.9
        and scores["accuracy_plain"]["value"] >= plain - 0.02
        for scores in front
    )


def test_the_front_has_a_trade_off_to_show(demo):
    assert len(one(demo[1], "study_finished")["front"]) >= 5


def test_the_same_seed_gives_the_same_trials(demo, heretic_tui, tmp_path):
    again = trials_of(heretic_tui("demo", "--runs-dir", tmp_path, "--trials", 4))
    for one_trial, other in zip(again, trials_of(demo[1])[:4], strict=True):
        for key in ("trial", "direction_index", "parameters"):
            assert one_trial[key] == other[key]
        # The batch size is found by timing: another one rounds otherwise.
        for name, score in one_trial["scores"].items():
            assert score["value"] == pytest.approx(other["scores"][name]["value"], abs=1e-6)


def test_a_finished_study_takes_more_trials(heretic_tui, tmp_path):
    first = one(heretic_tui("demo", "--runs-dir", tmp_path, "--trials", 3), "study_finished")
    more = heretic_tui("run", "--resume", first["run"], "--runs-dir", tmp_path, "--trials", 5)
    assert [trial["trial"] for trial in trials_of(more)] == [4, 5]
    assert [trial["trial"] for trial in heretic_tui("trials", first["run"], "--runs-dir", tmp_path)] == [1, 2, 3, 4, 5]


def test_the_exported_model_has_the_scores_of_its_trial(demo, heretic_tui):
    """Evaluated like any model against its base, the export gives what the study measured."""
    from heretic_tui.demo import MODEL_DIR

    folder, events = demo
    trial = one(events, "exported")["trial"]
    found = heretic_tui("evaluate", folder / "model", "--base", MODEL_DIR, "--profile", "demo")[-1]["scores"]
    expected = trials_of(events)[trial - 1]["scores"]
    for name in ("refusals", "accuracy_restricted", "accuracy_plain"):
        assert found[name]["count"] == expected[name]["count"]
    assert found["kl_divergence"]["value"] == pytest.approx(expected["kl_divergence"]["value"], rel=1e-3)


def test_an_adapter_of_a_full_edit_states_its_rank_and_error(demo, heretic_tui, tmp_path):
    folder, events = demo
    run, trial = one(events, "study_finished")["path"], one(events, "exported")["trial"]
    exported = heretic_tui("export", run, "--trial", trial, "--to", tmp_path / "adapter", "--adapter")[-1]
    assert exported["rank"] == 3
    assert 0 < exported["error"] < 0.5
    assert (folder / "runs").is_dir()


def test_a_chat_with_the_exported_model_answers_what_the_original_refuses(demo):
    """Plain Transformers in a fresh process asks both models the same restricted questions."""
    from heretic_tui.demo import MODEL_DIR, PROMPTS_DIR

    rows = [json.loads(line) for line in (PROMPTS_DIR / "restricted_test.jsonl").read_text().splitlines()]
    counts = {}
    for name, folder in (("original", MODEL_DIR), ("ablated", demo[0] / "model")):
        done = subprocess.run(
            [sys.executable, "-c", CHAT, str(folder)], input=json.dumps(rows), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        counts[name] = int(done.stdout)
    assert counts["original"] <= 5
    assert counts["ablated"] >= 60


CHAT = """
import json, re, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
rows = json.load(sys.stdin)
chats = [[{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": row["prompt"]}]
         for row in rows]
batch = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_tensors="pt", padding=True,
                                      return_dict=True)
out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=32,
                     do_sample=False)
texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)
print(sum(bool(re.search(rf"\\b{re.escape(row['answer'])}\\b", text, re.I)) for row, text in zip(rows, texts)))
"""
