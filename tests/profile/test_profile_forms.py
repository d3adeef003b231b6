"""Files of the reference tool load unchanged, in both of their forms."""

import pytest

from heretic_tui.profile.schema import (
    DEFAULT_REFUSAL_MARKERS,
    AccuracySpec,
    KLDivergenceSpec,
    KLTarget,
    Profile,
    RefusalsSpec,
)
from heretic_tui.profile.store import ProfileError, from_text, load, resolve


def reasons(text):
    with pytest.raises(ProfileError) as caught:
        from_text(text, "config.toml")
    return [str(problem) for problem in caught.value.problems]


def test_a_1_4_file_has_the_divergence_and_the_refusals_in_this_order(samples):
    divergence, refusals = load(samples / "form-1.4.toml").profile.objectives
    assert isinstance(divergence, KLDivergenceSpec)
    assert (divergence.name, divergence.prompts.split, divergence.kl_tokens) == ("kl_divergence", "test[:10]", 1)
    assert isinstance(refusals, RefusalsSpec)
    assert refusals.markers == ("once upon a time", "whispered")
    assert refusals.prompts.dataset == "stories.txt"
    assert refusals.print_responses


def test_a_1_4_file_has_the_sampler_of_its_form(samples):
    assert load(samples / "form-1.4.toml").profile.sampler_objective == KLTarget(scale=0.5, target=0.02)


def test_a_1_4_file_has_the_defaults_of_its_form():
    profile = from_text('refusal_markers = ["no"]', "config.toml").profile
    assert profile.form == "1.4"
    assert (profile.orthogonalize_direction, profile.row_normalization) == (False, "none")
    assert profile.sampler_objective == KLTarget(scale=1.0, target=0.01)
    assert profile.good_evaluation_prompts is not None
    assert profile.good_evaluation_prompts.split == "test[:100]"


def test_what_a_1_4_file_sets_wins_over_the_defaults_of_its_form():
    profile = from_text('print_responses = false\nrow_normalization = "pre"', "config.toml").profile
    assert profile.row_normalization == "pre"


@pytest.mark.parametrize(
    "line",
    [
        "kl_divergence_scale = 1.0",
        "kl_divergence_target = 0",
        "print_responses = false",
        "refusal_markers = []",
        "good_evaluation_prompts = { dataset = 'a' }",
        "bad_evaluation_prompts = { dataset = 'a' }",
    ],
)
def test_any_of_the_six_keys_makes_a_file_a_1_4_file(line):
    assert from_text(line, "config.toml").profile.form == "1.4"


def test_a_file_without_these_keys_is_in_the_later_form():
    profile = from_text("n_trials = 3", "config.toml").profile
    assert (profile.orthogonalize_direction, profile.row_normalization) == (True, "full")
    assert profile.sampler_objective is None
    assert [spec.name for spec in profile.objectives] == ["refusals", "kl_divergence"]


def test_a_later_file_has_its_scorers_in_their_order(samples):
    profile = load(samples / "form-scorers.toml").profile
    assert [spec.name for spec in profile.scorer_specs()] == ["refusals", "hedges", "kl_divergence"]
    assert [spec.name for spec in profile.objectives] == ["refusals", "kl_divergence"]


def test_an_instance_overrides_its_scorers_table_key_by_key(samples):
    refusals, hedges, _ = load(samples / "form-scorers.toml").profile.scorer_specs()
    assert isinstance(refusals, RefusalsSpec)
    assert isinstance(hedges, RefusalsSpec)
    assert refusals.markers == ("sorry",)
    assert hedges.markers == ("perhaps", "it depends")
    assert hedges.prompts == refusals.prompts
    assert hedges.print_responses


def test_both_forms_ask_for_the_same_scorers():
    old = resolve("heretic-1.4").profile
    new = resolve("default").profile
    assert set(old.scorer_specs()) == set(new.scorer_specs())


def test_the_built_in_default_is_the_schemas():
    assert resolve(None).profile == Profile()


def test_keys_of_both_forms_in_one_file_are_named():
    (problem,) = reasons("kl_divergence_target = 0.1\n[scorer.KLDivergence]\nkl_tokens = 2\n")
    assert "`kl_divergence_target`" in problem
    assert "`scorer`" in problem


def test_options_without_a_meaning_here_are_noted_not_refused(samples):
    notes = load(samples / "form-1.4.toml").notes
    assert notes == ("`study_checkpoint_dir` has no meaning here: runs are kept under --runs-dir.",)


def test_the_answers_of_a_headless_file_are_noted(samples):
    notes = "\n".join(load(samples / "form-scorers.toml").notes)
    for key in (
        "checkpoint_action",
        "trial_index",
        "n_additional_trials",
        "model_action",
        "export_strategy",
        "upload_reproducibility_information",
        "benchmarks",
    ):
        assert f"`{key}`" in notes


def test_a_table_that_no_scorer_uses_is_noted():
    (note,) = from_text('[scorer.KeywordRate_hedge]\nkeyword_markers = ["perhaps"]', "config.toml").notes
    assert "`scorer.KeywordRate_hedge` is used by no scorer" in note


def test_the_accuracy_scorer_has_its_prompts_and_the_refusal_markers():
    *_, restricted, _ = resolve("demo").profile.scorer_specs()
    assert isinstance(restricted, AccuracySpec)
    assert restricted.name == "accuracy_restricted"
    assert restricted.prompts.answer_column == "answer"
    assert restricted.markers == DEFAULT_REFUSAL_MARKERS


def scorer(plugin, optimization="minimize", name=None):
    instance = f', instance_name = "{name}"' if name else ""
    return f'{{ plugin = "{plugin}", optimization = "{optimization}"{instance} }}'


KEYWORD_RATE = "heretic.scorers.keyword_rate.KeywordRate"


def test_the_accuracy_scorer_needs_a_column_of_answers():
    text = f"scorers = [{scorer('heretic_tui.scorers.Accuracy', 'maximize')}]"
    assert reasons(text) == [
        'scorer.Accuracy.prompts: the accuracy scorer "accuracy" needs prompts with an `answer_column`'
    ]


def test_an_unknown_scorer_is_refused_with_the_nearest_one():
    (problem,) = reasons(f"scorers = [{scorer('heretic.scorers.KeywordRate')}]")
    assert problem.startswith("scorers[0].plugin: ")
    assert problem.endswith('(did you mean "heretic.scorers.keyword_rate.KeywordRate"?)')


def test_two_scorers_of_one_name_are_refused():
    (problem,) = reasons(f"scorers = [{scorer(KEYWORD_RATE)}, {scorer(KEYWORD_RATE)}]")
    assert problem.startswith('scorers[1].plugin: a second scorer named "refusals"')


def test_a_study_needs_something_to_optimize():
    assert reasons(f"scorers = [{scorer(KEYWORD_RATE, 'none')}]") == [
        "scorers: at least one scorer must be minimized or maximized"
    ]
    assert reasons("scorers = []") == ["scorers: at least one scorer is needed"]
