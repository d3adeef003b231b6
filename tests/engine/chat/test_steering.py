"""Steering: what a candidate says, and what the hooks do to the stream, against independent float64 computations."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import WIDTH, result, run, same_weights, tiny_model, unit, weights_of
from torch import nn

from heretic_tui import paths
from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.residuals import captured, residuals
from heretic_tui.engine.ablation.stream_edits import adding, adding_relative, changed, plane, removing, rotating
from heretic_tui.engine.chat.conversation import ChatMessage, Original, Sampling, Turn
from heretic_tui.engine.chat.steering import (
    Given,
    OfComponent,
    OfLayer,
    Saved,
    Steered,
    read_layers,
    read_steered,
    source_of,
)
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import AnswerFinished, TextGenerated
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.residual_sets import ResidualSets, residuals_path, save_residual_sets
from heretic_tui.engine.inspection.run_directions import load_run_directions
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import chat
from heretic_tui.engine.runs.run import DIRECTIONS
from heretic_tui.layer_ranges import shown_layers

TEXTS = ["U:Hello\nA:", "U:How long is a river?\nA:"]
ARCHITECTURES = ["llama", "gemma3", "gpt2", "qwen3", "glm4", "olmo2"]


def stream(rows=5, width=WIDTH, seed=0):
    return torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed))


def rotated(vectors, first, second, degrees):
    """Rotation in float64 by a full matrix: written another way than the program's."""
    x, a, b = (np.asarray(one, dtype=np.float64) for one in (vectors, first, second))
    basis, _ = np.linalg.qr(np.stack([a, b], axis=1))
    basis *= np.sign([basis[:, 0] @ a, basis[:, 1] @ b])
    u, v = basis.T
    angle = np.deg2rad(degrees)
    matrix = (
        np.eye(len(a))
        + np.sin(angle) * (np.outer(v, u) - np.outer(u, v))
        + (np.cos(angle) - 1) * (np.outer(u, u) + np.outer(v, v))
    )
    return x @ matrix.T


# What happens to a stream


def test_a_vector_is_added_at_every_position():
    x, v = stream(), 3 * unit()
    np.testing.assert_allclose(adding(v)(x), x.double() + v.double(), atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, -2.0])
