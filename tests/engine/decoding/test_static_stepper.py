import logging

import pytest
import torch
from by_the_library import ARCHITECTURES, TEXTS, of_the_library, tokens, with_frequent_ends
from tiny_models import result, tiny_model

from heretic_tui.engine.decoding import static_stepper
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.roomy_cache import attends_to_all, roomy_cache
from heretic_tui.engine.decoding.static_stepper import StaticStepper


@pytest.fixture(autouse=True)
def static_on_the_processor(monkeypatch):
    """Static steps where there is no CUDA: all but the capture."""
    monkeypatch.setattr(static_stepper, "STATIC_ON", "cpu")


def goes_static(model):
    return attends_to_all(roomy_cache(model.network.config)) and static_stepper.suits(model)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_static_steps_write_what_the_library_writes(architecture):
    model = with_frequent_ends(architecture)
    assert tokens(model) == of_the_library(model, TEXTS)
    proved = model.static_steps is not None and model.static_steps.proved
    assert proved == (goes_static(model) and model.static)


def test_the_common_architectures_go_static():
    proved = {}
    for architecture in ("llama", "qwen2", "qwen3"):
        model = tiny_model(architecture)
        tokens(model)
        proved[architecture] = model.static_steps is not None and model.static_steps.proved
    assert proved == dict.fromkeys(proved, True)


def test_a_second_batch_takes_the_same_steps_and_nothing_of_the_first():
    model = tiny_model(batch_size=3)
    assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    steps = model.static_steps
    assert tokens(model, TEXTS[:2]) == of_the_library(tiny_model(), TEXTS[:2])
    assert model.static_steps is steps


def test_a_larger_batch_makes_larger_ones():
    model = tiny_model(batch_size=2)
    tokens(model)
    model.batch_size = 6
    assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    assert model.static_steps.rows == 6


def test_edited_weights_count_in_steps_made_before():
    model, other = tiny_model(), tiny_model()
    tokens(model)
    with torch.no_grad():
        for one in (model, other):
            for layer in one.layers:
                layer.mlp.down_proj.weight.mul_(-1)
    assert tokens(model) == of_the_library(other, TEXTS)


def test_hooks_are_not_passed_by():
    """A captured step would not call them."""
    model = tiny_model()
    model.layers[0].register_forward_hook(lambda module, inputs, output: None)
    tokens(model)
    assert model.static_steps is None


def test_a_step_that_gives_something_else_is_given_up_with_a_word_in_the_log(monkeypatch, caplog):
    model = tiny_model()
    monkeypatch.setattr(static_stepper.StaticStep, "run", lambda self, length: torch.ones(8, 1))
    with caplog.at_level(logging.WARNING):
        assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    assert "other logits than in a plain step" in caplog.text
    assert not model.static
    assert model.static_steps is None


def test_a_step_that_gives_no_numbers_is_given_up(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(static_stepper.StaticStep, "run", lambda self, length: torch.full((8, 1), torch.nan))
    assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    assert not model.static


def test_after_memory_ran_out_the_steps_are_made_anew_for_the_smaller_batch(monkeypatch):
    model = tiny_model(batch_size=6)
    tokens(model)
    run, failed = static_stepper.StaticStep.run, []

    def failing(step, length):
        if not failed:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(step, length)

    monkeypatch.setattr(static_stepper.StaticStep, "run", failing)
    assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    assert (failed, model.batch_size, model.static_steps.rows) == ([True], 3, 3)


def test_a_step_that_is_refused_is_given_up_and_the_answers_are_the_same(monkeypatch, caplog):
    def refuse(step, length):
        raise RuntimeError("operation not permitted when stream is capturing")

    model = tiny_model()
    monkeypatch.setattr(static_stepper.StaticStep, "run", refuse)
    with caplog.at_level(logging.WARNING):
        assert tokens(model) == of_the_library(tiny_model(), TEXTS)
    assert "not permitted when stream is capturing" in caplog.text


def test_rows_that_leave_make_the_step_smaller():
    model = with_frequent_ends(batch_size=6)
    sizes = []
    step = static_stepper.StaticSteps.step

    def told(steps, rows):
        found = step(steps, rows)
        sizes.append(len(found.ids))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_stepper.StaticSteps, "step", told)
        result(generate(model, TEXTS, 24, "test"))
    assert sizes[0] == 6
    assert sizes[-1] < 6


def test_a_stepper_says_where_its_rows_are_after_some_left():
    model = tiny_model()
    stepper = StaticStepper(model, model.encode(TEXTS), 8)
    plain = StaticStepper.__mro__[1](model, model.encode(TEXTS))
    for kept in (None, [0, 2, 5], None, [1, 2], None):
        if kept is not None:
            stepper.keep(torch.tensor(kept))
            plain.keep(torch.tensor(kept))
        chosen = plain.logits.argmax(dim=-1)
        stepper.step(chosen)
        plain.step(chosen)
        torch.testing.assert_close(stepper.logits, plain.logits, atol=1e-4, rtol=1e-4)
