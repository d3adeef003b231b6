"""The model of a profile and the list of its settings."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from heretic_tui.profile.schema import DEFAULT_REFUSAL_MARKERS, Profile, PromptSet
from heretic_tui.profile.settings import settings

BY_KEY = {setting.key: setting for setting in settings()}


def test_importing_profiles_imports_neither_engine_nor_screen():
    script = (
        "import sys, heretic_tui.profile.schema, heretic_tui.profile.store;"
        "print(*({'torch', 'optuna', 'transformers', 'datasets', 'textual', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_defaults_are_those_of_the_reference_tool_but_for_the_sampler_s():
    profile = Profile()
    assert profile.dtypes == ["auto", "float16", "bfloat16", "float32"]
    assert (profile.n_trials, profile.n_startup_trials, profile.multivariate) == (200, 20, False)
    assert (profile.batch_size, profile.max_batch_size, profile.max_response_length) == (0, 128, 100)
    assert profile.good_prompts == PromptSet(dataset="mlabonne/harmless_alpaca", split="train[:400]", column="text")
    assert profile.bad_prompts.dataset == "mlabonne/harmful_behaviors"
    assert profile.response_prefix is None
    assert len(profile.chain_of_thought_skips) == 4


def test_every_speaker_has_every_marker():
    assert len(set(DEFAULT_REFUSAL_MARKERS)) == len(DEFAULT_REFUSAL_MARKERS) == 33
    for speaker in ("i", "im", "i'm", "i am"):
        for ending in ("unable", "an ai", "designed to", "programmed to"):
            assert f"{speaker} {ending}" in DEFAULT_REFUSAL_MARKERS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", -1),
        ("max_batch_size", 0),
        ("max_response_length", 0),
        ("n_trials", 0),
        ("n_trials", True),
        ("n_trials", "5"),
        ("n_trials", 5.0),
        ("n_startup_trials", -1),
        ("winsorization_quantile", 0),
        ("subspace_dimensions", 0),
        ("subspace_dimensions", 6),
        ("subspace_dimensions", True),
        ("subspace_dimensions", "all"),
        ("passes", 0),
        ("passes", 4),
        ("token_position", 0),
        ("token_position", -9),
        ("winsorization_quantile", 1.01),
        ("winsorization_quantile", float("nan")),
        ("full_normalization_lora_rank", 0),
        ("dtypes", []),
        ("dtypes", ["float64"]),
        ("max_shard_size", "huge"),
        ("max_shard_size", 0),
        ("max_memory", {"0": "lots"}),
        ("device_map", 3),
        ("device_map", {"layer": 0.5}),
        ("seed", -1),
        ("seed", 2**32),
        ("chain_of_thought_skips", [["<think>"]]),
        ("kl_divergence_scale", 0.0),
        ("kl_divergence_target", -0.1),
        ("refusal_markers", [""]),
        ("good_prompts", {"dataset": ""}),
        ("good_prompts", {"dataset": "a", "split": "train[400]"}),
        ("upload_reproducibility_information", 3),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_bounds_is_refused(key, value):
    with pytest.raises(ValidationError):
        Profile.model_validate({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("winsorization_quantile", 1),
        ("subspace_dimensions", 5),
        ("subspace_dimensions", "search"),
        ("passes", 3),
        ("token_position", -8),
        ("max_shard_size", "500MB"),
        ("max_shard_size", 10**9),
        ("max_memory", {"0": "20GB", "cpu": "64GiB"}),
        ("device_map", "cpu"),
        ("device_map", {"model": 0, "lm_head": "cpu"}),
        ("response_prefix", ""),
        ("good_prompts", {"dataset": "a", "split": "[:40]"}),
        ("good_prompts", {"dataset": "a", "split": "train[10%:20%]+test"}),
        ("upload_reproducibility_information", True),
    ],
)
def test_a_value_within_bounds_is_taken(key, value):
    assert Profile.model_validate({key: value})


def test_a_profile_cannot_be_changed_by_accident():
    with pytest.raises(ValidationError):
        Profile().n_trials = 3


@pytest.mark.parametrize("profile", [Profile(), Profile(kl_divergence_target=0.5)], ids=["later", "1.4"])
def test_a_profile_survives_a_dump_to_plain_values(profile):
    assert Profile.model_validate(profile.model_dump()) == profile


def test_only_an_edit_that_scales_rows_or_columns_needs_an_adapter_of_more_than_one_rank():
    ranks = {kind: Profile(row_normalization=kind).adapter_rank for kind in BY_KEY["row_normalization"].choices}
    assert ranks == {"none": 1, "pre": 1, "full": 3, "columns": 3}


def test_profiles_of_different_forms_differ():
    later = Profile()
    old = Profile(kl_divergence_scale=1.0, orthogonalize_direction=True, row_normalization="full")
    assert later != old


def test_every_setting_has_a_group_and_help():
    for setting in settings():
        assert setting.group in set(BY_KEY["model"].group.split()) | {
            "prompts", "directions", "ablation", "scoring", "search", "output", "headless", "benchmarks", "inspection"
        }  # fmt: skip
        assert setting.help.endswith("."), setting.key


def test_settings_are_unique_and_reach_into_tables():
    assert len(BY_KEY) == len(settings())
    assert {"good_prompts.dataset", "scorer.KLDivergence.prompts.split", "scorers[].plugin"} <= set(BY_KEY)


def test_a_setting_knows_its_bounds_choices_and_unit():
    tokens = BY_KEY["scorer.KLDivergence.kl_tokens"]
    assert (tokens.default, tokens.minimum, tokens.maximum, tokens.unit) == (1, 1, 64, "tokens")
    quantile = BY_KEY["winsorization_quantile"]
    assert (quantile.minimum, quantile.above_minimum, quantile.maximum) == (0, True, 1)
    assert BY_KEY["row_normalization"].choices == ("none", "pre", "full", "columns")
    assert BY_KEY["dtypes"].choices == ("auto", "float16", "bfloat16", "float32")
    assert BY_KEY["scorer.KLDivergence.prompts.split"].default == "test[:100]"


def test_a_setting_knows_its_form_and_its_default_there():
    assert (BY_KEY["kl_divergence_scale"].form, BY_KEY["kl_divergence_scale"].default) == ("1.4", 1.0)
    assert (BY_KEY["row_normalization"].default, BY_KEY["row_normalization"].default_1_4) == ("full", "none")
    assert BY_KEY["scorers"].form == "scorers"
