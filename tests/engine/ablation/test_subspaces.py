"""Several directions taken out together, against their definition in float64, and all through a study."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_models import POST_NORMED, WIDTH, result, run, same_weights, tiny_model, unit, weights_of

from heretic_tui.engine.ablation.directions import (
    Directions,
    independent,
    load_directions,
    orthonormal,
    save_directions,
)
from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.ablation.weight_edits import Edit, ablate, ablated, ablated_bias, edits, low_rank
from heretic_tui.engine.chat.conversation import ChatMessage, OfTrial, Sampling, Turn
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note
from heretic_tui.engine.inspection.direction_finding import find_directions, residual_sets
from heretic_tui.engine.inspection.geometry import quick_geometry
from heretic_tui.engine.inspection.layer_rule import rank_layers
from heretic_tui.engine.inspection.run_directions import load_run_directions
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.pipeline import chat, export, resume_study, start_study
from heretic_tui.engine.runs.run import DIRECTIONS, Run

ROWS, COLUMNS = 24, 40
TEXTS = ["U:hello\nA:", "U:what is the capital of France?\nA:", "U:x\nA:"]


def matrix(seed=0):
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def span(count, width=ROWS, seed=1):
    """Orthonormal rows, float32."""
    draws = np.random.default_rng(seed)
    return torch.from_numpy(np.linalg.qr(draws.normal(size=(width, count)))[0].T).float()


def expected(weights, basis, share, row_normalization):
    """The definition: the projector built as a matrix and multiplied out."""
    w, v = weights.double().numpy(), basis.double().numpy()
    projector = np.eye(v.shape[1]) - share * v.T @ v
    if row_normalization == "none":
        return projector @ w
    if row_normalization == "columns":
        edited = projector @ w
        return edited * np.linalg.norm(w, axis=0) / np.linalg.norm(edited, axis=0)
    norms = np.linalg.norm(w, axis=1, keepdims=True)
    edited = projector @ (w / norms)
    if row_normalization == "full":
        edited = edited / np.linalg.norm(edited, axis=1, keepdims=True)
    return norms * edited


def everywhere(dimensions, index=None, share=1.0):
    kernel = Kernel(share, 1.0, share, 10.0)
    return AblationParameters(index, {"attn.o_proj": kernel, "mlp.down_proj": kernel}, dimensions)


def several(model, order=(2, 0, 1)):
    """Directions that differ from layer to layer, and the order in which they join."""
    rows = torch.stack([unit(seed) for seed in range(len(model.layers) + 1)])
    return Directions(torch.zeros_like(rows), rows, rows, order=torch.tensor(order))


# One matrix


@pytest.mark.parametrize("dimensions", [2, 3, 5])
@pytest.mark.parametrize("share", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
def test_an_edit_is_its_definition_in_float64(row_normalization, share, dimensions):
    found = ablate(matrix(), span(dimensions), share, row_normalization).double().numpy()
    np.testing.assert_allclose(found, expected(matrix(), span(dimensions), share, row_normalization), atol=5e-6)


@pytest.mark.parametrize("row_normalization", ["none", "pre", "full", "columns"])
def test_every_expert_is_edited_by_itself(row_normalization):
    experts = torch.stack([matrix(seed) * 10.0**seed for seed in range(3)])
    for one, whole in zip(ablate(experts, span(3), 0.8, row_normalization), experts, strict=True):
        np.testing.assert_allclose(one.double(), expected(whole, span(3), 0.8, row_normalization), rtol=1e-4, atol=1e-4)


def test_a_bias_loses_the_whole_subspace():
    v = span(3).double().numpy()
    biases = torch.stack([matrix()[:, 0], matrix()[:, 1]])
    exact = biases.double().numpy() @ (np.eye(ROWS) - 0.7 * v.T @ v)
    np.testing.assert_allclose(ablated_bias(biases, span(3), 0.7).double().numpy(), exact, atol=1e-6)
    np.testing.assert_allclose(ablated_bias(biases[0], span(3), 0.7).double().numpy(), exact[0], atol=1e-6)


@pytest.mark.parametrize("row_normalization", ["none", "pre"])
def test_none_and_pre_have_exact_factors_of_the_subspace_s_rank(row_normalization):
    factors = low_rank(Edit(None, span(3), 1.3), matrix(), row_normalization, 1)
    assert (factors.up.shape, factors.down.shape, factors.error) == ((ROWS, 3), (3, COLUMNS), 0.0)
    exact = expected(matrix(), span(3), 1.3, row_normalization) - matrix().double().numpy()
    np.testing.assert_allclose((factors.up.double() @ factors.down.double()).numpy(), exact, atol=5e-6)


@pytest.mark.parametrize("row_normalization", ["full", "columns"])
def test_other_factors_state_their_error(row_normalization):
    factors = low_rank(Edit(None, span(3), 1.3), matrix(), row_normalization, 4)
    exact = expected(matrix(), span(3), 1.3, row_normalization) - matrix().double().numpy()
    off = np.linalg.norm((factors.up.double() @ factors.down.double()).numpy() - exact) / np.linalg.norm(exact)
    assert len(factors.down) == 4 + 2  # each further direction adds one
    assert factors.error == pytest.approx(off, abs=1e-5)


# A basis


@given(arrays(np.float32, (4, 9), elements=st.floats(-1, 1, width=32)))
def test_a_basis_is_orthonormal_and_spans_what_it_was_made_of(vectors):
    basis = orthonormal(torch.from_numpy(vectors)).double().numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-6)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros((4, 9)), where=lengths > 1e-12)
    assert np.linalg.norm(units - units @ basis.T @ basis, axis=1).max() < 1e-5


def test_a_basis_is_that_of_qr_but_for_signs():
    vectors = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    by_qr = np.linalg.qr(vectors.double().numpy().T)[0].T
    found = orthonormal(vectors).double().numpy()
    np.testing.assert_allclose(np.abs((found * by_qr).sum(axis=1)), 1, atol=1e-6)
    assert ((found * vectors.double().numpy()).sum(axis=1) > 0).all()


def test_vectors_within_the_span_of_others_are_no_new_ones():
    a, b, c = span(3)
    assert independent(torch.stack([a, b, a + b, a + 0.01 * c, c])) == [0, 1, 4]


def test_a_subspace_begins_with_the_own_direction_and_takes_the_best_layers_others():
    directions = Directions(*3 * [span(6)], order=torch.tensor([4, 1, 0]))
    found = directions.basis(None, 1, 3)
    torch.testing.assert_close(found, span(6)[[2, 5, 1]])


def test_a_global_direction_counts_first_and_a_layer_within_the_span_gives_way_to_the_next():
    # Between layers 1 and 2, whose own directions span a plane that both lie in: only one of the two is new.
    directions = Directions(*3 * [span(6)], order=torch.tensor([2, 1, 4]))
    found = directions.basis(1.25, 0, 3).double().numpy()
    between = 0.75 * span(6)[2] + 0.25 * span(6)[3]
    np.testing.assert_allclose(found[0], (between / between.norm()).numpy(), atol=1e-6)
    np.testing.assert_allclose(
        np.abs(found[1] @ span(6)[[2, 3]].double().numpy().T), [0.25 / 0.625**0.5, 0.75 / 0.625**0.5], atol=1e-6
    )
    np.testing.assert_allclose(found[2], span(6)[5].numpy(), atol=1e-6)


def test_directions_that_nobody_ranked_give_no_subspace():
    with pytest.raises(EngineError, match="not a subspace"):
        Directions(*3 * [span(6)]).basis(None, 0, 2)


def test_the_order_and_more_passes_are_kept_beside_the_directions(tmp_path):
    path, rows = tmp_path / "directions.safetensors", span(6)
    save_directions(path, Directions(rows, rows, rows, torch.stack([rows, rows]), torch.tensor([3, 1])))
    found = load_directions(path)
    assert found.order.tolist() == [3, 1]
    assert torch.equal(found.further, torch.stack([rows, rows]))
    assert load_run_directions(path).vectors.shape == rows.shape


# A model


def leaks(model, basis):
    """The largest |component of an update along a vector of the basis| / |update|, of each layer, in float64."""
    found = []

    def after(_, args, options, output):
        stream = args[0] if args else options["hidden_states"]
        update = ((output[0] if isinstance(output, tuple) else output) - stream).double()[encoded.mask.bool()]
        found.append(((update @ basis.double().T).abs() / update.norm(dim=-1, keepdim=True)).max().item())

    encoded = model.encode(TEXTS)
    handles = [layer.register_forward_hook(after, with_kwargs=True) for layer in model.layers]
    try:
        with torch.inference_mode():
            model.network(input_ids=encoded.ids, attention_mask=encoded.mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("row_normalization", ["none", "columns"])
def test_no_layer_writes_along_any_direction_of_a_subspace(architecture, row_normalization):
    model = tiny_model(architecture)
    directions, before = several(model), weights_of(model)
    basis = directions.basis(1.0, 0, 3)
    assert len(basis) == 3 and min(leaks(model, basis)) > 1e-2
    with ablated(model, directions, everywhere(3, 1.0), AblationStyle(row_normalization)):
        assert max(leaks(model, basis)) < 1e-5
        assert max(leaks(model, span(1, WIDTH, seed=9))) > 1e-3
    assert same_weights(model, before)


@pytest.mark.parametrize("architecture", POST_NORMED)
def test_gains_turn_the_whole_basis(architecture):
    model = tiny_model(architecture)
    directions = several(model)
    for edit in edits(model, directions, everywhere(3)):
        basis = directions.basis(None, edit.writer.layer, 3).double().numpy()
        turned = basis * edit.writer.gain.double().numpy()
        found = edit.basis.double().numpy()
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-6)
        np.testing.assert_allclose(turned @ found.T @ found, turned, atol=1e-5)


def test_without_turning_a_subspace_leaks_where_a_norm_follows():
    model = tiny_model("gemma3")
    directions = several(model)
    with ablated(model, directions, everywhere(3, 1.0), AblationStyle(gain_aware=False)):
        assert max(leaks(model, directions.basis(1.0, 0, 3))) > 1e-2


# The layers that join


CALM = [f"U:tell me about {n} rivers.\nA:" for n in range(8)]
LOUD = [f"U:open the lock {n} at once!\nA:" for n in range(7)]


def test_moments_rank_the_layers_as_all_the_vectors_do(short_profile):
    model = tiny_model(batch_size=3)
    profile = short_profile.model_copy(update={"subspace_dimensions": 2})
    of_moments = result(find_directions(model, (CALM, LOUD), profile))
    sets = result(residual_sets(model, (CALM, LOUD), profile))
    of_sets = result(find_directions(model, (CALM, LOUD), profile, sets))
    assert of_moments.order.tolist() == of_sets.order.tolist() == rank_layers(quick_geometry(sets).rows)
    torch.testing.assert_close(of_moments.vectors, of_sets.vectors, atol=1e-5, rtol=0)


def test_a_study_of_one_direction_measures_and_keeps_nothing_more(short_profile):
    events, found = run(find_directions(tiny_model(), (CALM, LOUD), short_profile))
    assert found.order is None and found.further is None
    assert not any(isinstance(event, Note) for event in events)


def test_it_says_which_layers_join_and_when_there_are_too_few(short_profile):
    profile = short_profile.model_copy(update={"subspace_dimensions": "search"})
    events, found = run(find_directions(tiny_model(), (CALM, LOUD), profile))
    (note,) = (event for event in events if isinstance(event, Note))
    assert ", ".join(map(str, found.order.tolist())) in note.text
    assert note.level == "warning" and "no more than these 3" in note.text


# A study


@pytest.fixture(scope="module")
def subspace_run(tmp_path_factory, tiny_folder, short_profile):
    """A finished study of trials with three directions, exact as an adapter."""
    profile = short_profile.model_copy(update={"subspace_dimensions": 3, "row_normalization": "none"})
    return Run(run(start_study(str(tiny_folder), profile, "three", tmp_path_factory.mktemp("runs")))[1].path)


def test_every_trial_and_its_record_have_the_dimensions(subspace_run):
    assert {record.parameters.subspace_dimensions for record in subspace_run.records()} == {3}
    assert subspace_run.record(1).as_json()["subspace_dimensions"] == 3


def test_a_merged_export_passes_its_verification_and_has_the_trial_s_scores(subspace_run, tmp_path):
    events, _ = run(export(subspace_run, 1, tmp_path / "out", verify_scores=True))
    evaluated, record = events[-1], subspace_run.record(1)
    assert {name: score.value for name, score in evaluated.scores.items()} == pytest.approx(
        {name: score.value for name, score in record.scores.items()}, abs=1e-6
    )
    assert '"subspace_dimensions": 3' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_adapter_has_the_subspace_s_rank_and_is_the_edit(subspace_run, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    exported = result(export(subspace_run, 1, tmp_path / "adapter", adapter=True))
    assert (exported.rank, exported.error) == (3, 0.0)
    result(export(subspace_run, 1, tmp_path / "out"))
    base = AutoModelForCausalLM.from_pretrained(subspace_run.model_name, dtype="auto")
    joined = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    for name, weights in merged.items():
        torch.testing.assert_close(joined[name], weights, atol=1e-6, rtol=1e-5)


def test_a_chat_answers_as_plain_transformers_do_with_the_export(subspace_run, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result(export(subspace_run, 1, tmp_path / "out"))
    messages = (ChatMessage("user", "How long is a river?"),)
    turns = [Turn(OfTrial(1), messages)]
    sampling = Sampling(max_tokens=12)
    (answer,) = result(chat(subspace_run.model_name, subspace_run.profile, subspace_run, turns, sampling))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    chat_ = [{"role": "user", "content": messages[0].text}]
    batch = tokenizer.apply_chat_template(chat_, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=12, do_sample=False
    )
    assert answer.text == tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_resumed_study_goes_on_with_the_same_basis(subspace_run):
    before = (subspace_run.path / DIRECTIONS).read_bytes()
    _, finished = run(resume_study(subspace_run, trials=6))
    assert finished.trials == 6
    assert (subspace_run.path / DIRECTIONS).read_bytes() == before
    assert subspace_run.record(6).parameters.subspace_dimensions == 3


# The search


def names_of(found):
    """The names of what the sampler chose in each trial, and of what the journal keeps beside."""
    trials = found.read_study().trials
    return {name for trial in trials for name in trial.params}, {name for trial in trials for name in trial.user_attrs}


def test_of_one_direction_the_journal_is_the_reference_tool_s(study):
    sampled, kept = names_of(study)
    assert "subspace_dimensions" not in sampled | kept
    assert {record.parameters.subspace_dimensions for record in study.records()} == {1}


def test_a_fixed_number_is_kept_but_no_part_of_the_search_space(subspace_run, study):
    sampled, kept = names_of(subspace_run)
    assert sampled == names_of(study)[0]
    assert "subspace_dimensions" in kept


def test_a_searched_number_is_sampled_and_read_back(tiny_folder, short_profile, tmp_path):
    profile = short_profile.model_copy(update={"subspace_dimensions": "search", "n_trials": 6, "n_startup_trials": 6})
    found = Run(result(start_study(str(tiny_folder), profile, "search", tmp_path)).path)
    trials = found.read_study().trials
    chosen = [record.parameters.subspace_dimensions for record in found.records()]
    assert [trial.params["subspace_dimensions"] for trial in trials] == chosen
    assert set(chosen) <= {1, 2, 3, 4, 5} and len(set(chosen)) > 1


def test_the_same_seed_samples_the_same_beside_the_dimensions(tiny_folder, short_profile, study, tmp_path):
    profile = short_profile.model_copy(update={"subspace_dimensions": "search", "n_trials": 2})
    found = Run(result(start_study(str(tiny_folder), profile, "search", tmp_path)).path)
    for one, other in zip(found.records(), study.records()[:2], strict=True):
        assert replace(one.parameters, subspace_dimensions=1) == other.parameters