def test_a_relative_addition_is_as_long_as_the_stream_is_at_each_position(strength):
    x, v = stream(), unit()
    added = adding_relative(v, strength)(x).double() - x.double()
    np.testing.assert_allclose(added.norm(dim=-1), abs(strength) * x.double().norm(dim=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(added @ v.double(), strength * x.double().norm(dim=-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_removing_takes_its_share_of_the_component_and_nothing_else(strength):
    x, v = stream(), unit()
    expected = x.double() - strength * (x.double() @ v.double())[..., None] * v.double()
    np.testing.assert_allclose(removing(v, strength)(x), expected, atol=1e-6)
    np.testing.assert_allclose(
        removing(v, strength)(x).double() @ v.double(), (1 - strength) * (x.double() @ v.double()), atol=1e-6
    )


@pytest.mark.parametrize("degrees", [0, 1, 30, 90, 137.5, 180, 270, 360, 720, -45, 1e6])
def test_a_rotation_is_one_in_float64(degrees):
    x, a, b = stream(), unit(1), unit(2) * 7
    turned = rotating(a, b, degrees)(x)
    np.testing.assert_allclose(turned, rotated(x, a, b, degrees), atol=2e-6)
    np.testing.assert_allclose(turned.double().norm(dim=-1), x.double().norm(dim=-1), rtol=1e-6)


@pytest.mark.parametrize("degrees", [0, 360, -720])
def test_a_whole_turn_changes_not_a_bit(degrees):
    x = stream()
    assert torch.equal(rotating(unit(1), unit(2), degrees)(x), x)


def test_half_a_turn_reverses_the_plane_and_leaves_the_rest():
    x, a, b = stream(), unit(1), unit(2)
    axes = plane(a, b)
    turned = rotating(a, b, 180)(x).double()
    np.testing.assert_allclose(turned @ axes.T, -(x.double() @ axes.T), atol=1e-6)
    outside = torch.eye(WIDTH, dtype=torch.float64) - axes.T @ axes
    np.testing.assert_allclose(turned @ outside, x.double() @ outside, atol=1e-6)


def test_a_positive_angle_turns_from_the_first_direction_towards_the_second():
    a, b = unit(1), unit(2)
    angle = math.degrees(math.acos(float(a.double() @ b.double())))
    np.testing.assert_allclose(rotating(a, b, angle)(a), b, atol=1e-6)


@given(st.floats(-400, 400), st.floats(-400, 400), st.integers(0, 50))
def test_two_rotations_are_one_by_the_sum_of_the_angles(one, other, seed):
    x, a, b = stream(seed=seed), unit(seed + 1), unit(seed + 2)
    both = rotating(a, b, other)(rotating(a, b, one)(x))
    np.testing.assert_allclose(both, rotating(a, b, one + other)(x), atol=1e-5)


@given(st.integers(0, 1000), st.floats(2e-3, 1))
def test_a_plane_is_orthonormal_however_close_its_directions_are(seed, share):
    a, b = unit(seed), unit(seed + 1)
    axes = plane(a, a + share * b)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, -1.0, 5.0, 1e-4])
def test_parallel_directions_span_no_plane(factor):
    with pytest.raises(EngineError, match="parallel"):
        rotating(unit(), factor * unit(), 30)


# Hooks


def hooks_of(model):
    return [hook for layer in model.layers for hook in (*layer._forward_hooks, *layer._forward_pre_hooks)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_is_changed_after_the_layers_that_are_named_and_only_there(architecture):
    model, vector = tiny_model(architecture), unit()
    before, weights = result(residuals(model, TEXTS, "t")), weights_of(model)
    with changed(model.layers, adding(vector), [1]):
        after = result(residuals(model, TEXTS, "t"))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    torch.testing.assert_close(after[:, 2], before[:, 2] + vector)
    assert torch.equal(result(residuals(model, TEXTS, "t")), before)
    assert same_weights(model, weights)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_everywhere_a_removed_direction_is_gone_from_the_whole_stream_at_every_position(architecture):
    model, v = tiny_model(architecture), unit()
    seen = []
    with changed(model.layers, removing(v, 1.0)):
        # Hooks that come later see what the earlier ones have made of the stream.
        handles = [
            model.layers[0].register_forward_pre_hook(
                lambda _, args, options: seen.append(args[0] if args else options["hidden_states"]), with_kwargs=True
            ),
            *(
                layer.register_forward_hook(
                    lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output)
                )
                for layer in model.layers
            ),
        ]
        result(residuals(model, TEXTS, "t"))
    for handle in handles:
        handle.remove()
    assert len(seen) == 4
    for found in seen:
        assert found.shape[1] > 5
        assert float((found @ v).abs().max()) < 1e-5


def test_a_rotation_at_one_layer_keeps_the_length_of_its_stream():
    model, a, b = tiny_model(), unit(1), unit(2)
    before = result(residuals(model, TEXTS, "t"))
    with changed(model.layers, rotating(a, b, 70), [0]):
        after = result(residuals(model, TEXTS, "t"))
    np.testing.assert_allclose(after[:, 1], rotated(before[:, 1], a, b, 70), atol=1e-5)
    np.testing.assert_allclose(after[:, 1].norm(dim=-1), before[:, 1].norm(dim=-1), rtol=1e-5)


class Layer(nn.Module):
    """A layer that gives its stream in a way of its own."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, hidden_states, extra=None):
        return self.wrap(hidden_states * 2, extra)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda stream, extra: stream, lambda stream, extra: (stream,), lambda stream, extra: (stream, extra)]
)
def test_a_layer_may_give_a_tensor_or_a_tuple_in_any_dtype(wrap, by_name, dtype):
    layer, x, v = Layer(wrap), stream().to(dtype), unit()
    expected = removing(v, 1.0)((removing(v, 1.0)(x.float()).to(dtype) * 2).float()).to(dtype)
    with changed([layer], removing(v, 1.0)):
        given = layer(hidden_states=x, extra="kept") if by_name else layer(x, "kept")
    found = given[0] if isinstance(given, tuple) else given
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    if isinstance(given, tuple) and len(given) > 1:
        assert given[1] == "kept"


def test_a_half_precision_stream_is_computed_in_float32_and_rounded_once():
    x, v = (1000 * stream()).bfloat16(), unit()
    layer = Layer(lambda stream, extra: stream)
    with changed([layer], removing(v, 1.0), [0]):
        found = layer(x / 2)
    exact = removing(v.double(), 1.0)(x.float()).bfloat16()
    assert torch.equal(found, exact)


def test_the_hooks_go_even_after_an_error():
    model = tiny_model()
    with pytest.raises(RuntimeError), changed(model.layers, adding(unit())):
        assert len(hooks_of(model)) == 4
        raise RuntimeError
    assert not hooks_of(model)


def test_no_hook_is_left_where_a_layer_is_not_there():
    model = tiny_model()
    with pytest.raises(IndexError), changed(model.layers, adding(unit()), [0, 99]):
        pass
    assert not hooks_of(model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_layers_may_live_on_several_devices():
    first, second = Layer(lambda stream, extra: stream), Layer(lambda stream, extra: stream)
    x, change = stream(), removing(unit(), 1.0)
    with changed([first, second], change):
        found = second(first(x).cuda())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), change(x) * 4)


# Candidates that answer


ASKED = (ChatMessage("user", "How long is a river?"),)
SHORT = Sampling(max_tokens=8)


@pytest.fixture(scope="module")
def session(tiny_folder, short_profile):
    """A session with the tiny model in memory."""
    session = Session()
    result(session.load(str(tiny_folder), short_profile))
    return session


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    """An empty library, and a check that no test leaves a trace in the model."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return DirectionLibrary(paths.directions_dir())


@pytest.fixture
def untouched(session):
    before = weights_of(session.model)
    yield
    assert same_weights(session.model, before)
    assert not hooks_of(session.model)


def job_of(session, study, *candidates, messages=ASKED):
    turns = [Turn(one, messages) for one in candidates]
    return chat(study.model_name, study.profile, study, turns, SHORT, load=session.load)


def streams_while(session, study, candidate):
    """The stream's last position at every row while the candidate answers its first token."""
    model = session.model
    with_hooks = []
    job = job_of(session, study, candidate)
    next(event for event in job if isinstance(event, TextGenerated))
    with torch.inference_mode(), captured(model.layers) as rows:
        encoded = model.encode(TEXTS[:1])
        model.network.base_model(input_ids=encoded.ids, attention_mask=encoded.mask, use_cache=False)
        with_hooks += rows
    job.close()
    return torch.stack(with_hooks, dim=1)


def test_one_of_a_run_is_added_in_units_of_the_distance_of_the_centres(session, study, untouched):
    directions = load_directions(study.path / DIRECTIONS)
    distance = (directions.bad[2] - directions.good[2]).norm()
    before = result(residuals(session.model, TEXTS[:1], "t"))
    after = streams_while(session, study, Steered("added", OfLayer(1), -1.5, (2,)))
    torch.testing.assert_close(after[:, 3], before[:, 3] - 1.5 * distance * directions.vectors[2])


def test_a_saved_one_is_added_in_units_of_the_stream(session, study, library, untouched):
    library.save(direction("kind", 5 * unit().numpy()), "kind")
    before = result(residuals(session.model, TEXTS[:1], "t"))
    after = streams_while(session, study, Steered("added", Saved("kind"), 0.5, (1,)))
    torch.testing.assert_close(after[:, 2], before[:, 2] + 0.5 * before[:, 2].norm() * unit())


def test_a_mix_that_is_kept_nowhere_is_removed_everywhere(session, study, untouched):
    after = streams_while(session, study, Steered("removed", Given("mix", tuple(unit().tolist()))))
    # Rows are captured after the steering hooks, the first one too.
    assert float((after @ unit()).abs().max()) < 1e-5


def test_a_component_of_the_residual_vectors_is_removed(session, study, untouched):
    rng = np.random.default_rng(0)
    sets = ResidualSets(*(rng.standard_normal((6, 4, WIDTH)).astype(np.float32) for _ in range(2)))
    save_residual_sets(residuals_path(study), sets)
    both = np.concatenate([sets.good[:, 2], sets.bad[:, 2]]).astype(np.float64)
    second = np.linalg.svd(both - both.mean(axis=0))[2][1]
    after = streams_while(session, study, Steered("removed", OfComponent(1, 2)))
    assert np.abs(after.double().numpy() @ second).max() < 1e-5


def test_a_rotation_towards_the_good_centre_keeps_lengths(session, study, untouched):
    directions = load_directions(study.path / DIRECTIONS)
    before = result(residuals(session.model, TEXTS[:1], "t"))
    after = streams_while(session, study, Steered("rotated", OfLayer(1), 40.0, (1,), OfLayer(1, good=True)))
    expected = rotated(before[:, 2], directions.vectors[2], directions.good[2], 40.0)
    np.testing.assert_allclose(after[:, 2], expected, atol=1e-5)


def test_a_saved_direction_needs_no_run(session, study, library, untouched):
    library.save(direction("kind", unit().numpy()), "kind")
    turns = [Turn(Steered("removed", Saved("kind")), ASKED)]
    _, (answer,) = run(chat(study.model_name, study.profile, None, turns, SHORT, load=session.load))
    assert answer.candidate.label == "kind removed x1 everywhere"


@pytest.mark.parametrize("operation", ["removed", "added", "rotated"])
def test_an_amount_of_nothing_is_the_original(session, study, operation, untouched):
    towards = OfLayer(1, good=True) if operation == "rotated" else None
    _, answers = run(job_of(session, study, Original(), Steered(operation, OfLayer(1), 0.0, None, towards)))
    assert answers[0].text == answers[1].text


STEERED = [
    Steered("removed", OfLayer(1)),
    Steered("added", OfLayer(1), 2.0, (0, 2)),
    Steered("rotated", OfLayer(1), 30.0, None, OfLayer(1, good=True)),
]


@pytest.mark.parametrize("candidate", STEERED)
@pytest.mark.parametrize("texts", [1, 3])
def test_a_chat_that_is_closed_leaves_no_hook(session, study, candidate, texts, untouched):
    job = job_of(session, study, candidate, Original())
    for _ in range(texts):
        next(event for event in job if isinstance(event, TextGenerated))
    assert hooks_of(session.model)
    job.close()
    assert not hooks_of(session.model)


@pytest.mark.parametrize("candidate", STEERED)
def test_a_chat_that_fails_leaves_no_hook(session, study, candidate, monkeypatch, untouched):
    from heretic_tui.engine.decoding import stepper

    def broken(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(stepper.Stepper, "step", broken)
    with pytest.raises(RuntimeError, match="boom"):
        run(job_of(session, study, candidate))


def test_the_next_candidate_answers_without_the_hooks_of_the_one_before(session, study, untouched):
    alone = run(job_of(session, study, Original()))[1][0].text
    events, answers = run(job_of(session, study, Steered("added", OfLayer(1), 30.0, None), Original()))
    assert answers[1].text == alone
    assert answers[0].text != alone
    assert [event.column for event in events if isinstance(event, AnswerFinished)] == [0, 1]


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (Steered("removed", OfLayer(3)), "no layer 3"),
        (Steered("removed", OfLayer(-1)), "no layer -1"),
        (Steered("added", OfLayer(0), 1.0, (1, 7)), "no layer 7"),
        (Steered("removed", Saved("nobody")), "no direction nobody"),
        (Steered("removed", Given("narrow", (1.0, 0.0))), "narrow is 2 numbers wide.*48 wide"),
        (Steered("removed", Given("nothing", (0.0,) * WIDTH)), "nothing is zero"),
        (Steered("removed", Given("broken", (math.nan,) * WIDTH)), "broken is not all finite"),
        (Steered("rotated", OfLayer(1), 30.0, None, OfLayer(1)), "parallel"),
        (Steered("removed", OfComponent(1, 1)), "keeps no residual vectors"),
        (Steered("rotated", OfLayer(1), 30.0, None, Saved("nobody")), "no direction nobody"),
    ],
)
def test_steering_that_cannot_be_is_refused_in_words_before_the_first_token(session, study, candidate, message):
    events = []
    with pytest.raises(EngineError, match=message):
        events.extend(job_of(session, study, Original(), candidate))
    assert not [event for event in events if isinstance(event, TextGenerated)]


def test_a_direction_of_a_run_needs_one(session, study):
    turns = [Turn(Steered("removed", OfLayer(1)), ASKED)]
    with pytest.raises(EngineError, match=r"no run to take layer 1 from"):
        run(chat(study.model_name, study.profile, None, turns, SHORT, load=session.load))
    (study.path / DIRECTIONS).unlink()
    with pytest.raises(EngineError, match=r"no directions"):
        run(job_of(session, study, Steered("removed", OfLayer(1))))


def test_a_run_s_directions_are_read_without_torch(study):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from heretic_tui.engine.inspection.run_directions import load_run_directions\n"
        "import heretic_tui.engine.chat.steering\n"
        "found = load_run_directions(Path(sys.argv[1]))\n"
        "assert len(found.cosines) == 4 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(study.path / DIRECTIONS)], check=True)
    found, expected = load_run_directions(study.path / DIRECTIONS), load_directions(study.path / DIRECTIONS)
    np.testing.assert_allclose(
        found.cosines, torch.cosine_similarity(expected.good.double(), expected.bad.double(), dim=1)
    )
    np.testing.assert_allclose(found.distances, (expected.bad.double() - expected.good.double()).norm(dim=1))


# What a candidate says, and how it is read back


@pytest.mark.parametrize(
    ("candidate", "label"),
    [
        (Steered("removed", OfLayer(14)), "layer 14 removed x1 everywhere"),
        (Steered("removed", OfLayer(14), 0.1 + 0.2, (3, 8, 9, 10)), "layer 14 removed x0.3 at 3, 8-10"),
        (Steered("added", OfLayer(3), -0.25, (3,)), "layer 3 added x-0.25 at 3"),
        (Steered("added", Saved("good manners"), 2, None), "good manners added x2 everywhere"),
        (
            Steered("rotated", OfLayer(14), 30, (8, 9), OfLayer(14, good=True)),
            "layer 14 rotated 30° to good centre 14 at 8-9",
        ),
        (Steered("removed", OfComponent(14, 3)), "component 3 of layer 14 removed x1 everywhere"),
        (Steered("rotated", Saved("a to b"), -7.5, None, Saved("kind")), "a to b rotated -7.5° to kind everywhere"),
    ],
)
def test_a_label_says_it_all_and_can_be_read_back(candidate, label):
    assert candidate.label == label
    read = read_steered(label)
    assert read.label == label
    assert dataclasses.replace(read, amount=0) == dataclasses.replace(candidate, amount=0)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("layer 14 removed", "layer 14 removed x1 everywhere"),
        ("Layer 14 added", "layer 14 added x1 at 14"),
        ("layer 14 added 2 at 8-20", "layer 14 added x2 at 8-20"),
        ("layer 14 added ×2 at all", "layer 14 added x2 everywhere"),
        ("layer:14 rotated 30 to pc:14:2", "layer 14 rotated 30° to component 2 of layer 14 everywhere"),
        ("kind added", "kind added x0.2 at 18"),
        ("layer 2 rotated 90 to kind", "layer 2 rotated 90° to kind everywhere"),
        (" kind removed .5 at 1,2 , 5 - 6 ", "kind removed x0.5 at 1-2, 5-6"),
    ],
)
def test_what_is_left_out_is_as_usual(text, label):
    assert read_steered(text, 30).label == label


