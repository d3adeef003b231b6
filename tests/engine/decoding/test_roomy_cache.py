import pytest
import torch
from by_the_library import ARCHITECTURES, LENGTH, of_the_library, with_frequent_ends
from tiny_models import result, tiny_model
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from heretic_tui.engine.decoding import stepper
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.log_probabilities import first_token_log_probabilities
from heretic_tui.engine.decoding.roomy_cache import ROOM, RoomyLayer, attends_to_all, roomy_cache
from heretic_tui.engine.decoding.stepper import Stepper

OPENING = "S:you are a helpful assistant\nU:"
TEXTS = [f"{OPENING}{question}\nA:" for question in ("x", "what is the capital of France, and of Spain?", "why", "x2")]


# The cache


def some(rows, tokens, seed):
    torch.manual_seed(seed)
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


def test_a_layer_with_room_returns_what_the_library_s_returns():
    ours, theirs = RoomyLayer(), DynamicLayer()
    for seed, tokens in enumerate([5, 1, 1, ROOM, 3, 1, 2 * ROOM]):
        new = some(3, tokens, seed)
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


@pytest.mark.parametrize("rows", [[0, 2], [2], [1, 1, 0, 2, 2]])
def test_chosen_rows_go_on_as_the_library_s_do(rows):
    ours, theirs = RoomyLayer(), DynamicLayer()
    for layer in (ours, theirs):
        layer.update(*some(3, 5, 0))
        layer.batch_select_indices(torch.tensor(rows))
    new = some(len(rows), 2, 1)
    for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
        assert torch.equal(one, other)


def test_a_step_does_not_move_what_is_there():
    layer = RoomyLayer()
    layer.update(*some(3, 5, 0))
    place = layer.keys.data_ptr()
    for seed in range(ROOM):
        layer.update(*some(3, 1, seed))
    assert layer.keys.data_ptr() == place


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_plain_attention_layers_are_given_room(architecture):
    config = tiny_model(architecture).network.config
    for ours, theirs in zip(roomy_cache(config).layers, DynamicCache(config=config).layers, strict=True):
        assert type(ours) is (RoomyLayer if type(theirs) is DynamicLayer else type(theirs))


# The common opening of all prompts


def tokens(model, texts=TEXTS, length=LENGTH):
    return [found.tokens for found in result(generate(model, texts, length, "test"))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prompts_with_a_common_opening_are_answered_as_the_library_answers_them(architecture):
    model = with_frequent_ends(architecture)
    assert tokens(model) == of_the_library(model, TEXTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_opening_is_read_once_where_every_layer_attends_to_all(architecture):
    model = tiny_model(architecture)
    read = []
    model.network.get_input_embeddings().register_forward_hook(lambda _, inputs, output: read.append(inputs[0].shape))
    Stepper(model, model.encode(TEXTS))
    whole = tuple(model.encode(TEXTS).ids.shape)
    if attends_to_all(roomy_cache(model.network.config)) and "position_ids" in model.forward_names:
        assert [tuple(shape) for shape in read] == [(1, len(OPENING)), (len(TEXTS), whole[1] - len(OPENING))]
    else:
        assert [tuple(shape) for shape in read] == [whole]


def test_a_sliding_window_is_kept_from_gaps_and_plain_attention_is_not():
    assert attends_to_all(roomy_cache(tiny_model("llama").network.config))
    assert not attends_to_all(roomy_cache(tiny_model("gemma3").network.config))


@pytest.mark.parametrize("texts", [[TEXTS[0]] * 3, [TEXTS[0], TEXTS[0] + "x"], [OPENING, *TEXTS], TEXTS[:1]])
def test_prompts_that_are_the_beginning_of_others_keep_a_token_of_their_own(texts):
    model = tiny_model()
    assert tokens(model, texts) == of_the_library(model, texts)


def test_the_first_token_s_distribution_is_that_without_a_common_opening(monkeypatch):
    model = tiny_model(batch_size=4)
    found = result(first_token_log_probabilities(model, TEXTS, "test"))
    monkeypatch.setattr(stepper, "SHORTEST_OPENING", 10_000)
    torch.testing.assert_close(found, result(first_token_log_probabilities(model, TEXTS, "test")))


def test_a_repetition_penalty_sees_the_opening_too():
    model = with_frequent_ends()
    model.network.generation_config.repetition_penalty = 1.3
    assert tokens(model) == of_the_library(model, TEXTS)
