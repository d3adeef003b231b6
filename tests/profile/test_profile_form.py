"""A profile as a form: which settings it shows, what they are compared with, how they are found."""

import pytest

from heretic_tui.profile import form
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.store import from_text, reset, resolve, set_value


def fields(text, saved=None):
    loaded = from_text(text, "mine")
    found = form.fields(loaded, saved.profile if saved else loaded.profile)
    return {field.key: field for field in found}


@pytest.mark.parametrize("name", ["default", "demo", "heretic-1.4"])
def test_the_form_shows_every_setting_of_the_profiles_own_form_once(name):
    loaded = resolve(name)
    keys = [field.key for field in form.fields(loaded, loaded.profile)]
    assert len(keys) == len(set(keys))
    assert ("refusal_markers" in keys) == (loaded.profile.form == "1.4")
    assert ("scorers" in keys) == (loaded.profile.form == "scorers")


def test_a_profile_compared_with_itself_has_no_unsaved_setting():
    for name in ("default", "demo", "heretic-1.4"):
        loaded = resolve(name)
        assert not [field.key for field in form.fields(loaded, loaded.profile) if field.unsaved]


def test_the_default_profile_has_no_changed_setting():
    loaded = resolve("default")
    assert not [field.key for field in form.fields(loaded, loaded.profile) if field.changed]


def test_a_change_is_marked_and_named_with_what_it_was():
    saved = from_text("n_trials = 10\n", "mine")
    loaded = set_value(saved, "n_trials", 12)
    found = {field.key: field for field in form.fields(loaded, saved.profile)}
    assert (found["n_trials"].sign, found["n_trials"].text, found["n_trials"].state) == (
        "●",
        "12 trials",
        "was 10 trials",
    )
    before = {field.key: field for field in form.fields(saved, saved.profile)}
    assert (before["n_trials"].sign, before["n_trials"].state) == ("*", "default 200 trials")
    assert (before["seed"].sign, before["seed"].state) == ("", "default")


def test_the_1_4_form_has_its_own_defaults():
    found = fields("kl_divergence_target = 0.01\n")
    assert found["row_normalization"].default == "none"
    assert not found["row_normalization"].changed
    assert "scorers" not in found


def test_settings_without_effect_stand_in_a_group_of_their_own_at_the_end():
    groups = form.groups(fields("").values())
    assert list(groups)[-1] == form.IDLE_GROUP
    assert all(field.idle for field in groups[form.IDLE_GROUP])
    assert "headless" not in groups


def test_the_look_of_a_prompt_set_in_plots_is_one_of_its_settings():
    text = "[good_prompts]\ndataset = 'a'\nresidual_plot_label = 'x'\n"
    label = fields(text)["good_prompts.residual_plot_label"]
    assert (label.group, label.idle) == ("prompts", "")


def test_the_table_of_a_scorer_that_is_not_chosen_is_idle_and_comes_last():
    scoring = form.groups(fields("").values())["scoring"]
    assert scoring[-1].key.startswith("scorer.Accuracy")
    assert scoring[-1].idle == "is used by no scorer"
    assert not scoring[0].idle


def test_tables_stand_together():
    for name in ("default", "demo", "heretic-1.4"):
        loaded = resolve(name)
        for members in form.groups(form.fields(loaded, loaded.profile)).values():
            sections = [field.section for field in members]
            changes = [one for one, before in zip(sections, [None, *sections], strict=False) if one != before]
            assert len(changes) == len(set(changes))


def test_every_choice_of_a_scorer_is_a_line_of_its_own():
    loaded = resolve("demo")
    found = {field.key: field for field in form.fields(loaded, loaded.profile)}
    assert found["scorers[2].optimization"].value == "none"
    assert found["scorers[2].optimization"].label == "3. accuracy_restricted"
    assert not found["scorers[2].optimization"].has_default


def test_searching_finds_names_and_help_over_all_groups():
    found = list(fields("").values())
    assert {field.key for field in form.matching(found, "RANK adapter")} == {
        "adapter_error",
        "full_normalization_lora_rank",
    }
    assert {field.group for field in form.matching(found, "prompts")} > {"prompts", "scoring", "model"}


def test_the_facts_of_a_setting_name_type_bounds_unit_and_default():
    found = fields("")
    assert form.facts(found["batch_size"]) == ["whole number", "at least 0", "in prompts", "default: 0 prompts"]
    assert form.facts(found["winsorization_quantile"])[1:3] == ["more than 0", "at most 1"]
    assert form.facts(found["quantization"])[0] == "none | bnb_4bit"


def test_a_table_has_its_help_from_the_schema():
    loaded = resolve("default")
    good = form.section(("good_prompts",), loaded)
    assert good.is_prompt_set
    assert good.help.startswith("Prompts that the model answers")
    assert (
        form.section(("scorer", "KLDivergence"), loaded).help
        == "Settings of the KL divergence from the model as it was."
    )
    assert not form.section(("scorer", "KLDivergence"), loaded).is_prompt_set


def test_prompt_sets_are_those_of_the_profiles_form():
    assert list(form.prompt_sets(resolve("heretic-1.4")))[2:] == ["good_evaluation_prompts", "bad_evaluation_prompts"]
    assert "scorer.KLDivergence.prompts" in form.prompt_sets(resolve("default"))
    assert "scorer.Accuracy.prompts" not in form.prompt_sets(resolve("default"))


def test_what_a_run_settles_itself_is_no_difference():
    run = from_text("model = 'm'\nmodel_commit = 'c'\nseed = 4\nn_trials = 9\n", "run").profile
    assert form.difference_texts(form.run_differences(run, Profile())) == [("n_trials", "9", "200")]
    other = reset(from_text("seed = 5\n", "here"), "n_trials").profile
    assert [one.key for one in form.run_differences(run, other)] == ["n_trials", "seed"]


def test_values_are_written_for_people():
    found = fields('max_memory = { "0" = "20GB" }')
    assert found["max_memory"].text == '{ 0 = "20GB" }'
    assert found["seed"].text == "not set"
    assert found["good_prompts.prefix"].text == "empty"
    assert found["scorers"].text == "KeywordRate (minimize), KLDivergence (minimize)"
    assert found["chain_of_thought_skips"].text.startswith("4: <think>, ")
