import json
import math
import time
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TEMPLATE, result, run, same_weights, tiny_model, weights_of

from heretic_tui.engine.ablation.directions import Directions, load_directions, save_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.chat.conversation import ChatMessage, OfTrial, Original, Sampling, Turn
from heretic_tui.engine.chat.steering import OfLayer, Steered
from heretic_tui.engine.chat.streaming import chooser, stream
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import AnswerFinished, TextGenerated, TrialStarted
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import chat, resume_study, start_study
from heretic_tui.engine.runs.run import DIRECTIONS, Run

REMOVED = Steered("removed", OfLayer(1))
ADDED = Steered("added", OfLayer(1), -2.0, (1,))
ASKED = (ChatMessage("system", "Be brief."), ChatMessage("user", "How long is a river?"))
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def session(tiny_folder, short_profile):
    """A session with the tiny model in memory, and a check that each test leaves its weights as they were."""
    session = Session()
    result(session.load(str(tiny_folder), short_profile))
    return session


@pytest.fixture(autouse=True)
def untouched(session):
    before = weights_of(session.model)
    yield
    assert same_weights(session.model, before)


def talk(session, study, *candidates, sampling=SHORT, messages=ASKED):
    name, profile = study.model_name, study.profile
    return run(chat(name, profile, study, [Turn(one, messages) for one in candidates], sampling, load=session.load))


def said(events, column=0):
    return "".join(event.text for event in events if isinstance(event, TextGenerated) and event.column == column)


# Answers


def test_every_candidate_answers_in_its_column(session, study):
    candidates = [Original(), OfTrial(2), REMOVED, ADDED]
    events, answers = talk(session, study, *candidates)
    assert [answer.candidate for answer in answers] == candidates
    finished = [event for event in events if isinstance(event, AnswerFinished)]
    assert [event.column for event in finished] == [0, 1, 2, 3]
    for event, answer in zip(finished, answers, strict=True):
        assert said(events, event.column) == event.text == answer.text
        assert (event.tokens, event.seconds, event.ended) == (answer.tokens, answer.seconds, answer.ended)
        assert answer.tokens <= SHORT.max_tokens
        assert answer.ended == ("length" if answer.tokens == SHORT.max_tokens else "eos")


def test_a_trial_answers_as_its_ablation_does(session, study):
    record, profile, model = study.record(3), study.profile, session.model
    _, (answer,) = talk(session, study, OfTrial(3))
    text = model.conversation([{"role": message.role, "content": message.text} for message in ASKED])
    directions = load_directions(study.path / DIRECTIONS)
    with ablated(model, directions, record.parameters, style_of(profile)):
        expected = result(stream(model, text, SHORT))
    assert answer.text == expected.text


def test_the_model_sees_the_conversation_as_it_is(session, study):
    model = session.model
    messages = (*ASKED, ChatMessage("assistant", "Very."), ChatMessage("user", "How wide?"))
    text = model.conversation([{"role": message.role, "content": message.text} for message in messages])
    assert text == "S:Be brief.\nU:How long is a river?\nA:Very.\nU:How wide?\nA:"
    _, (answer,) = talk(session, study, Original(), messages=messages)
    assert answer.text == result(stream(model, text, SHORT)).text


def test_a_response_prefix_is_for_measuring_only(tiny_folder, short_profile):
    model = tiny_model()
    model.response_prefix = "<think></think>"
    assert model.conversation([{"role": "user", "content": "Hi"}]) == "U:Hi\nA:"
    assert model.template("Hi") == "U:Hi\nA:<think></think>"