@pytest.mark.parametrize("text", ["", "layer 14", "removed", "layer 14 thrown away", "layer 1 added x2 at noon ok"])
def test_what_cannot_be_read_says_what_can(text):
    with pytest.raises(EngineError, match="for instance"):
        read_steered(text)


@pytest.mark.parametrize("text", ["layer 1 rotated 30", "layer 1 removed x1 to kind"])
def test_a_rotation_needs_two_directions_and_nothing_else_does(text):
    with pytest.raises(EngineError, match="two directions"):
        read_steered(text)


@pytest.mark.parametrize("amount", [math.nan, math.inf])
def test_an_amount_is_finite(amount):
    with pytest.raises(EngineError, match="strength"):
        Steered("removed", OfLayer(1), amount)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_layers_are_read_as_they_are_shown(layers):
    assert read_layers(shown_layers(tuple(layers))) == tuple(sorted(layers))


@pytest.mark.parametrize("text", ["", "x", "5-3", "1,,2", "-1", "1.5", "99999"])
def test_layers_that_are_none_are_refused(text):
    with pytest.raises(EngineError, match="names no layers"):
        read_layers(text)


@pytest.mark.parametrize(
    ("key", "name", "made", "source"),
    [
        ("layer:14", "layer 14", "", OfLayer(14)),
        ("pc:14:3", "component 3 of layer 14", "", OfComponent(14, 3)),
        ("kind", "kind", "", Saved("kind")),
        ("mix", "mix", "mix: +1.00 x layer 3", Given("mix: +1.00 x layer 3", (1.0, 0.0))),
        ("layer:in", "layer in", "", Given("layer in", (1.0, 0.0))),
    ],
)
def test_what_the_inspector_shows_is_what_steers(key, name, made, source):
    assert source_of(key, direction(name, np.array([2.0, 0.0]), made=made)) == source


def test_layers_beyond_the_last_are_refused_with_their_number():
    with pytest.raises(EngineError, match="no layer 12"):
        read_layers("3, 8-14", 12)
    assert read_layers("all", 12) is None
