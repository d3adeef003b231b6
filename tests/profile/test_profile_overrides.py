"""`--set key=value` on top of a profile."""

import pytest

from heretic_tui.profile.schema import KLDivergenceSpec, Profile
from heretic_tui.profile.store import ProfileError, apply_overrides, from_text, load, resolve


def overridden(*overrides, text=""):
    return from_text(text, "config.toml", overrides).profile


def refused(*overrides, text=""):
    with pytest.raises(ProfileError) as caught:
        from_text(text, "config.toml", overrides)
    return str(caught.value).splitlines()


def test_values_are_read_as_toml():
    profile = overridden("n_trials=50", 'dtypes=["float32"]', "save_residuals=true", 'max_memory={"0"="20GB"}')
    assert (profile.n_trials, profile.dtypes, profile.save_residuals) == (50, ["float32"], True)
    assert profile.max_memory == {"0": "20GB"}


def test_text_needs_no_quotes():
    profile = overridden("row_normalization=pre", "model=org/model-1B", "device_map=cpu", "max_shard_size=2GB")
    assert profile.row_normalization == "pre"
    assert (profile.model, profile.device_map, profile.max_shard_size) == ("org/model-1B", "cpu", "2GB")


def test_text_that_reads_like_another_type_stays_text():
    profile = overridden("model=123", "system_prompt=true", "model_commit='9'")
    assert (profile.model, profile.system_prompt, profile.model_commit) == ("123", "true", "9")


def test_empty_text_is_a_value():
    assert overridden("response_prefix=").response_prefix == ""


def test_a_part_of_a_prompt_set_keeps_its_other_parts():
    assert overridden("bad_prompts.dataset=./x.txt").bad_prompts.dataset == "./x.txt"
    assert overridden("bad_prompts.split=train[:9]").bad_prompts.dataset == "mlabonne/harmful_behaviors"
    text = '[bad_prompts]\ndataset = "mine"\ncolumn = "c"\n'
    assert overridden("bad_prompts.split=train", text=text).bad_prompts.column == "c"


def test_a_scorers_table_can_be_reached():
    specs = overridden("scorer.KLDivergence.kl_tokens=4", "scorer.KLDivergence.prompts.split=test[:5]").scorer_specs()
    (divergence,) = [spec for spec in specs if isinstance(spec, KLDivergenceSpec)]
    assert (divergence.kl_tokens, divergence.prompts.split) == (4, "test[:5]")
    assert divergence.prompts.dataset == "mlabonne/harmless_alpaca"


def test_an_element_of_a_list_can_be_reached():
    profile = overridden("scorers[0].optimization=none")
    assert [spec.name for spec in profile.objectives] == ["kl_divergence"]


def test_a_later_override_wins():
    assert overridden("seed=1", "seed=2").seed == 2


def test_an_override_may_mend_a_file():
    assert overridden("n_trials=5", text='n_trials = "many"').n_trials == 5


def test_wrong_overrides_are_told_with_the_files_errors_but_without_a_line():
    assert refused("n_trials=0", "seeed=1", "seed=x", "quiet", text="batch_size = -1\nseed = 3\n") == [
        "config.toml:1: batch_size: must be at least 0, not -1",
        "config.toml: seeed: unknown setting (did you mean seed?)",
        "config.toml: quiet: expected key=value",
        "config.toml: n_trials: must be at least 1, not 0",
        'config.toml: seed: expected a whole number, not "x"',
    ]


@pytest.mark.parametrize("override", ["a b=1", "=1", "scorers[9].plugin=x", "system_prompt.x=1", "good_prompts.x=1"])
def test_a_key_that_leads_nowhere_is_refused(override):
    assert len(refused(override)) == 1


def test_an_override_that_changes_the_form_is_noted():
    loaded = from_text("n_trials = 3", "config.toml", ["kl_divergence_target=0.1"])
    assert loaded.profile.form == "1.4"
    assert "`kl_divergence_target` is a setting of Heretic 1.4.0's files" in loaded.notes[0]


def test_an_override_of_the_other_form_is_refused_where_the_file_chose_one():
    with pytest.raises(ProfileError, match="use one form"):
        resolve("default", ["kl_divergence_target=0.1"])


def test_overrides_go_on_top_of_a_loaded_profile_and_of_each_other():
    first = apply_overrides(resolve("demo"), ["n_trials=5"])
    second = apply_overrides(first, ["seed=9"])
    assert (second.profile.n_trials, second.profile.seed) == (5, 9)
    assert second.overrides == ("n_trials=5", "seed=9")


def test_overrides_go_on_top_of_a_profile_without_a_file():
    profile = Profile(seed=4, kl_divergence_scale=2.0)
    assert apply_overrides(profile, ["n_trials=5"]).profile == profile.model_copy(update={"n_trials": 5})


def test_overrides_stay_out_of_the_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("n_trials = 3\n")
    assert load(path, ["n_trials=5"]).document.as_string() == "n_trials = 3\n"
