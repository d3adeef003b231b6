"""A profile while it is edited: what is not saved is kept, and what others do to the file is noticed."""

import pytest

from heretic_tui import paths
from heretic_tui.profile import draft as drafts
from heretic_tui.profile import store
from heretic_tui.profile.draft import Draft

TEXT = "# Mine.\n\nn_trials = 10   # few\n\n# About the prompts.\n[good_prompts]\ndataset = 'mine'\n"


@pytest.fixture
def mine(profiles, tmp_path, monkeypatch):
    """A profile of the person's own, as it is opened."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (profiles / "mine.toml").write_text(TEXT)
    return drafts.begin("mine")[0]


def changed(draft: Draft, key="n_trials", value=12) -> Draft:
    return draft.changed(store.set_value(draft.loaded, key, value))


def test_a_change_is_unsaved_until_it_is_written_or_taken_back(mine):
    assert not mine.unsaved
    assert changed(mine).unsaved
    assert not changed(mine).undone().unsaved
    assert not mine.changed(mine.loaded).past


def test_the_difference_has_signs_and_the_lines_around(mine):
    signs = [(sign, line) for sign, line in changed(mine).difference() if sign in "+-"]
    assert signs == [("-", "n_trials = 10   # few"), ("+", "n_trials = 12   # few")]
    assert changed(mine).difference()[0][0] == "@"
    assert mine.difference() == []


def test_lines_that_look_like_names_of_files_are_lines():
    assert drafts.difference("-- a\n", "++ b\n")[1:] == [("-", "-- a"), ("+", "++ b")]


def test_unsaved_changes_come_back(mine):
    drafts.keep(changed(mine))
    found, unsaved = drafts.begin("mine")
    assert unsaved
    assert found.loaded.profile.n_trials == 12
    assert found.loaded.path == mine.loaded.path
    assert drafts.unsaved_names() == {"mine"}
    assert drafts.latest().loaded.profile.n_trials == 12


def test_changes_to_a_built_in_profile_come_back_too(mine):
    drafts.keep(changed(drafts.begin("demo")[0]))
    found, unsaved = drafts.begin("demo")
    assert unsaved
    assert found.builtin
    assert found.to_run().name == "demo-changed"


def test_what_was_saved_is_kept_no_longer(mine):
    draft = changed(mine)
    drafts.keep(draft)
    saved = draft.written(draft, store.save(draft.loaded))
    drafts.keep(saved)
    assert drafts.begin("mine")[1] is False
    assert list(paths.drafts_dir().iterdir()) == []


def test_what_was_changed_while_it_was_saved_stays_unsaved(mine):
    before = changed(mine)
    later = changed(before, value=13)
    after = later.written(before, store.save(before.loaded))
    assert after.unsaved
    assert after.loaded.profile.n_trials == 13


def test_a_damaged_draft_costs_no_more_than_itself(mine):
    drafts.keep(changed(mine))
    (file,) = paths.drafts_dir().iterdir()
    file.write_text('{"name": 1')
    assert not drafts.begin("mine")[1]
    assert drafts.latest() is None


def test_a_file_that_was_broken_meanwhile_does_not_take_the_unsaved_changes_along(mine):
    drafts.keep(changed(mine))
    mine.saved.path.write_text("n_trials = [")
    found, unsaved = drafts.begin("mine")
    assert unsaved
    assert found.loaded.profile.n_trials == 12


def test_what_others_do_to_the_file_is_noticed(mine):
    path = mine.saved.path
    assert drafts.moved_on(mine) is None
    path.touch()
    assert drafts.moved_on(mine) is None
    path.write_text("seed = 1\n")
    assert drafts.moved_on(mine) == "seed = 1\n"
    path.unlink()
    assert "no such file" in drafts.moved_on(mine)
    assert drafts.moved_on(drafts.begin("demo")[0]) is None


def test_reading_the_file_again_can_be_taken_back(mine):
    draft = changed(mine)
    mine.saved.path.write_text("seed = 1\n")
    again = draft.reread(store.load(mine.saved.path))
    assert not again.unsaved
    assert again.undone().loaded.profile.n_trials == 12


def test_a_text_from_an_editor_becomes_the_draft(mine):
    assert mine.with_text("n_trials = 5\n").loaded.profile.n_trials == 5
    with pytest.raises(store.ProfileError, match="must be at least 1"):
        mine.with_text("n_trials = 0\n")


def test_saving_under_a_name_says_where_a_built_in_profile_came_from(mine, profiles):
    saved = store.save_as(store.set_value(store.resolve("default"), "seed", 3), "other")
    text = (profiles / "other.toml").read_text()
    assert text.startswith("# other: made from default.\n")
    assert saved.path == profiles / "other.toml"
    assert saved.profile.seed == 3
    assert store.save_as(mine.loaded, "third").document.as_string() == TEXT


def test_a_duplicate_is_the_same_text(mine, profiles):
    assert store.duplicate("mine", "copy") == profiles / "copy.toml"
    assert (profiles / "copy.toml").read_text() == TEXT
    store.duplicate("demo", "demo2")
    assert store.resolve("demo2").profile == store.resolve("demo").profile


def test_a_profile_is_renamed_and_deleted(mine, profiles):
    assert store.rename("mine", "yours") == profiles / "yours.toml"
    assert mine.moved(profiles / "yours.toml").name == "yours"
    store.delete("yours")
    assert list(profiles.iterdir()) == []


@pytest.mark.parametrize(
    "act",
    [
        lambda: store.duplicate("mine", "demo"),
        lambda: store.duplicate("mine", "mine"),
        lambda: store.duplicate("mine", "../x"),
        lambda: store.duplicate("none", "x"),
        lambda: store.rename("mine", "default"),
        lambda: store.rename("demo", "x"),
        lambda: store.delete("demo"),
        lambda: store.delete("../mine"),
        lambda: store.save_as(store.resolve("demo"), "mine"),
    ],
)
def test_no_file_is_overwritten_and_no_built_in_profile_changed(mine, profiles, act):
    with pytest.raises(store.ProfileError):
        act()
    assert [file.name for file in profiles.iterdir()] == ["mine.toml"]
    assert (profiles / "mine.toml").read_text() == TEXT


def test_a_new_key_stands_below_the_last_one_of_its_table():
    text = (
        "# a\nn_trials = 3\ndtypes = [\n  'auto', # first\n]\n"
        "# about it\n[good_prompts]\ndataset = 'x'\n# next\n[bad_prompts]\ndataset = 'y'"
    )
    loaded = store.from_text(text, "mine")
    assert store.set_value(loaded, "seed", 3).document.as_string() == text.replace("]\n# about", "]\nseed = 3\n# about")
    prefixed = store.set_value(loaded, "good_prompts.prefix", "a\nb").document.as_string()
    assert prefixed == text.replace("# next", 'prefix = "a\\nb"\n# next')
    assert store.set_value(loaded, "bad_prompts.split", "a").document.as_string() == f'{text}\nsplit = "a"\n'


def test_a_new_key_keeps_windows_line_ends():
    loaded = store.from_text("seed = 1\r\n# about\r\n[good_prompts]\r\ndataset = 'x'\r\n", "mine")
    assert store.set_value(loaded, "n_trials", 2).document.as_string() == (
        "seed = 1\r\nn_trials = 2\r\n# about\r\n[good_prompts]\r\ndataset = 'x'\r\n"
    )