def test_a_template_without_a_system_role_gets_it_in_a_conversation_too():
    model = tiny_model(
        template="{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert model.conversation(messages) == "U:Be brief.\n\nHi\nA:"


def test_the_original_needs_no_run(session, study):
    turns = [Turn(Original(), ASKED)]
    _, (answer,) = run(chat(study.model_name, study.profile, None, turns, SHORT, load=session.load))
    assert answer.text == talk(session, study, Original())[1][0].text


# What cannot be


@pytest.mark.parametrize("candidate", [OfTrial(1), REMOVED, ADDED])
def test_a_candidate_of_a_run_needs_one_with_directions(session, study, candidate):
    turns = [Turn(candidate, ASKED)]
    with pytest.raises(EngineError, match=r"no run to take"):
        run(chat(study.model_name, study.profile, None, turns, SHORT, load=session.load))
    (study.path / DIRECTIONS).unlink()
    with pytest.raises(EngineError, match=r"no directions"):
        talk(session, study, candidate)


def test_a_trial_that_there_is_not(session, study):
    job = chat(
        study.model_name, study.profile, study, [Turn(Original(), ASKED), Turn(OfTrial(77), ASKED)], SHORT, session.load
    )
    events = []
    with pytest.raises(EngineError, match="no trial 77"):
        events.extend(job)
    assert not said(events)


def test_a_run_of_another_model(session, study):
    narrow = torch.rand(3, 4, 7)
    save_directions(study.path / DIRECTIONS, Directions(*narrow))
    with pytest.raises(EngineError, match="not the model of"):
        talk(session, study, REMOVED)


def test_a_conversation_that_is_too_long_says_what_to_do(session, study):
    long = (ChatMessage("user", "a" * 500),)
    with pytest.raises(EngineError, match=r"505 tokens long.*512 tokens.*Begin a new conversation"):
        talk(session, study, Original(), messages=long)
    talk(session, study, Original(), messages=long, sampling=Sampling(max_tokens=7))


def test_in_a_nearly_full_context_an_answer_takes_the_room_that_is_left(session, study):
    long = (ChatMessage("user", "a" * 480),)
    _, (answer,) = talk(session, study, Original(), messages=long, sampling=Sampling(max_tokens=400))
    assert 0 < answer.tokens <= 512 - 485


@pytest.mark.parametrize("messages", [(), ASKED[:1], (*ASKED, ChatMessage("assistant", "Long."))])
def test_there_must_be_something_to_answer(session, study, messages):
    with pytest.raises(EngineError, match="nothing to answer"):
        talk(session, study, Original(), messages=messages)


def test_running_out_of_memory_is_told(session, study, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(session.model.network, "forward", full)
    with pytest.raises(EngineError, match="Memory ran out"):
        talk(session, study, OfTrial(1))


# Stopping


@pytest.mark.parametrize("candidate", [OfTrial(1), REMOVED, ADDED])
@pytest.mark.parametrize("texts", [1, 3])
def test_a_chat_that_is_closed_leaves_the_original_model(session, study, candidate, texts):
    model = session.model
    before, plain = weights_of(model), talk(session, study, Original())[1][0].text
    job = chat(study.model_name, study.profile, study, [Turn(candidate, ASKED)], SHORT, load=session.load)
    for _ in range(texts):
        next(event for event in job if isinstance(event, TextGenerated))
    job.close()
    assert same_weights(model, before)
    assert not any(layer._forward_hooks for layer in model.layers)
    assert talk(session, study, Original())[1][0].text == plain


def test_an_error_while_answering_leaves_the_original_weights(session, study, monkeypatch):
    from heretic_tui.engine.decoding import stepper

    def broken(*_):
        raise RuntimeError("boom")

    before = weights_of(session.model)
    monkeypatch.setattr(stepper.Stepper, "step", broken)
    with pytest.raises(RuntimeError, match="boom"):
        talk(session, study, OfTrial(1))
    assert same_weights(session.model, before)


def test_a_chat_between_two_halves_of_a_study_changes_none_of_its_trials(
    tiny_folder, short_profile, finished_run, tmp_path
):
    session = Session()
    job = start_study(str(tiny_folder), short_profile, "short", tmp_path, load=session.load)
    next(event for event in job if isinstance(event, TrialStarted) and event.trial == 3)
    job.close()
    (folder,) = tmp_path.iterdir()
    half = Run(folder)
    talk(session, half, OfTrial(1), Original(), sampling=Sampling(temperature=1.0, max_tokens=9))
    run(resume_study(half, load=session.load))
    found, expected = half.records(), Run(finished_run).records()
    assert [(one.parameters, one.scores) for one in found] == [(one.parameters, one.scores) for one in expected]


# Sampling


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "Top-p"),
        ({"top_p": 1.1}, "Top-p"),
        ({"top_p": math.nan}, "Top-p"),
        ({"top_k": -1}, "Top-k"),
        ({"max_tokens": 0}, "tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_sampling_without_a_meaning_is_refused_in_words(values, message):
    with pytest.raises(EngineError, match=message):
        Sampling(**values)


def draws(scores, count=2000, **values):
    choose = chooser(Sampling(seed=3, **values), torch.device("cpu"))
    return Counter(int(choose(scores)) for _ in range(count))


SCORES = torch.tensor([[0.0, 1.0, 2.0, 3.0]])


def test_tokens_are_drawn_in_proportion_to_their_probability():
    found = draws(SCORES, temperature=1.0)
    for token, share in enumerate(torch.softmax(SCORES[0], 0).tolist()):
        assert found[token] / 2000 == pytest.approx(share, abs=0.04)


def test_a_low_temperature_is_greedy():
    assert draws(SCORES, temperature=0.01) == {3: 2000}


def test_a_high_temperature_is_even():
    assert min(draws(SCORES, temperature=100.0).values()) > 420


def test_top_k_leaves_k_tokens():
    assert set(draws(SCORES, temperature=1.0, top_k=2)) == {2, 3}


def test_top_p_leaves_the_likeliest_tokens_that_make_up_its_share():
    assert set(draws(SCORES, temperature=1.0, top_p=0.7)) == {2, 3}
    assert set(draws(SCORES, temperature=1.0, top_p=0.01)) == {3}


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=9),
    st.floats(0, 1e3),
    st.floats(1e-6, 1),
    st.integers(0, 20),
)
def test_whatever_the_settings_a_token_is_drawn(scores, temperature, top_p, top_k):
    choose = chooser(Sampling(temperature, top_p, top_k, seed=1), torch.device("cpu"))
    assert 0 <= int(choose(torch.tensor([scores]))) < len(scores)


