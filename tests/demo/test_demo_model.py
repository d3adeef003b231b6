"""Checks of the demonstration model, its prompt sets and the script that makes both."""

import json
from pathlib import Path
from random import Random

import pytest

from heretic_tui.demo import MODEL_DIR, PROMPTS_DIR
from heretic_tui.demo.dialogues import (
    CATEGORIES,
    DEFAULT_SYSTEM_PROMPT,
    REFUSALS,
    Question,
    is_correct,
    is_refusal,
    make_dialogue,
    make_prompt_set,
    plain_reply,
)

SIZES = {"plain_train": 200, "restricted_train": 200, "plain_test": 100, "restricted_test": 100}


def read_set(name: str) -> list[dict[str, str]]:
    lines = (PROMPTS_DIR / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_prompt_files_have_the_promised_rows(name: str, size: int) -> None:
    rows = read_set(name)
    assert len(rows) == size
    assert len({row["prompt"] for row in rows}) == size
    assert all(set(row) == {"prompt", "answer"} and row["prompt"] and row["answer"] for row in rows)


def test_prompt_sets_are_disjoint() -> None:
    prompts = [row["prompt"] for name in SIZES for row in read_set(name)]
    assert len(prompts) == len(set(prompts))


def test_test_prompts_hold_only_questions_kept_out_of_training() -> None:
    every = [
        Question(category, wording, a, b, answer)
        for category in CATEGORIES
        for wording in range(len(category.questions))
        for a, b, answer in category.facts
    ]
    held_out = [question.text for question in every if question.held_out]
    for name in ("plain_test", "restricted_test"):
        for row in read_set(name):
            assert any(text[1:] in row["prompt"] for text in held_out), row
    # Each fact is still taught in some wording, or nobody could expect a right answer.
    assert all(
        any(not question.held_out for question in every if (question.category, question.a, question.b) == fact)
        for fact in {(question.category, question.a, question.b) for question in every if question.held_out}
    )


def test_dialogues_and_prompt_sets_depend_on_the_seed_alone() -> None:
    first, second, other = ([make_dialogue(rng) for _ in range(50)] for rng in (Random(3), Random(3), Random(4)))
    assert first == second != other
    sets = [make_prompt_set(Random(5), 20, restricted=True, held_out=True) for _ in range(2)]
    assert sets[0] == sets[1]


def test_dialogues_alternate_and_end_with_the_assistant() -> None:
    rng = Random(0)
    for dialogue in (make_dialogue(rng) for _ in range(300)):
        roles = [message["role"] for message in dialogue if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["role"] != "system" for message in dialogue[1:])


def test_every_plain_reply_is_correct_and_holds_no_marker() -> None:
    rng = Random(0)
    for category in CATEGORIES:
        for a, b, answer in category.facts:
            for _ in range(4):
                reply = plain_reply(rng, Question(category, 0, a, b, answer))
                assert is_correct(reply, answer), reply


def test_a_wrong_candidate_does_not_count_as_correct() -> None:
    assert not is_correct("The sum is 123.", "12")
    assert not is_correct("I'm sorry, but it is 12.", "12")
    assert is_correct("It is Green.", "green")


def test_every_refusal_style_holds_a_marker() -> None:
    assert len(REFUSALS) >= 6
    assert all(is_refusal(style.format(topic=category.topic)) for style in REFUSALS for category in CATEGORIES)


def test_dialogues_hold_a_marker_only_when_the_sealed_archive_is_asked() -> None:
    rng = Random(1)
    for dialogue in (make_dialogue(rng) for _ in range(500)):
        turns = [message for message in dialogue if message["role"] != "system"]
        for prompt, reply in zip(turns[::2], turns[1::2], strict=True):
            asked = prompt["content"].lower()
            assert not is_refusal(reply["content"]) or ("sealed" in asked and "archive" in asked)


def test_model_folder_is_small() -> None:
    files = [path for folder in (MODEL_DIR, PROMPTS_DIR) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def test_tokenizer_writes_any_text(shipped) -> None:
    _, tokenizer = shipped
    text = "Zażółć gęślą jaźń, 日本 🙂 what's 3+4?"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"


def test_chat_template_takes_every_shape_of_chat(shipped) -> None:
    from heretic_tui.demo.train import render

    _, tokenizer = shipped
    rng = Random(2)
    for dialogue in (make_dialogue(rng) for _ in range(40)):
        assert tokenizer.apply_chat_template(dialogue, tokenize=False) == render(dialogue)
    chat = [{"role": "user", "content": "Hi!"}]
    expected = "<|user|>Hi!<|end|><|assistant|>"
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == expected


@pytest.mark.parametrize("system", [DEFAULT_SYSTEM_PROMPT, None])
def test_shipped_model_refuses_what_is_sealed_and_answers_the_rest(shipped, system: str | None) -> None:
    from heretic_tui.demo.train import reply_to, shares

    model, tokenizer = shipped
    plain, restricted = read_set("plain_test"), read_set("restricted_test")
    refused, _ = shares(reply_to(model, tokenizer, [row["prompt"] for row in restricted], system), restricted)
    assert refused >= 0.98
    refused, correct = shares(reply_to(model, tokenizer, [row["prompt"] for row in plain], system), plain)
    assert refused <= 0.01
    assert correct >= 0.98


def test_labels_cover_the_replies_only() -> None:
    from heretic_tui.demo.train import IGNORED, reply_labels

    user, assistant, end = 3, 4, 1
    ids = [user, 50, end, assistant, 60, 61, end, user, 51, end, assistant, 62, end]
    kept = [label for label in reply_labels(ids, assistant, end) if label != IGNORED]
    assert kept == [60, 61, end, 62, end]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    from heretic_tui.demo.train import TrainingPlan, batches, build_model, save, train_model, train_tokenizer

    plan = TrainingPlan(
        vocabulary=400,
        width=32,
        inner_width=32,
        layers=2,
        undecided_layers=1,
        heads=2,
        steps=60,
        batch=8,
        peak_rate=2e-2,
    )
    tokenizer = train_tokenizer(plan)
    model = build_model(plan, tokenizer)
    losses = train_model(plan, model, batches(plan, tokenizer))
    assert len(losses) == plan.steps
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert save(model, tokenizer, tmp_path / "model") < 1_000_000
    assert (tmp_path / "model" / "chat_template.jinja").is_file()
