"""What of a model is edited: components that are left out, and layers that are named."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from pydantic import ValidationError
from tiny_models import result, run, same_direction, same_weights, tiny_model, unit, weights_of
from transformers import AutoModelForCausalLM

from heretic_tui.engine import pipeline
from heretic_tui.engine.ablation.style import PLAIN, AblationStyle, style_of
from heretic_tui.engine.ablation.weight_edits import ablated, edits
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.export.card import model_card
from heretic_tui.engine.export.merged import export_merged
from heretic_tui.engine.loading.coverage import probe
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.engine.storage.space import suggest
from heretic_tui.layer_ranges import NoLayers, layers_of, shown_layers
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile

ATTENTION, MLP = "attn.o_proj", "mlp.down_proj"
WIDE = Kernel(1.0, 1.0, 0.5, 8.0)
EVERYWHERE = AblationParameters(1.0, {ATTENTION: WIDE, MLP: WIDE})
RECORD = TrialRecord(1, EVERYWHERE, {}, 1.0)
ranges = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 20)), min_size=1, max_size=6)


# Layers as text


@given(ranges)
def test_ranges_name_every_layer_from_end_to_end(found):
    texts = [f"{first}-{first + more}" if more else str(first) for first, more in found]
    expected = {layer for first, more in found for layer in range(first, first + more + 1)}
    assert layers_of(", ".join(texts)) == tuple(sorted(expected))


@given(ranges)
def test_a_profile_takes_ranges_as_a_list_and_as_one_text(found):
    texts = [f"{first}-{first + more}" for first, more in found]
    listed, whole = Profile(ablated_layers=texts), Profile(ablated_layers=",".join(texts))
    assert style_of(listed).layers == style_of(whole).layers == layers_of(",".join(texts))


@given(st.sets(st.integers(0, 9999), min_size=1, max_size=30))
def test_layers_that_are_shown_are_read_back(layers):
    assert layers_of(shown_layers(layers)) == tuple(sorted(layers))


@given(st.text(max_size=12))
def test_any_text_names_layers_or_is_refused(text):
    try:
        found = layers_of(text)
    except NoLayers:
        return
    assert found
    assert list(found) == sorted(set(found))
    assert {int(part) for part in text.replace("–", "-").replace("-", ",").split(",")} <= set(found)


@pytest.mark.parametrize("wrong", ["", "8-4", "a", "-3", "3-", "1.5", "4-10-12", "12345", [], ["4-10", ""], True, -1])
def test_a_profile_refuses_what_names_no_layers(wrong):
    with pytest.raises(ValidationError):
        Profile(ablated_layers=wrong)


@pytest.mark.parametrize("given_", ["8-24", ["4-10", "14-20"], 7])
def test_layers_survive_a_profile_file(given_, tmp_path):
    profile = Profile(ablated_layers=given_, ablated_components=[ATTENTION], ablate_embeddings=True)
    path = tmp_path / "one.toml"
    path.write_text(store.dump(profile), encoding="utf-8")
    assert store.resolve(str(path)).profile == profile


# What is edited


def edited(model, style, parameters=EVERYWHERE):
    found = edits(model, same_direction(model, unit()), parameters, style)
    return {(edit.writer.component, edit.writer.layer) for edit in found}


def test_without_a_choice_everything_is_edited_as_it_always_was():
    assert style_of(Profile(row_normalization="none")) == PLAIN
    assert edited(tiny_model(), PLAIN) == {(component, layer) for component in (ATTENTION, MLP) for layer in range(3)}


def test_a_component_that_is_left_out_is_not_edited_though_a_trial_has_a_kernel_for_it():
    assert edited(tiny_model(), AblationStyle(components=(MLP,))) == {(MLP, layer) for layer in range(3)}


def test_layers_outside_the_ranges_are_not_edited_though_the_kernel_reaches_them():
    found = edited(tiny_model(), AblationStyle(layers=(0, 2)))
    assert found == {(component, layer) for component in (ATTENTION, MLP) for layer in (0, 2)}


@given(
    st.builds(Kernel, st.floats(0.5, 1.5), st.floats(0, 29), st.floats(0, 1.5), st.floats(1, 18)),
    st.sets(st.integers(0, 29), min_size=1),
)
def test_the_weight_is_the_kernels_inside_the_ranges_and_zero_outside(kernel, layers):
    style = AblationStyle(layers=tuple(sorted(layers)))
    parameters = AblationParameters(None, {ATTENTION: kernel})
    for layer in range(30):
        assert style.weight(parameters, ATTENTION, layer) == (kernel.weight(layer) if layer in layers else 0.0)


def test_only_what_is_chosen_changes_in_the_live_weights_and_all_of_it_comes_back():
    model = tiny_model()
    before = weights_of(model)
    with ablated(model, same_direction(model, unit()), EVERYWHERE, AblationStyle(components=(ATTENTION,), layers=(1,))):
        now = model.network.state_dict()
        assert [name for name in before if not torch.equal(before[name], now[name])] == [
            "model.layers.1.self_attn.o_proj.weight"
        ]
    assert same_weights(model, before)


def test_what_is_left_out_is_no_leak():
    """The probe proves that all writers are known, whether or not a study edits them."""
    assert probe(tiny_model()).whole


# What is refused


def facts():
    return tiny_model().facts


def test_a_component_that_the_model_has_not_is_refused_with_those_it_has():
    with pytest.raises(EngineError) as refused:
        AblationStyle(components=("mlp.up_proj",)).check(facts())
    assert "mlp.up_proj" in refused.value.cause
    assert "attn.o_proj and mlp.down_proj" in refused.value.cause


def test_embeddings_are_no_component_to_name_and_the_refusal_says_what_to_set():
    with pytest.raises(EngineError) as refused:
        AblationStyle(components=("embed_tokens",)).check(facts())
    assert "ablate_embeddings" in refused.value.remedy


def test_a_layer_that_the_model_has_not_is_refused_with_its_number_of_layers():
    AblationStyle(layers=(0, 2)).check(facts())
    with pytest.raises(EngineError) as refused:
        AblationStyle(layers=(1, 2, 3)).check(facts())
    assert "layer 3" in refused.value.cause
    assert "3 layers" in refused.value.cause
    assert "last one is 2" in refused.value.remedy


@pytest.mark.parametrize("wrong", [{"ablated_layers": ["2-3"]}, {"ablated_components": ["attn"]}])
def test_a_study_of_what_is_not_there_leaves_no_run(tiny_folder, short_profile, tmp_path, wrong):
    with pytest.raises(EngineError):
        list(pipeline.start_study(str(tiny_folder), short_profile.model_copy(update=wrong), "short", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


# The search


def sampled(components=(ATTENTION, MLP), layers=None):
    """What is sampled of a model of 30 layers: names and ranges."""
    names = ("max_weight", "max_weight_position", "min_weight", "min_weight_distance")
    fixed = {"direction_scope": "global", "direction_index": 15.0}
    fixed |= {f"{component}.{name}": 1.0 for component in components for name in names}
    for component in components:
        fixed[f"{component}.max_weight_position"] = float(layers[0]) if layers else 20.0
    trial = FixedTrial(fixed)
    suggest(trial, components, 29, layers=layers)
    return {name: (found.low, found.high) for name, found in trial.distributions.items() if hasattr(found, "low")}


def test_a_component_that_is_left_out_is_not_sampled():
    assert AblationStyle(components=(MLP,)).sampled([ATTENTION, MLP]) == [MLP]
    assert not any(name.startswith(ATTENTION) for name in sampled([MLP]))


def test_the_peak_is_sought_inside_the_layers_that_are_ablated():
    assert sampled()["attn.o_proj.max_weight_position"] == pytest.approx((0.6 * 29, 29))
    assert sampled(layers=(4, 5, 9))["attn.o_proj.max_weight_position"] == (4, 9)


# A study from end to end


@pytest.fixture(scope="module")
def chosen(tiny_folder, short_profile, tmp_path_factory):
    """A study of three trials of attention alone, in the last two layers."""
    choice = {"ablated_components": [ATTENTION], "ablated_layers": ["1", "2"], "n_trials": 3}
    runs = tmp_path_factory.mktemp("runs")
    *_, finished = pipeline.start_study(str(tiny_folder), short_profile.model_copy(update=choice), "short", runs)
    return Run(finished.path)


def test_trials_have_kernels_for_the_chosen_components_alone(chosen):
    assert [list(record.parameters.kernels) for record in chosen.records()] == [[ATTENTION]] * 3


def test_a_run_keeps_its_choice_when_it_goes_on(chosen):
    before = [record.parameters for record in chosen.records()]
    list(pipeline.resume_study(chosen, trials=4))
    records = chosen.records()
    assert [record.parameters for record in records[:3]] == before
    assert list(records[3].parameters.kernels) == [ATTENTION]


def test_an_export_changes_the_chosen_weights_alone_and_says_so(chosen, tiny_folder, tmp_path):
    result(pipeline.export(chosen, 1, tmp_path / "out"))
    before = AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (1, 2)}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "only attn.o_proj, only layers 1-2" in card


def test_an_adapter_holds_the_chosen_weights_alone(tmp_path):
    model, profile = tiny_model(), Profile(row_normalization="none", ablated_layers="1", ablated_components=[MLP])
    result(export_adapter(model, same_direction(model, unit()), RECORD, profile, tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["model.layers.1.mlp.down_proj"]


def test_an_export_of_a_trial_that_edits_nothing_inside_the_ranges_is_the_original(tmp_path):
    model, profile = tiny_model(), Profile(ablated_layers="0")
    narrow = replace(RECORD, parameters=AblationParameters(1.0, {MLP: Kernel(1.0, 2.0, 1.0, 1.0)}))
    result(export_merged(model, same_direction(model, unit()), narrow, profile, tmp_path / "out"))
    assert same_weights(model, AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict())


def test_the_card_of_a_whole_ablation_names_no_choice():
    card = model_card(tiny_model(), RECORD, Profile(), "merged")
    assert "that write it.\n" in card


def test_directions_are_measured_in_all_layers_whatever_is_edited(chosen):
    vectors = pipeline.load_directions(chosen.path / DIRECTIONS).vectors[1:]
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 3)


def test_events_of_a_study_with_a_choice_are_the_usual_ones(chosen):
    events, _ = run(pipeline.resume_study(chosen, trials=4))
    assert type(events[-1]).__name__ == "StudyFinished"
