import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr
from tiny_models import result, same_direction, tiny_model, unit

from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.decoding.greedy import Continuation
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Label, Score
from heretic_tui.engine.scoring.accuracy import Accuracy
from heretic_tui.engine.scoring.evaluation import Evaluation, EvaluationSet, set_key
from heretic_tui.engine.scoring.kl_divergence import KLDivergence
from heretic_tui.engine.scoring.labels import Markers, contains_answer, degenerate, label, normalized
from heretic_tui.engine.scoring.refusals import Refusals
from heretic_tui.engine.scoring.scoreboard import Scoreboard
from heretic_tui.profile.schema import AccuracySpec, KLDivergenceSpec, Profile, PromptSet, RefusalsSpec

PROMPTS = PromptSet(dataset="some prompts")
KNOWN = PromptSet(dataset="some questions", answer_column="answer")
QUESTION = "What is the capital of France, and of Spain?"
TEXTS = ["hello", QUESTION, "x", "why is the sky blue?", "one more"]
WHOLE = AblationParameters(
    1.0, {"attn.o_proj": Kernel(1.0, 1.0, 1.0, 9.0), "mlp.down_proj": Kernel(1.0, 1.0, 1.0, 9.0)}
)


def evaluation(model, prompts, prompt_set=PROMPTS, responses=None, max_tokens=8):
    """One measurement of a model, or of responses that are given."""
    prompts = [prompt if isinstance(prompt, Prompt) else Prompt(prompt, "") for prompt in prompts]
    asked = Evaluation(model, {set_key(prompt_set): EvaluationSet.of(prompt_set, prompts, None)}, max_tokens, "test")
    if responses is not None:
        asked._responses[set_key(prompt_set)] = [Continuation(text, (), "eos") for text in responses]
    return asked


# Markers


@pytest.mark.parametrize(
    "response",
    [
        "I can't do that.",
        "I can\u2019t do that.",
        "I can\u2018t do that.",
        "I **can't** do that.",
        "*I* can't do that.",
        "i CAN'T do that",
        "Well,\n  I\t\n can't say.",
    ],
)
def test_a_marker_is_found_however_it_is_dressed(response):
    assert Markers.of(["I can't"]).found(response) == "i can't"


def test_a_marker_is_dressed_down_as_a_response_is():
    assert Markers.of(["  I  CAN\u2019T "]).found("but I can't") == "i can't"


def test_a_response_without_a_marker_has_none():
    assert Markers.of(["i can't", "sorry"]).found("I can do that.") is None


def test_a_marker_of_nothing_but_stars_is_in_no_response():
    assert Markers.of(["**", "sorry"]).found("Of course.") is None


@given(st.text(), st.text(), st.text(min_size=1))
def test_a_marker_never_unappears(beginning, rest, marker):
    markers = Markers.of([marker])
    if markers.found(beginning) is not None:
        assert markers.found(beginning + rest) is not None


@given(st.text())
def test_normalizing_twice_is_normalizing_once(text):
    assert normalized(normalized(text)) == normalized(text)


# Degenerate responses


@pytest.mark.parametrize("response", ["", " ", "\n\t "])
def test_an_empty_response_is_degenerate(response):
    assert degenerate(response, QUESTION)


@pytest.mark.parametrize(
    "response",
    [
        "the " * 30,
        "yes no " * 10,
        "I think that " * 8,
        "Paris is the capital. " + "and so on and on it goes " * 6,
        "I am a cat and " * 6 + "I am a c",
        "one two three four five six seven " * 4 + "one two thr",
    ],
)
def test_a_loop_is_degenerate(response):
    assert degenerate(response, QUESTION)


@pytest.mark.parametrize(
    "response",
    [
        "The capital of France is Paris, and the capital of Spain is Madrid, as far as I know today.",
        "No, no, no!",
        "First, take the eggs. Then, take the flour. Then, take the milk. Then, stir everything well together.",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    ],
)
def test_language_that_repeats_a_little_is_not_degenerate(response):
    assert not degenerate(response, QUESTION)


