"""Everything that is wrong with a file is told at once, for people."""

import os

import pytest

from heretic_tui.profile.problems import Problem
from heretic_tui.profile.store import ProfileError, from_text, load

WRONG = """\
# A file with one of everything.
n_trails = 3
n_trials = "5"
batch_size = -1
winsorization_quantile = 1.5
row_normalization = "ful"
n-startup-trials = 3
keyword_markers = []

[good_prompts]
split = "train[:400"

[[scorers]]
plugin = "heretic.scorers.refusals.KeywordRate"
optimization = "minimise"

[scorer.KeywordRat]

[scorer.KLDivergence]
kl_tokens = 0
print_responses = true

[scorer.KLDivergence.prompts]
dataset = "a"
"colum" = "text"
"""


def error_of(text, name="config.toml"):
    with pytest.raises(ProfileError) as caught:
        from_text(text, name)
    return caught.value


def test_every_error_of_a_file_is_told_at_once_with_its_line():
    assert str(error_of(WRONG)).splitlines() == [
        "config.toml:2: n_trails: unknown setting (did you mean n_trials?)",
        'config.toml:3: n_trials: expected a whole number, not "5"',
        "config.toml:4: batch_size: must be at least 0, not -1",
        "config.toml:5: winsorization_quantile: must be at most 1, not 1.5",
        'config.toml:6: row_normalization: expected "none", "pre", "full" or "columns", not "ful" '
        '(did you mean "full"?)',
        "config.toml:7: n-startup-trials: unknown setting (did you mean n_startup_trials?)",
        "config.toml:8: keyword_markers: unknown setting (did you mean scorer.KeywordRate.keyword_markers?)",
        "config.toml:10: good_prompts.dataset: is needed here",
        'config.toml:11: good_prompts.split: expected a split such as "train", "train[:400]" or "[:400]"',
        'config.toml:14: scorers[0].plugin: expected "heretic.scorers.keyword_rate.KeywordRate", '
        '"heretic.scorers.kl_divergence.KLDivergence" or "heretic_tui.scorers.Accuracy", '
        'not "heretic.scorers.refusals.KeywordRate" (did you mean "heretic.scorers.keyword_rate.KeywordRate"?)',
        'config.toml:15: scorers[0].optimization: expected "minimize", "maximize" or "none", not "minimise" '
        '(did you mean "minimize"?)',
        "config.toml:17: scorer.KeywordRat: unknown setting (did you mean scorer.KeywordRate?)",
        "config.toml:20: scorer.KLDivergence.kl_tokens: must be at least 1, not 0",
        "config.toml:21: scorer.KLDivergence.print_responses: unknown setting "
        "(did you mean scorer.KeywordRate.print_responses?)",
        "config.toml:25: scorer.KLDivergence.prompts.colum: unknown setting "
        "(did you mean scorer.KLDivergence.prompts.column?)",
    ]


def test_an_error_between_settings_is_told_beside_an_error_in_one():
    keys = [problem.key for problem in error_of("n_trails = 1\nscorers = []\n").problems]
    assert keys == ["n_trails", "scorers"]


def test_keys_of_both_forms_are_told_beside_an_error_in_either():
    text = 'kl_divergence_scale = "1"\n[[scorers]]\nplugin = "x"\noptimization = "none"\n'
    keys = [problem.key for problem in error_of(text).problems]
    assert keys == ["kl_divergence_scale", "kl_divergence_scale", "scorers[0].plugin"]


def test_an_instances_table_is_not_blamed_for_what_it_inherits():
    text = '[scorer.KeywordRate]\nkeyword_markers = 3\n\n[scorer.KeywordRate_a]\nprint_responses = "no"\n'
    keys = [problem.key for problem in error_of(text).problems]
    assert keys == ["scorer.KeywordRate.keyword_markers", "scorer.KeywordRate_a.print_responses"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("n_trials = \nseed = 1\n", 1),
        ("seed = 1\nn_trials = 3 4\n", 2),
        ("seed = 1\nseed = 2\n", 2),
        ("\n\n[good_prompts\n", 3),
        ('seed = 1\nmodel = "x\n', 2),
        ('\nmodel = """x', 2),
    ],
)
def test_a_text_that_is_no_toml_is_refused_with_its_line(text, line):
    (problem,) = error_of(text).problems
    assert problem.line == line
    assert problem.reason.startswith("not valid TOML at ")


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"seed = 1\n# caf\xe9\n")
    with pytest.raises(ProfileError) as caught:
        load(path)
    assert str(caught.value) == "config.toml:2: is not UTF-8 text (byte 0xe9): save it as UTF-8"


def test_a_file_with_a_byte_order_mark_loads(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 1\r\n")
    assert load(path).profile.seed == 1


def test_a_missing_file_is_named_with_the_nearest_one_beside_it(tmp_path):
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ProfileError) as caught:
        load(tmp_path / "confg.toml")
    assert caught.value.problems == (Problem(None, "", "there is no such file", str(tmp_path / "config.toml")),)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ProfileError, match="it is a folder, not a file"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(ProfileError, match="permission denied"):
        load(path)


def test_the_error_carries_the_exit_code_of_a_bad_request():
    assert error_of("n_trials = 0").exit_code == 2
