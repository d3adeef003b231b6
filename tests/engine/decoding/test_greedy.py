import numpy as np
import pytest
import torch
from by_the_library import ARCHITECTURES, LENGTH, TEXTS, of_the_library, tokens, with_frequent_ends
from tiny_models import PAD, result, run, tiny_model

from heretic_tui.engine.chat.conversation import Sampling
from heretic_tui.engine.chat.streaming import stream
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.log_probabilities import answer_log_probabilities, first_token_log_probabilities
from heretic_tui.engine.decoding.stepper import logits_processor, probe
from heretic_tui.engine.events import Progress, TextGenerated

# Greedy decoding is the library's


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generate_writes_what_the_library_writes(architecture):
    model = tiny_model(architecture)
    assert tokens(model) == of_the_library(model, TEXTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generate_writes_what_the_library_writes_of_one_prompt_at_a_time(architecture):
    model = tiny_model(architecture)
    assert tokens(model) == [of_the_library(model, [text])[0] for text in TEXTS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_end_leave_the_others_as_the_library_has_them(architecture):
    model = with_frequent_ends(architecture)
    found = tokens(model)
    assert found == of_the_library(model, TEXTS)
    assert len({len(row) for row in found}) > 1


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_a_repetition_penalty_counts_as_it_does_in_the_library(architecture):
    model = with_frequent_ends(architecture)
    without = tokens(model)
    model.network.generation_config.repetition_penalty = 1.3
    assert tokens(model) == of_the_library(model, TEXTS)
    assert tokens(model) != without


def test_forbidden_repetitions_and_suppressed_tokens_count_as_they_do_in_the_library():
    model = with_frequent_ends()
    settings = model.network.generation_config
    settings.no_repeat_ngram_size, settings.suppress_tokens = 3, [tokens(model)[1][0]]
    assert tokens(model) == of_the_library(model, TEXTS)


def test_settings_that_do_nothing_cost_nothing():
    assert logits_processor(tiny_model()) is None


def test_the_text_is_that_of_the_tokens():
    model = tiny_model()
    for found in result(generate(model, TEXTS, LENGTH, "test")):
        assert found.text == bytes_of(model, found.tokens).decode("utf-8", errors="replace")


def bytes_of(model, row):
    """The bytes that a row of byte tokens stands for, by the byte-level alphabet: the rest stand from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [value for value in range(256) if value not in shown]
    values = {chr(value): value for value in shown} | {chr(256 + place): value for place, value in enumerate(rest)}
    return bytes(values[model.tokenizer.convert_ids_to_tokens(token)] for token in row if token < 256)


def test_special_tokens_are_not_part_of_the_text():
    model = tiny_model()
    assert model.decode([[PAD, model.tokenizer.convert_tokens_to_ids("A")]]) == ["A"]


# Ends


def test_a_row_leaves_the_batch_at_its_end_token():
    found = result(generate(with_frequent_ends(), TEXTS, LENGTH, "test"))
    assert {response.ended for response in found} == {"eos", "length"}
    assert all((response.ended == "length") == (len(response.tokens) == LENGTH) for response in found)


def test_an_end_token_at_once_gives_an_empty_response():
    model = tiny_model()
    model.network.generation_config.eos_token_id = tokens(model, TEXTS[:1])[0][0]
    del model.__dict__["end_tokens"]
    found = result(generate(model, TEXTS[:1], LENGTH, "test"))[0]
    assert (found.text, found.tokens, found.ended) == ("", (), "eos")


def test_the_tokenizer_s_end_token_ends_a_response_too():
    model = tiny_model()
    model.network.generation_config.eos_token_id = [3, 7]
    assert model.end_tokens == {3, 7, model.tokenizer.eos_token_id}


def test_no_response_is_longer_than_asked():
    assert [len(row) for row in tokens(tiny_model(), length=5)] == [5] * len(TEXTS)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mistral"])
def test_a_decided_row_ends_early_and_the_others_do_not_change(architecture):
    model = tiny_model(architecture)
    plain = result(generate(model, TEXTS, LENGTH, "test"))
    chosen = {plain[1].text[:3], plain[4].text[:3]}
    found = result(generate(model, TEXTS, LENGTH, "test", lambda text: text[:3] in chosen))
    for one, other in zip(found, plain, strict=True):
        if other.text[:3] in chosen:
            assert one.ended == "decided"
            assert len(one.tokens) < LENGTH
            assert one.tokens == other.tokens[: len(one.tokens)]
        else:
            assert one == other
    assert {response.ended for response in found} > {"decided"}


def test_a_batch_whose_rows_are_all_decided_is_over():
    found = result(generate(tiny_model(), TEXTS, 10_000, "test", lambda text: True))
    assert {response.ended for response in found} == {"decided"}


def test_every_beginning_that_is_judged_is_a_beginning_of_the_response():
    model, seen = with_frequent_ends(), []
    found = result(generate(model, TEXTS, LENGTH, "test", lambda text: seen.append(text) or False))
    whole = [bytes_of(model, response.tokens) for response in found]
    for beginning in seen:
        beginning = beginning.rstrip("\ufffd").encode()
        assert any(text.decode("utf-8", errors="replace").encode().startswith(beginning) for text in whole)


# Order


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_responses_come_in_the_order_of_the_prompts(batch_size):
    model = tiny_model()
    together = tokens(model)
    model.batch_size = batch_size
    assert tokens(model) == together
    assert tokens(model, TEXTS[::-1]) == together[::-1]


def test_progress_ends_at_the_number_of_prompts_and_never_falls():
    events, _ = run(generate(with_frequent_ends(batch_size=2), TEXTS, LENGTH, "answers"))
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] <= len(TEXTS)
    assert {event.phase for event in events} == {"answers"}


# Log-probabilities


def float64_log_probabilities(model, ids):
    """Of every next token `(tokens, vocabulary)`, from one unpadded prompt and a float64 softmax."""
    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def ids_of(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_token_log_probabilities_are_those_of_each_prompt_alone(architecture):
    model = tiny_model(architecture, batch_size=4)
    found = result(first_token_log_probabilities(model, TEXTS, "test"))
    assert found.dtype == torch.float32
    for text, row in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(row.numpy(), float64_log_probabilities(model, ids_of(model, text))[-1], atol=2e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answer_log_probabilities_are_those_of_teacher_forcing_each_prompt_alone(architecture):
    model = tiny_model(architecture, batch_size=4)
    answers = [(), (65,), (65, 66, 67, 68), (1, 2), (9, 8, 7, 6, 5, 4, 3), (200, 100)]
    found = result(answer_log_probabilities(model, TEXTS, answers, "test"))
    for text, answer, rows in zip(TEXTS, answers, found, strict=True):
        prompt = ids_of(model, text)
        whole = float64_log_probabilities(model, prompt + list(answer))
        positions = [len(prompt) - 1 + place for place in range(max(1, len(answer)))]
        np.testing.assert_allclose(rows.numpy(), whole[positions], atol=2e-4)


def test_answers_that_are_all_empty_give_the_first_token():
    model = tiny_model()
    found = result(answer_log_probabilities(model, TEXTS, [()] * len(TEXTS), "test"))
    torch.testing.assert_close(torch.cat(found), result(first_token_log_probabilities(model, TEXTS, "test")))


def test_log_probabilities_are_raw_whatever_the_generation_settings():
    model = tiny_model()
    plain = result(first_token_log_probabilities(model, TEXTS, "test"))
    model.network.generation_config.suppress_tokens = [1, 2, 3]
    assert torch.equal(result(first_token_log_probabilities(model, TEXTS, "test")), plain)


# Streaming


@pytest.mark.parametrize("text", TEXTS[:3])
def test_a_stream_is_what_generate_writes(text):
    model = with_frequent_ends()
    model.network.generation_config.repetition_penalty = 1.2
    assert (
        result(stream(model, text, Sampling(max_tokens=LENGTH))) == result(generate(model, [text], LENGTH, "test"))[0]
    )


@pytest.mark.parametrize("length", range(1, 12))
def test_the_pieces_of_a_stream_make_up_the_whole(length):
    for seed in range(3):
        events, whole = run(stream(tiny_model(seed=seed), TEXTS[1], Sampling(max_tokens=length)))
        assert "".join(event.text for event in events if isinstance(event, TextGenerated)) == whole.text


# Stopping


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_closing_a_job_leaves_the_model_usable(steps):
    model = tiny_model()
    before = tokens(model)
    job = generate(model, TEXTS, LENGTH, "test")
    for _ in range(steps):
        next(job)
    job.close()
    assert tokens(model) == before


def test_closing_a_stream_leaves_the_model_usable():
    model = tiny_model()
    before = tokens(model)
    job = stream(model, TEXTS[0], Sampling(max_tokens=LENGTH))
    next(job)
    job.close()
    assert tokens(model) == before


def test_no_gradient_mode_outlives_a_yield():
    job = generate(tiny_model(), TEXTS, LENGTH, "test")
    next(job)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    job.close()


def test_a_probe_takes_some_time_for_reading_and_for_a_step():
    model = tiny_model()
    prefill, step = result(probe(model, model.encode(TEXTS)))
    assert prefill > 0
    assert step > 0


def test_the_head_is_never_fed_a_strided_slice():
    """A matrix product with a strided input copies the whole head once a row."""
    model = tiny_model("llama")
    seen = []
    model.network.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.append(inputs[0].is_contiguous())
    )
    result(generate(model, TEXTS, 3, "test"))
    result(first_token_log_probabilities(model, TEXTS, "test"))
    assert seen
    assert all(seen)