@pytest.mark.parametrize(
    "response",
    [
        "Столица Франции - это город Париж, а столица Испании Мадрид",
        "法国的首都是巴黎西班牙的首都是马德里这是常识大家都知道",
    ],
)
def test_another_script_than_the_prompt_s_is_degenerate(response):
    assert degenerate(response, QUESTION)


def test_the_prompt_s_own_script_is_not_degenerate():
    assert not degenerate("Столица Франции это город Париж", "Назови мне столицу Франции и Испании")


def test_a_few_letters_of_another_script_are_not_enough_to_tell():
    assert not degenerate("Париж", QUESTION)


def test_a_marker_makes_a_refusal_whatever_else_the_response_is():
    assert label("sorry " * 40, "sorry", QUESTION) is Label.REFUSAL


def test_without_a_marker_a_response_is_an_answer_or_degenerate():
    assert label("Paris and Madrid.", None, QUESTION) is Label.ANSWER
    assert label("the " * 40, None, QUESTION) is Label.DEGENERATE


# Answers


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("It is Paris.", "paris"),
        ("**PARIS**", "Paris"),
        ("12", "12"),
        ("so 3+4=7.", "7"),
        ("New York City", "new york"),
        ("it costs $5 today", "$5"),
        ("x=(a+b)", "(a+b)"),
    ],
)
def test_an_answer_is_found_as_a_whole_word_in_either_case(response, answer):
    assert contains_answer(response, answer)


@pytest.mark.parametrize(("response", "answer"), [("112", "12"), ("Parisian", "Paris"), ("no", "yes"), ("1.", "1..")])
def test_a_part_of_a_word_is_no_answer(response, answer):
    assert not contains_answer(response, answer)


# Counting


def refusals(responses, markers=("sorry",)):
    spec = RefusalsSpec(name="refusals", label="", optimization="minimize", prompts=PROMPTS, markers=list(markers))
    return result(Refusals(spec).measure(evaluation(None, TEXTS[: len(responses)], responses=responses)))


def test_refusals_are_responses_with_a_marker():
    assert refusals(["Sorry, no.", "Of course.", "I am *sorry*.", "Paris."]) == Score(0.5, 2, 4)


def test_an_empty_response_counts_as_a_refusal():
    assert refusals(["", "Of course.", " \n"]) == Score(2 / 3, 2, 3)


def test_degenerate_responses_are_counted_beside_the_refusals():
    assert refusals(["the " * 40, "sorry " * 40, "Of course.", "Yes."]) == Score(0.25, 1, 4, degenerate=1)


def accuracy(responses, answers):
    spec = AccuracySpec(name="accuracy", label="", optimization="maximize", prompts=KNOWN, markers=["sorry"])
    prompts = [Prompt(QUESTION, "", answer) for answer in answers]
    return result(Accuracy(spec).measure(evaluation(None, prompts, KNOWN, responses)))


def test_accuracy_counts_the_responses_that_hold_their_answer():
    assert accuracy(["Paris.", "Rome.", "It is Paris"], ["Paris"] * 3) == Score(2 / 3, 2, 3)


def test_a_prompt_without_a_known_answer_is_not_counted():
    assert accuracy(["Paris.", "Rome."], ["Paris", None]) == Score(1.0, 1, 1)


def test_a_refusal_or_a_loop_is_never_correct():
    assert accuracy(["Sorry, not Paris.", "Paris " * 40], ["Paris"] * 2) == Score(0.0, 0, 2)


def test_the_interval_of_a_count_is_wilson_s():
    from scipy.stats import binomtest

    low, high = Score(0.03, 3, 100).interval()
    expected = binomtest(3, 100).proportion_ci(0.95, method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-4), pytest.approx(expected.high, abs=1e-4))


# KL divergence


def divergence(tokens):
    return KLDivergence(
        KLDivergenceSpec(name="kl", label="", optimization="minimize", prompts=PROMPTS, kl_tokens=tokens)
    )


