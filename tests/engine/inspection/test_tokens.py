"""Tokens and the stream at each of them, against the engine's own residual vectors and plain NumPy."""

import json
import sys

import numpy as np
import pytest
import torch
from looking import holding, subject
from tiny_models import CONFIGS, SPECIAL, result, run, same_weights, tiny_model, tiny_tokenizer, weights_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heretic_tui.engine.ablation.residuals import batch_residuals
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.contexts import TopK, find_contexts
from heretic_tui.engine.inspection.direction import Part, check_width, direction, layer_name, mixed, row_of
from heretic_tui.engine.inspection.pieces import own_span, pieces_of
from heretic_tui.engine.inspection.reading import Subject, read_tokens, stream_at, streams
from heretic_tui.engine.inspection.token_files import tokens_as_csv, tokens_as_json
from heretic_tui.engine.inspection.token_view import TokenReading, TokensRead, figure, scale_of, signed
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.runs.run import Run
from heretic_tui.profile.schema import Profile

NASTY = [
    "[bold]x[/]",
    "\x1b[31mred",
    "a\u202eb",
    "宽字符",
    "e\u0301 a\u0308",
    "👩‍👩‍👧",
    "\x00",
    "a\n\n b\t",
    " ",
    "\u0301start",
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def merging_tokenizer():
    """Byte pairs with a merge that crosses from a space into the first byte of a wide character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    wide = tiny_tokenizer().tokenize(" 宽")
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, wide[0] + wide[1]])}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[(wide[0], wide[1])]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", eos_token="<eos>")


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("make", [tiny_tokenizer, merging_tokenizer])
def test_pieces_put_together_are_the_text_whatever_stands_in_it(make, text):
    tokenizer = make()
    text = f"U:{text}<eos>\nA:"
    pieces = pieces_of(tokenizer, text)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.token for piece in pieces] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [piece.text for piece in pieces if piece.special] == ["<eos>"]


def test_a_token_that_is_a_part_of_a_character_says_which():
    pieces = pieces_of(tiny_tokenizer(), "a宽b")
    assert [(piece.text, piece.part, piece.parts) for piece in pieces] == [
        ("a", 1, 1),
        ("宽", 1, 3),
        ("", 2, 3),
        ("", 3, 3),
        ("b", 1, 1),
    ]


def test_a_token_that_ends_inside_a_character_keeps_what_stands_before_it():
    pieces = pieces_of(merging_tokenizer(), "a 宽")
    assert [(piece.text, piece.part, piece.parts) for piece in pieces] == [
        ("a", 1, 1),
        (" 宽", 1, 3),
        ("", 2, 3),
        ("", 3, 3),
    ]


def test_the_prompts_own_tokens_are_told_from_the_templates():
    model = tiny_model()
    text = model.template("Hi A:", "Hi A: said")
    own = [piece.text for piece in pieces_of(model.tokenizer, text, own_span(text, "Hi A:")) if piece.own]
    assert "".join(own) == "Hi A:"


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_the_last_position_is_the_engines_residual_vector(architecture):
    model = tiny_model(architecture)
    text = model.template("Where is the river?", "Be kind.")
    whole = streams(model, text)
    assert whole.shape == (len(model.tokenizer(text)["input_ids"]), 4, model.facts.width)
    assert torch.equal(whole[-1], batch_residuals(model, model.encode([text]))[0])


def test_a_row_alone_is_the_same_and_later_layers_are_not_computed(model):
    text = model.template("Where is the river?")
    whole = streams(model, text)
    calls = []
    handle = model.layers[2].register_forward_hook(lambda *_: calls.append(1))
    try:
        for row in range(3):
            assert torch.equal(stream_at(model, model.encode([text]), row)[0], whole[:, row])
        assert not calls
        assert torch.equal(stream_at(model, model.encode([text]), 3)[0], whole[:, 3])
    finally:
        handle.remove()


def test_no_hook_is_left_even_when_a_pass_fails(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(model.layers[1], "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            streams(model, "abc")
    result(read_tokens(subject(), "abc", load=holding(model)))
    for layer in model.layers:
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks


def test_values_are_dot_products_of_any_direction_at_any_layer(model):
    events, (reading,) = run(read_tokens(subject(), "Where is the river?", load=holding(model)))
    found = direction("random", np.random.default_rng(1).normal(size=48))
    assert isinstance(events[-1], TokensRead)
    unit = found.vector.astype(np.float64)
    for row in range(reading.rows):
        rows = reading.streams[:, row].astype(np.float64)
        dots = rows @ unit
        np.testing.assert_allclose(reading.values(found, row), dots, rtol=1e-4, atol=1e-4)
        cosines = dots / np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(reading.values(found, row, "cosine"), cosines, rtol=1e-4, atol=1e-5)
        middle = (dots[1:] if reading.giant(row) else dots).mean()
        np.testing.assert_allclose(reading.values(found, row, "less the mean"), dots - middle, rtol=1e-3, atol=1e-4)


def test_a_trial_is_read_with_its_weights_and_the_original_comes_back(study):
    session = Session()
    of_run = Subject.of_run(Run(study.path))
    original, trial = result(read_tokens(of_run, "Open it", [0, 1], load=session.load))
    before = weights_of(session.model)
    assert (original.trial, trial.trial) == (0, 1)
    assert original.pieces == trial.pieces
    assert not np.array_equal(original.streams, trial.streams)
    again = result(read_tokens(of_run, "Open it", [0], load=session.load))[0]
    assert np.array_equal(again.streams, original.streams)
    assert same_weights(session.model, before)


def test_a_reading_that_fails_puts_the_weights_back(study, monkeypatch):
    session = Session()
    of_run = Subject.of_run(Run(study.path))
    result(read_tokens(of_run, "Open it", load=session.load))
    before = weights_of(session.model)
    monkeypatch.setattr(session.model.layers[1], "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result(read_tokens(of_run, "Open it", [1], load=session.load))
    assert same_weights(session.model, before)


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_refused(model, prompt):
    with pytest.raises(EngineError, match="no prompt to read"):
        result(read_tokens(subject(), prompt, load=holding(model)))


def test_a_prompt_longer_than_the_context_is_refused(model):
    with pytest.raises(EngineError, match="the model's context 512"):
        result(read_tokens(subject(), "long " * 300, load=holding(model)))


def test_half_a_surrogate_pair_is_read_as_a_question_mark(model):
    (reading,) = result(read_tokens(subject(), "a\ud800b", load=holding(model)))
    assert reading.prompt == "a?b"


def test_another_width_is_refused_with_both_widths(model):
    (reading,) = result(read_tokens(subject(), "abc", load=holding(model)))
    with pytest.raises(EngineError, match="has 7 numbers, the residual stream of the model has 48"):
        reading.dots(direction("short", np.ones(7)), 1)


def test_the_scale_is_symmetric_and_common_to_what_is_compared():
    scale = scale_of(np.array([1.0, -3.0]), np.array([2.0, 0.5]))
    assert scale.limit == 3.0
    assert [scale.share(value) for value in (-6, -3, 0, 1.5)] == [-1, -1, 0, 0.5]


def test_a_giant_first_token_takes_the_colour_from_no_other():
    streams_ = np.full((6, 2, 4), 0.5, np.float32)
    streams_[0, 1] = 500
    reading = TokenReading("x", (), streams_)
    assert not reading.giant(0)
    assert reading.giant(1)
    values = reading.dots(direction("d", np.ones(4)), 1)
    scale = scale_of(values, without_first=True)
    assert scale.limit == pytest.approx(1.0)
    assert "first token left out" in scale.words
    assert scale_of(np.zeros(0)).share(1.0) == 0.0
    assert scale_of(np.array([0.0, 0.0])).share(0.0) == 0.0


def test_figures_have_three_digits_and_a_sign():
    assert [figure(value) for value in (0, 12.34, 0.00412, 1234.5)] == ["0", "12.3", "0.0041", "1234"]
    assert signed(-1.5) == "−1.50"
    assert signed(1.5) == "+1.50"


def test_layers_are_named_as_everywhere():
    assert [layer_name(row) for row in range(3)] == ["in", "0", "1"]
    assert [row_of(name, 3) for name in ("in", "0", "1")] == [0, 1, 2]
    for wrong in ("2", "-1", "x", ""):
        with pytest.raises(EngineError, match="There is no layer"):
            row_of(wrong, 3)


def test_a_mix_is_the_normalized_sum():
    rng = np.random.default_rng(0)
    a, b = (direction(name, rng.normal(size=8), row=2, run="r") for name in "ab")
    found = mixed([Part(a, 0.5), Part(b, -0.25)])
    expected = 0.5 * a.vector.astype(np.float64) - 0.25 * b.vector
    np.testing.assert_allclose(found.vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert (found.row, found.run) == (2, "r")
    for parts, words in (
        ([Part(a, 0.0)], "All weights of the mix are 0"),
        ([Part(a, 1.0), Part(a, -1.0)], "cancel each other out"),
        ([Part(a, 1.0), Part(direction("c", np.ones(3)), 1.0)], "8 numbers and c has 3"),
    ):
        with pytest.raises(EngineError, match=words):
            mixed(parts)


@pytest.mark.parametrize(
    ("vector", "words"),
    [(np.zeros(4), "zero everywhere"), (np.array([1, np.nan]), "first at place 1"), (np.ones((2, 2)), "shape")],
)
def test_what_points_nowhere_is_no_direction(vector, words):
    with pytest.raises(EngineError, match=words):
        direction("it", vector)


def test_a_direction_that_fits_is_let_through():
    check_width(direction("it", np.ones(4)), 4)


def test_the_files_hold_every_token(model):
    (reading,) = result(read_tokens(subject(), 'a "b",\n宽', load=holding(model)))
    found = direction("d", np.ones(48))
    values = reading.values(found, 2)
    lines = tokens_as_csv(reading, found, 2, values)
    assert lines.startswith("place,layer,token,text,value\n0,1,")
    content = json.loads(tokens_as_json(reading, found, 2, values))
    assert "".join(one["text"] for one in content["tokens"]) == model.template('a "b",\n宽')
    assert content["tokens"][3]["value"] == pytest.approx(float(values[3]), abs=1e-5)


# Tokens in context


def contexts(model, tmp_path, prompts, **options):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(prompts), encoding="utf-8")
    profile = Profile(system_prompt="", batch_size=4, response_prefix="", good_prompts={"dataset": str(path)})
    vector = direction("d", np.random.default_rng(3).normal(size=48))
    of = Subject("tiny", profile)
    return vector, result(find_contexts(of, vector, 2, profile.good_prompts, load=holding(model), **options))


def test_the_tokens_of_the_set_with_the_largest_values_are_found(model, tmp_path):
    prompts = ["Tell me of rivers", "Tell me of hills", "A song", "宽 [bold]x[/] \u202e"]
    vector, found = contexts(model, tmp_path, prompts, top=5)
    everything = []
    for number, prompt in enumerate(prompts):
        text = model.template(prompt)
        pieces = pieces_of(model.tokenizer, text, own_span(text, prompt))
        dots = streams(model, text)[:, 2].numpy().astype(np.float64) @ vector.vector
        for place, (piece, dot) in enumerate(zip(pieces, dots, strict=True)):
            prefix = tuple(one.token for one in pieces[: place + 1])
            if piece.own:
                everything.append((dot, prefix, number, place))
    distinct = {prefix: dot for dot, prefix, _, _ in everything}
    values = sorted(distinct.values())
    np.testing.assert_allclose([one.value for one in found.positive], values[::-1][:5], rtol=1e-4)
    np.testing.assert_allclose([one.value for one in found.negative], values[:5], rtol=1e-4)
    assert found.tokens == len(everything)
    for one in (*found.positive, *found.negative):
        assert one.whole == prompts[one.prompt]
        assert (one.before + one.text + one.behind) in one.whole


def test_prompts_that_begin_alike_share_a_place_and_are_counted(model, tmp_path):
    _, found = contexts(model, tmp_path, [f"Tell {n}" for n in "abcdefghijkl"], top=40)
    shared = {one.text: one.times for one in found.positive if one.before in {"", "T", "Te"}}
    assert shared["T"] == 12
    assert len({(one.before, one.text) for one in found.positive}) == len(found.positive)


def test_the_templates_tokens_count_only_if_that_is_wanted(model, tmp_path):
    _, own = contexts(model, tmp_path, ["abc"], top=50)
    _, whole = contexts(model, tmp_path, ["abc"], top=50, whole=True)
    assert sorted(one.text for one in own.positive) == ["a", "b", "c"]
    assert len(whole.positive) == len(pieces_of(model.tokenizer, model.template("abc")))


def test_what_was_found_is_kept_in_the_run_and_found_again_without_the_model(study):
    run_ = Run(study.path)
    found = direction("d", np.ones(48))
    prompts = run_.profile.good_prompts
    first = result(find_contexts(Subject.of_run(run_), found, 1, prompts, load=Session().load))

    def refuse(*_):
        raise AssertionError("the model is not needed")

    again = result(find_contexts(Subject.of_run(run_), found, 1, prompts, number=7, load=refuse))
    assert (again.positive, again.negative, again.number) == (first.positive, first.negative, 7)
    with pytest.raises(AssertionError):
        result(find_contexts(Subject.of_run(run_), found, 2, prompts, load=refuse))
    (kept,) = (run_.path / "inspection").glob("contexts-*.json")
    kept.write_text("{", encoding="utf-8")
    with pytest.raises(EngineError, match="is damaged"):
        result(find_contexts(Subject.of_run(run_), found, 1, prompts, load=refuse))


def test_the_largest_values_are_held_in_memory_that_does_not_grow():
    top, rng = TopK(10), np.random.default_rng(0)
    values = rng.normal(size=5000)
    for number, value in enumerate(values):
        top.offer(float(value), number.to_bytes(4, "big"), number, 0)
        assert len(top._held) <= 10
    assert [held.value for held in top.best()] == sorted(values.tolist(), reverse=True)[:10]


def test_reading_tokens_from_what_is_there_needs_no_torch():
    from pathlib import Path
    from subprocess import run as start

    parts = "token_view, token_files, components, direction, direction_library, shelf, contexts, words, vector_files"
    code = f"import sys; from heretic_tui.engine.inspection import {parts}; assert 'torch' not in sys.modules"
    done = start([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
