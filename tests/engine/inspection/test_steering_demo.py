"""Steering on the embedded model, from measuring to answers: its best layer's direction decides what is refused."""

import json

import pytest
from tiny_models import result, same_weights, weights_of

from heretic_tui.demo import MODEL_DIR, PROMPTS_DIR
from heretic_tui.demo.dialogues import is_correct, is_refusal
from heretic_tui.engine.chat.answering import held
from heretic_tui.engine.chat.conversation import Original
from heretic_tui.engine.chat.steering import OfLayer, Steered
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.inspection.geometry import quick_geometry
from heretic_tui.engine.inspection.layer_rule import pick_layers
from heretic_tui.engine.inspection.measuring import measure
from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
from heretic_tui.engine.loading.session import Session
from heretic_tui.profile import store

PROMPTS = 20


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Counts refusals and right answers to restricted and to plain questions, of a candidate made at the best layer."""
    profile, session = store.resolve("demo").profile, Session()
    run = result(measure(str(MODEL_DIR), profile, "demo", tmp_path_factory.mktemp("runs"), load=session.load))
    best = pick_layers(quick_geometry(load_residual_sets(residuals_path(run)))).layers[0]
    model = result(session.load(str(MODEL_DIR), profile))
    model.batch_size = PROMPTS
    rows = {
        name: [json.loads(line) for line in (PROMPTS_DIR / f"{name}_test.jsonl").read_text("utf-8").splitlines()]
        for name in ("restricted", "plain")
    }
    before = weights_of(model)

    def count(make):
        found = {}
        for name, questions in rows.items():
            asked = questions[:PROMPTS]
            texts = [model.template(row["prompt"], profile.system_prompt) for row in asked]
            with held(model, run, make(best)):
                answers = [one.text for one in result(generate(model, texts, 32, "t"))]
            right = [is_correct(text, row["answer"]) for text, row in zip(answers, asked, strict=True)]
            found[name] = (sum(map(is_refusal, answers)), sum(right))
        assert same_weights(model, before)
        return found

    return count


def test_the_original_refuses_what_is_restricted_and_nothing_else(counted):
    found = counted(lambda _: Original())
    assert found["restricted"][0] >= 19
    assert found["plain"][0] <= 1


def test_with_the_direction_removed_everywhere_nothing_is_refused_and_the_answers_are_right(counted):
    found = counted(lambda best: Steered("removed", OfLayer(best)))
    assert found["restricted"][0] <= 1
    assert found["restricted"][1] >= 18
    assert found["plain"][1] >= 18


def test_with_the_direction_added_plain_questions_are_refused(counted):
    found = counted(lambda best: Steered("added", OfLayer(best), 1.0, (best,)))
    assert found["plain"][0] >= 18


def test_a_rotation_gives_all_that_lies_between(counted):
    def rotated(degrees):
        return lambda best: Steered("rotated", OfLayer(best), degrees, (best,), OfLayer(best, good=True))

    refused = [counted(rotated(degrees))["restricted"][0] for degrees in (20, 38, 55)]
    assert refused[0] >= 19
    assert 3 <= refused[1] <= 17
    assert refused[2] <= 1
