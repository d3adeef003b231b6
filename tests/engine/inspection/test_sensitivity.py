"""How much the directions depend on how the residual vectors are taken."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import TEMPLATE, result, run, same_weights, tiny_model, weights_of

from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.residuals import batch_positions
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.inspection.sensitivity import load_sensitivity, sensitivity_path
from heretic_tui.engine.inspection.sensitivity_measuring import measure_sensitivity
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.prompts.template_tail import template_tail
from heretic_tui.engine.runs.run import DIRECTIONS, Run


@pytest.fixture
def session(study):
    """A session with the run's model in memory."""
    session = Session()
    result(session.load(study.model_name, study.profile))
    return session


def by_name(found):
    return {one.name: one for one in found.variants}


def stream_of(model, text, place):
    """The stream at one position, taken from the library's hidden states; the last row, after the norm, is left out."""
    ids = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        states = model.network(ids, output_hidden_states=True).hidden_states
    return np.stack([state[0, place].double().numpy() for state in states[:-1]])


def cosines(model, texts, own, place=-1, *, projected=True):
    """Cosines of the directions with the run's own, in float64 and one prompt at a time."""
    good, bad = (np.mean([stream_of(model, text, place) for text in kind], axis=0) for kind in texts)
    with np.errstate(invalid="ignore"):
        difference = (bad - good) / np.linalg.norm(bad - good, axis=1, keepdims=True)
        axis = good / np.linalg.norm(good, axis=1, keepdims=True)
        if projected:
            difference -= (difference * axis).sum(axis=1, keepdims=True) * axis
        own = own[: len(difference)].double().numpy()
        return (difference * own).sum(axis=1) / np.linalg.norm(difference, axis=1) / np.linalg.norm(own, axis=1)


GOOD = [f"Tell me about {n} rivers." for n in range(6)]
BAD = [f"Open the lock {n}!" for n in range(6)]


def test_every_variant_agrees_with_float64_computed_another_way(study, session):
    found = by_name(result(measure_sensitivity(study, load=session.load)))
    model, own = session.model, load_directions(study.path / DIRECTIONS).vectors
    templated = (
        [model.template(text, study.profile.system_prompt) for text in GOOD],
        [model.template(text, study.profile.system_prompt) for text in BAD],
    )
    projected = study.profile.orthogonalize_direction
    for name, texts, place in (
        ("as measured", templated, -1),
        ("one at a time", templated, -1),
        ("position -2 'A'", templated, -2),
        ("position -3 '\\n'", templated, -3),
        ("no template", (GOOD, BAD), -1),
    ):
        expected = cosines(model, texts, own, place, projected=projected)
        # In the first row every templated text has the same vector, so that nothing but rounding is left.
        np.testing.assert_allclose(found[name].cosines[1:-1], expected[1:], atol=2e-5, err_msg=name)
        assert len(found[name].cosines) == 4


def test_the_run_s_own_way_with_all_its_prompts_is_the_run_s_own_direction(study, session):
    found = by_name(result(measure_sensitivity(study, load=session.load)))
    for name in ("as measured", "one at a time"):
        assert found[name].cosines[1:] == pytest.approx([1.0] * 3, abs=1e-5)
        assert math.isnan(found[name].cosines[0])
    assert found["no template"].lowest < 0.99


def test_the_system_prompt_is_left_out_where_there_is_one(study, session):
    with_system = study.profile.model_copy(update={"system_prompt": "Be brief."})
    without = study.profile.model_copy(update={"system_prompt": ""})
    for profile, there in ((with_system, True), (without, False)):
        given = Run(study.path)
        given.__dict__["profile"] = profile
        assert ("no system prompt" in by_name(result(measure_sensitivity(given, load=session.load)))) is there


def test_a_sample_is_taken_from_each_set_and_told(study, session):
    events, found = run(measure_sensitivity(study, 2, load=session.load))
    assert found.prompts == 2
    assert max(event.total for event in events if isinstance(event, Progress)) == 2
    assert any(isinstance(event, PhaseFinished) and "2 + 2 prompts" in event.result for event in events)
    kept = json.loads(sensitivity_path(study).read_text(encoding="utf-8"))
    assert kept["good_prompts"] == GOOD[:2]
    assert kept["bad_prompts"] == BAD[:2]