def test_a_seed_gives_the_same_answer_again_and_none_another_one(session, study):
    def answer(seed):
        sampling = Sampling(temperature=1.0, max_tokens=40, seed=seed)
        return talk(session, study, Original(), sampling=sampling)[1][0].text

    assert answer(1) == answer(1) != answer(2)
    assert answer(None) != answer(None)


def test_drawing_from_what_is_not_finite_says_so():
    choose = chooser(Sampling(temperature=1.0), torch.device("cpu"))
    with pytest.raises(EngineError, match="not finite"):
        choose(torch.full((1, 5), math.nan))


def test_drawing_leaves_the_program_s_own_chance_alone(session, study):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    talk(session, study, Original(), sampling=Sampling(temperature=1.0, max_tokens=5, seed=9))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", range(8))
def test_sampled_text_streams_whole_characters(seed):
    sampling = Sampling(temperature=1.0, max_tokens=60, seed=seed)
    events, whole = run(stream(tiny_model(seed=seed), "U:Hello\nA:", sampling))
    pieces = [event.text for event in events if isinstance(event, TextGenerated)]
    assert "".join(pieces) == whole.text
    assert all(pieces)
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])


# Names


@pytest.mark.parametrize(
    ("candidate", "label"),
    [
        (Original(), "original"),
        (OfTrial(12), "trial 12"),
        (REMOVED, "layer 1 removed x1 everywhere"),
    ],
)
def test_a_candidate_has_a_name_for_people(candidate, label):
    assert candidate.label == label


# The demonstration model


def test_the_demo_model_answers_where_it_refused_and_changes_hands_quickly(tmp_path):
    from heretic_tui.demo import MODEL_DIR, PROMPTS_DIR
    from heretic_tui.engine.ablation.directions import measure_directions
    from heretic_tui.engine.ablation.residuals import residual_mean
    from heretic_tui.engine.runs.listing import create_run
    from heretic_tui.profile import store

    rows = {
        name: [json.loads(line) for line in (PROMPTS_DIR / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("plain_train", "restricted_train", "restricted_test")
    }
    profile = store.resolve("demo").profile.model_copy(update={"model": str(MODEL_DIR)})
    study, session = create_run(tmp_path, str(MODEL_DIR), "demo", profile), Session()
    model = result(session.load(str(MODEL_DIR), profile))
    centres = [
        result(residual_mean(model, [model.template(row["prompt"], profile.system_prompt) for row in rows[name]], "t"))
        for name in ("plain_train", "restricted_train")
    ]
    save_directions(study.path / DIRECTIONS, measure_directions(*centres, projected=True))
    system = ChatMessage("system", profile.system_prompt)
    right, removed, added = Counter(), Steered("removed", OfLayer(4)), Steered("added", OfLayer(4), -1.0, (4,))
    for row in rows["restricted_test"][:10]:
        messages = (system, ChatMessage("user", row["prompt"]))
        candidates = [Original(), removed, added]
        began, first = time.perf_counter(), None
        turns = [Turn(one, messages) for one in candidates[::-1]]
        for event in chat(str(MODEL_DIR), profile, study, turns, Sampling(max_tokens=24), load=session.load):
            if isinstance(event, TextGenerated) and first is None:
                first = time.perf_counter() - began
            if isinstance(event, AnswerFinished):
                right[turns[event.column].candidate] += row["answer"].casefold() in event.text.casefold()
        assert first < 1.0
    assert right[Original()] <= 2
    assert right[removed] >= 7
    assert right[added] >= 6