def log_probabilities(model, ids):
    with torch.inference_mode():
        return log_softmax(
            model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy(), axis=-1
        )


def ids_of(model, prompt):
    return model.tokenizer(model.template(prompt), add_special_tokens=False)["input_ids"]


def relative_entropy(p, q):
    """KL(p || q) of log-probabilities, summed over the vocabulary."""
    return rel_entr(np.exp(p), np.exp(q)).sum(axis=-1)


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_original_model_diverges_from_itself_by_nothing(tokens):
    model, scorer = tiny_model(), divergence(tokens)
    assert result(scorer.measure(evaluation(model, TEXTS))).value == 0.0
    assert result(scorer.measure(evaluation(model, TEXTS))).value == pytest.approx(0.0, abs=1e-9)


def test_the_divergence_is_the_mean_over_prompts_of_the_first_token_s():
    model, scorer = tiny_model(), divergence(1)
    result(scorer.measure(evaluation(model, TEXTS)))
    before = [log_probabilities(model, ids_of(model, text))[-1] for text in TEXTS]
    with ablated(model, same_direction(model, unit()), WHOLE):
        found = result(scorer.measure(evaluation(model, TEXTS))).value
        after = [log_probabilities(model, ids_of(model, text))[-1] for text in TEXTS]
    assert found == pytest.approx(np.mean([relative_entropy(p, q) for p, q in zip(before, after, strict=True)]), 1e-4)
    assert found > 0.01


def greedy(model, prompt, length):
    ids = ids_of(model, prompt)
    with torch.inference_mode():
        out = model.network.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=length)[0].tolist()
    written = out[len(ids) :]
    return [token for token in written if token != model.tokenizer.eos_token_id]


def test_more_tokens_average_over_the_original_model_s_own_answers():
    model, scorer = tiny_model(batch_size=3), divergence(5)
    result(scorer.measure(evaluation(model, TEXTS)))
    answers = [greedy(model, text, 5) for text in TEXTS]

    def forced():
        rows = []
        for text, answer in zip(TEXTS, answers, strict=True):
            prompt = ids_of(model, text)
            rows += list(log_probabilities(model, prompt + answer)[len(prompt) - 1 : len(prompt) - 1 + len(answer)])
        return rows

    before = forced()
    with ablated(model, same_direction(model, unit()), WHOLE):
        found = result(scorer.measure(evaluation(model, TEXTS))).value
        after = forced()
    assert found == pytest.approx(np.mean([relative_entropy(p, q) for p, q in zip(before, after, strict=True)]), 1e-4)


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_restored_scorer_measures_what_the_first_would(tokens):
    model, scorer, later = tiny_model(), divergence(tokens), divergence(tokens)
    result(scorer.measure(evaluation(model, TEXTS)))
    later.restore(scorer.state())
    with ablated(model, same_direction(model, unit()), WHOLE):
        assert result(later.measure(evaluation(model, TEXTS))) == result(scorer.measure(evaluation(model, TEXTS)))


# All together


def test_what_is_cheap_is_measured_first_and_shown_in_the_profile_s_order():
    model = tiny_model()
    specs = (
        RefusalsSpec(name="refusals", label="", optimization="minimize", prompts=PROMPTS, markers=["sorry"]),
        KLDivergenceSpec(name="kl", label="", optimization="minimize", prompts=PROMPTS, kl_tokens=1),
    )
    prompts = [Prompt(text, "") for text in TEXTS]
    board = Scoreboard(
        Profile(max_response_length=4),
        [Refusals(specs[0]), KLDivergence(specs[1])],
        {set_key(PROMPTS): EvaluationSet.of(PROMPTS, prompts, None)},
    )
    phases, job = [], board.measure(model, "trial 1")
    while True:
        try:
            phases.append(next(job).phase)
        except StopIteration as stop:
            measured = stop.value
            break
    assert list(dict.fromkeys(phases)) == ["trial 1: KL divergence", "trial 1: responses"]
    assert list(measured.scores) == ["refusals", "kl"]
    assert [response.prompt for response in measured.responses] == TEXTS
