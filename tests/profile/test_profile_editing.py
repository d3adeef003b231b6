"""A value as a person edits it: written, read back, refused with a reason and a line."""

import pytest

from heretic_tui.profile import editing, form
from heretic_tui.profile.store import ProfileError, from_text, resolve


def field(loaded, key):
    return next(one for one in form.fields(loaded, loaded.profile) if one.key == key)


def attempt(text, key, typed, kind=None):
    loaded = from_text(text, "mine")
    one = field(loaded, key)
    return editing.attempt(loaded, one, typed, kind or editing.notation(one))


def wrong(text, key, typed, kind=None):
    loaded = from_text(text, "mine")
    one = field(loaded, key)
    kind = kind or editing.notation(one)
    with pytest.raises(ProfileError) as caught:
        editing.attempt(loaded, one, typed, kind)
    return [str(mistake) for mistake in editing.mistakes(caught.value, typed, kind, one)]


@pytest.mark.parametrize("name", ["default", "demo", "heretic-1.4"])
def test_every_value_survives_being_written_and_read(name):
    loaded = resolve(name)
    for one in form.fields(loaded, loaded.profile):
        kind = editing.notation(one)
        if kind in {"toggle", "choice"} or one.value is None or one.idle:
            continue
        for notation in {kind, "toml"} - ({"toml"} if kind == "tables" else set()):
            text = editing.written(one.value, notation, str(one.path[-1]))
            if one.value != "":
                assert editing.attempt(loaded, one, text, notation).profile == loaded.profile, one.key


def test_a_word_is_checked_by_type_and_bounds():
    assert wrong("", "batch_size", "-1") == ["must be at least 0, not -1"]
    assert wrong("", "batch_size", "1.5") == ["expected a whole number, not 1.5"]
    assert wrong("", "batch_size", "") == ["expected a whole number"]
    assert wrong("", "winsorization_quantile", "2") == ["must be at most 1, not 2.0"]
    assert attempt("", "winsorization_quantile", " 1 ").profile.winsorization_quantile == 1.0


def test_nothing_typed_unsets_what_may_be_unset():
    assert attempt("seed = 3\n", "seed", "").profile.seed is None
    loaded = attempt("model = 'm'\n", "model", "")
    assert loaded.profile.model is None
    assert "model" not in loaded.document.as_string()


def test_an_empty_text_is_not_the_same_as_none():
    assert attempt("", "response_prefix", "").profile.response_prefix == ""


def test_a_text_may_span_lines():
    assert attempt("", "good_prompts.prefix", "a\nb").profile.good_prompts.prefix == "a\nb"


def test_a_list_has_one_element_a_line():
    loaded = attempt("", "scorer.KeywordRate.keyword_markers", "sorry\n\n i can't\n")
    assert loaded.profile.scorer["KeywordRate"].keyword_markers == ["sorry", " i can't"]
    assert wrong("", "dtypes", "auto\n\nfloat61") == [
        'line 3: expected "auto", "float16", "bfloat16" or "float32", not "float61" (did you mean "float16"?)'
    ]


def test_a_pair_stands_on_a_line():
    loaded = attempt("", "chain_of_thought_skips", '"<a>", "<a></a>"\n')
    assert loaded.profile.chain_of_thought_skips == [["<a>", "<a></a>"]]
    assert wrong("", "chain_of_thought_skips", '"<a>", "b"\n"<a>')[0].startswith("line 2: not valid TOML")


def test_a_table_of_devices_has_one_a_line():
    loaded = attempt("", "max_memory", '0 = "20GB"\ncpu = "64GB"')
    assert loaded.profile.max_memory == {"0": "20GB", "cpu": "64GB"}
    assert attempt('max_memory = { "0" = "20GB" }', "max_memory", "").profile.max_memory is None
    assert wrong("", "max_memory", '0 = "20GB"\ncpu = "much"')[0].startswith("line 2: cpu: expected a size")


def test_a_device_map_is_a_word_or_a_table():
    assert attempt("", "device_map", "cpu").profile.device_map == "cpu"
    assert attempt("", "device_map", '{ "" = 0 }').profile.device_map == {"": 0}
    assert attempt("", "max_shard_size", "1000000").profile.max_shard_size == 1000000
    assert wrong("", "max_shard_size", "5 apples") == ['expected a size such as "5GB" or "500MB"']


def test_scorers_are_edited_as_tables_with_the_line_of_what_is_wrong():
    typed = '[[scorers]]\nplugin = "heretic.scorers.kl_divergence.KLDivergence"\noptimization = "least"\n'
    assert wrong("", "scorers", typed) == [
        'line 3: optimization: expected "minimize", "maximize" or "none", not "least"'
    ]
    loaded = attempt("", "scorers", typed.replace("least", "minimize"))
    assert [one.name for one in loaded.profile.objectives] == ["kl_divergence"]
    assert wrong("", "scorers", "[[scorers]]\nplugin")[0].startswith("line 2: not valid TOML")


def test_a_whole_table_can_be_edited():
    loaded = resolve("demo")
    one = editing.table_field(("good_prompts",), loaded, "")
    text = editing.written(one.value, "body")
    assert 'dataset = "demo:plain_train"' in text
    changed = editing.attempt(loaded, one, text.replace("plain_train", "plain_test"), "body")
    assert changed.profile.good_prompts.dataset == "demo:plain_test"


def test_choices_go_round():
    loaded = from_text("quantization = 'bnb_4bit'\n", "mine")
    assert editing.next_choice(field(loaded, "quantization")) == "none"
    assert editing.next_choice(field(loaded, "allow_pickle")) is True
    assert editing.next_choice(field(loaded, "upload_repo_private")) is True


@pytest.mark.parametrize("key", ["n_trials", "good_prompts.split", "scorer.KLDivergence.kl_tokens", "max_memory"])
def test_a_reset_gives_the_default_that_the_form_shows(key):
    text = (
        "n_trials = 3\nmax_memory = { cpu = '1GB' }\n[good_prompts]\ndataset = 'a'\nsplit = 'x'\n"
        "[scorer.KLDivergence]\nkl_tokens = 4\n"
    )
    loaded = from_text(text, "mine")
    one = field(editing.to_default(loaded, field(loaded, key)), key)
    assert one.value == one.default
    assert field(loaded, key).value != one.default


def test_an_element_of_a_list_has_no_default_of_its_own():
    loaded = resolve("demo")
    with pytest.raises(ProfileError, match="has no default"):
        editing.to_default(loaded, field(loaded, "scorers[0].optimization"))


def test_the_hint_names_the_choices_inside_a_table():
    loaded = resolve("default")
    assert "heretic.scorers.kl_divergence.KLDivergence" in editing.hint(field(loaded, "scorers"), "tables")
    assert "bfloat16" in editing.hint(field(loaded, "dtypes"), "lines")
