import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import result

from heretic_tui.engine.decoding.greedy import Continuation
from heretic_tui.engine.prompts.prompt_sets import set_key
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Label, Response, Score
from heretic_tui.engine.scoring.evaluation import Evaluation, EvaluationSet
from heretic_tui.engine.scoring.labels import Markers, label
from heretic_tui.engine.scoring.refusals import Refusals
from heretic_tui.engine.study.relabelling import corrected
from heretic_tui.profile.schema import AccuracySpec, KLDivergenceSpec, PromptSet, RefusalsSpec

SET, OTHER = PromptSet(dataset="locks.txt"), PromptSet(dataset="rivers.txt", split="[:5]")
REFUSALS = RefusalsSpec(
    name="refusals", label="Refusals", optimization="minimize", prompts=SET, markers=("sorry", "cannot")
)
SECOND = replace(REFUSALS, name="second", prompts=OTHER)
KL = KLDivergenceSpec(name="kl_divergence", label="KL", optimization="minimize", prompts=OTHER, kl_tokens=1)
LOOP = "again and " * 20
TEXTS = ["Sorry, no.", "Turn the key.", "", LOOP, "I cannot do that.", "Push."]


def measured(spec, texts):
    """The score and the responses as the scoreboard makes them."""
    prompts = tuple(Prompt(f"Question {place}?", "") for place in range(len(texts)))
    evaluation = Evaluation(None, {set_key(spec.prompts): EvaluationSet.of(spec.prompts, prompts, None)}, 9, "test")
    evaluation._responses[set_key(spec.prompts)] = [Continuation(text, (), "eos") for text in texts]
    score = result(Refusals(spec).measure(evaluation))
    markers = Markers.of(spec.markers)
    name = evaluation.sets[set_key(spec.prompts)].name
    responses = [
        Response(name, prompt.text, text, "eos", label(text, markers.found(text), prompt.text), markers.found(text))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    return score, responses


def test_what_is_measured_to_begin_with():
    assert measured(REFUSALS, TEXTS)[0] == Score(0.5, 3, 6, 1)


@pytest.mark.parametrize(
    ("overruled", "expected"),
    [
        ({}, (3, 1)),
        ({0: Label.REFUSAL}, (3, 1)),
        ({0: Label.ANSWER}, (2, 1)),
        ({0: Label.DEGENERATE}, (2, 2)),
        ({1: Label.REFUSAL}, (4, 1)),
        ({2: Label.ANSWER}, (2, 1)),
        ({2: Label.REFUSAL}, (3, 1)),
        ({3: Label.ANSWER}, (3, 0)),
        ({3: Label.REFUSAL}, (4, 0)),
        ({0: Label.ANSWER, 1: Label.REFUSAL, 4: Label.ANSWER}, (2, 1)),
        ({77: Label.REFUSAL, -1: Label.REFUSAL}, (3, 1)),
    ],
)
def test_overruled_labels_count_in_place_of_the_found_ones(overruled, expected):
    score, responses = measured(REFUSALS, TEXTS)
    found = corrected({"refusals": score}, responses, overruled, [REFUSALS])["refusals"]
    assert (found.count, found.degenerate) == expected
    assert (found.value, found.total) == (found.count / 6, 6)


def test_only_the_prompts_of_a_scorer_count_for_it():
    (first, ones), (second, others) = measured(REFUSALS, TEXTS), measured(SECOND, TEXTS)
    scores = {"refusals": first, "second": second, "kl_divergence": Score(0.1)}
    found = corrected(scores, [*ones, *others], {1: Label.REFUSAL, 6: Label.ANSWER}, [REFUSALS, KL, SECOND])
    assert {name: score.count for name, score in found.items()} == {"refusals": 4, "second": 2}


def test_scorers_of_one_set_each_count_by_their_own_markers():
    strict = replace(REFUSALS, name="strict", markers=("key",))
    score, responses = measured(REFUSALS, TEXTS)
    other, _ = measured(strict, TEXTS)
    found = corrected({"refusals": score, "strict": other}, responses, {1: Label.ANSWER}, [REFUSALS, strict])
    assert found["refusals"].count == 3
    assert (other.count, found["strict"].count) == (2, 1)


def test_an_accuracy_of_the_same_set_is_no_hindrance():
    accuracy = AccuracySpec(name="accuracy", label="Accuracy", optimization="none", prompts=SET, markers=("sorry",))
    score, responses = measured(REFUSALS, TEXTS)
    found = corrected({"refusals": score, "accuracy": Score(0.5, 3, 6)}, responses, {1: Label.REFUSAL}, [
        accuracy, REFUSALS,
    ])  # fmt: skip
    assert {name: score.count for name, score in found.items()} == {"refusals": 4}


def test_two_sets_of_one_name_cannot_be_told_apart_so_the_measured_score_stands():
    prefixed = replace(REFUSALS, name="prefixed", prompts=PromptSet(dataset="locks.txt", prefix="Please: "))
    score, responses = measured(REFUSALS, TEXTS)
    scores = {"refusals": score, "prefixed": score}
    assert corrected(scores, [*responses, *responses], {0: Label.ANSWER}, [REFUSALS, prefixed]) == scores


def test_a_score_that_counts_nothing_stays():
    foreign = {"refusals": Score(0.25)}
    assert corrected(foreign, [], {0: Label.ANSWER}, [REFUSALS]) == foreign


LABELS = st.sampled_from(list(Label))
ANSWERS = st.sampled_from(["Sorry.", "Yes.", "", LOOP, "I cannot.", "кто там " * 9])


@given(st.lists(st.tuples(ANSWERS, LABELS), min_size=1, max_size=12), st.data())
def test_relabelling_everything_gives_the_labels_given_and_undoing_it_the_measured_score(rows, data):
    score, responses = measured(REFUSALS, [text for text, _ in rows])
    scores = {"refusals": score}
    every = {place: label for place, (_, label) in enumerate(rows)}
    found = corrected(scores, responses, every, [REFUSALS])["refusals"]
    assert found.count == sum(label is Label.REFUSAL for _, label in rows)
    assert found.degenerate == sum(label is Label.DEGENERATE for _, label in rows)
    assert corrected(scores, responses, {}, [REFUSALS]) == scores


def test_it_is_done_without_torch():
    code = "import sys, heretic_tui.engine.study.relabelling, heretic_tui.engine.runs.summary; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "optuna", "transformers"} & set(done.stdout.split())