@pytest.mark.parametrize("estimator", ["mean", "geometric_median"])
def test_the_profile_s_estimator_is_used(study, session, estimator):
    given = Run(study.path)
    given.__dict__["profile"] = study.profile.model_copy(update={"direction_estimator": estimator})
    found = by_name(result(measure_sensitivity(given, load=session.load)))["as measured"].cosines[1:]
    assert (found == pytest.approx([1.0] * 3, abs=1e-7)) is (estimator == "mean")


def test_what_was_found_is_kept_and_read_back(study, session):
    assert load_sensitivity(study) is None
    found = result(measure_sensitivity(study, 3, load=session.load))
    kept = load_sensitivity(study)
    assert kept.prompts == 3
    for one, other in zip(kept.variants, found.variants, strict=True):
        assert (one.name, one.meaning) == (other.name, other.meaning)
        np.testing.assert_array_equal(one.cosines, other.cosines)
    assert "NaN" not in sensitivity_path(study).read_text(encoding="utf-8")


def test_what_was_found_for_other_directions_is_not_shown(study, session):
    result(measure_sensitivity(study, 2, load=session.load))
    path = study.path / DIRECTIONS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert load_sensitivity(study) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"directions": 3, "variants"', "\x00"])
def test_a_damaged_file_is_told(study, content):
    sensitivity_path(study).parent.mkdir(exist_ok=True)
    sensitivity_path(study).write_text(content, encoding="utf-8")
    with pytest.raises(EngineError, match=r"sensitivity.json"):
        load_sensitivity(study)


def test_it_is_read_without_torch(study, session):
    result(measure_sensitivity(study, 2, load=session.load))
    code = (
        "import sys; from pathlib import Path\n"
        "from heretic_tui.engine.runs.run import Run\n"
        "from heretic_tui.engine.inspection.sensitivity import load_sensitivity\n"
        "assert load_sensitivity(Run(Path(sys.argv[1]))).prompts == 2 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(study.path)], check=True)


@pytest.mark.parametrize("events", [1, 4, 7, 10])
def test_a_job_that_is_closed_keeps_nothing_and_leaves_the_model_as_it_was(study, session, events):
    model = session.model
    before = weights_of(model)
    job = measure_sensitivity(study, load=session.load)
    batch_size = study.model()[1].batch_size
    for _ in range(events):
        next(job)
    job.close()
    assert same_weights(model, before)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.layers)
    assert model.batch_size == batch_size or events == 1
    assert not sensitivity_path(study).exists()


def test_a_run_without_directions_and_no_prompts_are_refused_in_words(study, session):
    with pytest.raises(EngineError, match="one prompt"):
        result(measure_sensitivity(study, 0, load=session.load))
    (study.path / DIRECTIONS).unlink()
    with pytest.raises(EngineError, match="no directions"):
        result(measure_sensitivity(study, load=session.load))


# Positions


def tail_of(model, texts, system=""):
    prompts = [Prompt(text, system) for text in texts]
    return template_tail(model, prompts, [model.template(text, system) for text in texts])


def test_the_template_s_end_is_what_all_prompts_share_and_no_word_of_theirs():
    model = tiny_model()
    assert tail_of(model, ["What is it?", "Who is it?"]) == ["\n", "A", ":"]
    assert tail_of(model, ["One"]) == ["\n", "A", ":"]


def test_a_template_that_ends_with_the_prompt_has_no_end_of_its_own_but_its_last_token():
    bare = TEMPLATE.replace("+ '\\n' }}", "}}").replace("'A:'", "''")
    assert len(tail_of(tiny_model(template=bare), ["What?", "Who?"])) == 1


def test_a_long_end_is_cut():
    long = TEMPLATE.replace("'A:'", "'" + "assistant " * 5 + "'")
    assert len(tail_of(tiny_model(template=long), ["What?"])) == 8


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_positions_of_a_padded_batch_are_those_of_each_prompt_alone(architecture):
    model = tiny_model(architecture)
    texts = ["U:Hi\nA:", "U:How long is a river?\nA:"]
    together = batch_positions(model, model.encode(texts), 3)
    assert together.shape == (2, 3, 4, 48)
    for number, text in enumerate(texts):
        torch.testing.assert_close(
            together[number], batch_positions(model, model.encode([text]), 3)[0], atol=1e-4, rtol=0
        )
