import pytest
import torch
from tiny_models import result, run, tiny_model

from heretic_tui.engine.ablation.residuals import residual_mean, residuals
from heretic_tui.engine.decoding import stepper
from heretic_tui.engine.decoding.batch_size import choose_batch_size
from heretic_tui.engine.decoding.batching import in_batches
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Tick
from heretic_tui.engine.memory import out_of_memory

TEXTS = ["U:one\nA:", "U:two and more\nA:", "U:three\nA:", "U:four\nA:", "U:five\nA:"]


class Device:
    """Stands for a model on a device that takes `room` items at a time."""

    def __init__(self, batch_size, room, error=None):
        self.batch_size = batch_size
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.tried = []

    def compute(self, batch, done):
        yield Tick()
        self.tried.append((done, len(batch)))
        if len(batch) > self.room:
            raise self.error
        return [item * 10 for item in batch]


def notes(events):
    return [event for event in events if isinstance(event, Note)]


def test_everything_is_computed_in_batches_and_in_order():
    device = Device(batch_size=4, room=4)
    assert result(in_batches(device, range(10), device.compute)) == [item * 10 for item in range(10)]
    assert device.tried == [(0, 4), (4, 4), (8, 2)]


def test_where_memory_runs_out_the_batch_is_halved_and_nothing_is_lost():
    device = Device(batch_size=8, room=3)
    events, found = run(in_batches(device, range(10), device.compute))
    assert found == [item * 10 for item in range(10)]
    assert device.tried == [(0, 8), (0, 4), (0, 2), (2, 2), (4, 2), (6, 2), (8, 2)]
    assert [(note.level, note.text) for note in notes(events)] == [
        ("warning", "Out of memory with 8 prompts at a time; going on with 4."),
        ("warning", "Out of memory with 4 prompts at a time; going on with 2."),
    ]


def test_the_smaller_batch_stays_for_the_rest_of_the_session():
    device = Device(batch_size=8, room=3)
    result(in_batches(device, range(10), device.compute))
    assert device.batch_size == 2


def test_a_short_batch_that_fails_is_halved_from_its_own_size():
    device = Device(batch_size=100, room=3)
    result(in_batches(device, range(5), device.compute))
    assert device.tried[:2] == [(0, 5), (0, 2)]


def test_memory_that_runs_out_at_a_single_prompt_is_an_error():
    device = Device(batch_size=4, room=0)
    with pytest.raises(EngineError, match="single prompt") as failure:
        result(in_batches(device, range(4), device.compute))
    assert failure.value.remedy


def test_other_errors_pass_through():
    device = Device(batch_size=4, room=0, error=ValueError("boom"))
    with pytest.raises(ValueError, match="boom"):
        result(in_batches(device, range(4), device.compute))
    assert device.tried == [(0, 4)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_memory_errors_are_told_by_type_and_text(error):
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("memory")])
def test_other_errors_are_no_memory_errors(error):
    assert not out_of_memory(error)


# With a model


@pytest.fixture
def tight():
    """A model whose network takes two prompts at most, as a device with little memory would."""
    model = tiny_model(batch_size=5)

    def check(_, args, options):
        ids = options["input_ids"]
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.network.register_forward_pre_hook(check, with_kwargs=True)
    model.network.base_model.register_forward_pre_hook(check, with_kwargs=True)
    return model


def test_responses_are_complete_and_the_same_after_memory_ran_out(tight):
    events, found = run(generate(tight, TEXTS, 8, "test"))
    assert found == result(generate(tiny_model(), TEXTS, 8, "test"))
    assert len(notes(events)) == 1


def test_memory_that_runs_out_in_the_middle_of_a_batch_does_no_harm(monkeypatch):
    step, calls = stepper.Stepper.step, []

    def failing(self, tokens):
        calls.append(len(tokens))
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        step(self, tokens)

    monkeypatch.setattr(stepper.Stepper, "step", failing)
    model = tiny_model(batch_size=5)
    found = result(generate(model, TEXTS, 8, "test"))
    monkeypatch.undo()
    assert found == result(generate(tiny_model(), TEXTS, 8, "test"))


def test_residuals_are_complete_and_the_same_after_memory_ran_out(tight):
    torch.testing.assert_close(
        result(residuals(tight, TEXTS, "test")),
        result(residuals(tiny_model(), TEXTS, "test")),
        rtol=1e-4,
        atol=1e-4,
    )


def test_no_prompt_is_summed_twice_after_memory_ran_out(tight):
    mean = result(residual_mean(tight, TEXTS, "test"))
    expected = result(residuals(tiny_model(), TEXTS, "test")).double().mean(dim=0)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)


# The best batch size


def test_the_batch_size_is_no_larger_than_the_prompts_or_what_is_allowed():
    assert 1 <= result(choose_batch_size(tiny_model(), TEXTS, 8, 100))[0] <= len(TEXTS)
    assert 1 <= result(choose_batch_size(tiny_model(), TEXTS, 8, 3))[0] <= 3


def test_a_size_at_which_memory_runs_out_is_not_chosen(tight, monkeypatch):
    size, speed = result(choose_batch_size(tight, TEXTS, 8, 2))
    assert size <= 2
    assert speed > 0
    assert result(choose_batch_size(tight, TEXTS, 8, 100))[0] <= 2
