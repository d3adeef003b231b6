"""Profiles as files: found, changed with comments kept, saved whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from heretic_tui import paths
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.settings import settings
from heretic_tui.profile.store import (
    Difference,
    ProfileError,
    difference,
    from_text,
    list_profiles,
    load,
    new,
    reset,
    resolve,
    save,
    set_value,
)

BY_HAND = """\
# My study.

seed = 3   # the lucky one
n_trials = 10

# Where the prompts come from.
[good_prompts]   # mine
dataset = 'mine'   # a folder
column = "c"

# Fewer tokens.
[scorer.KLDivergence]
kl_tokens = 4
"""


@pytest.fixture
def by_hand(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BY_HAND)
    return path


def test_saving_what_was_loaded_changes_nothing(by_hand):
    save(load(by_hand))
    assert by_hand.read_text() == BY_HAND


def test_comments_and_order_survive_a_change(by_hand):
    loaded = load(by_hand)
    for key, value in [("n_trials", 20), ("good_prompts.dataset", "other"), ("scorer.KLDivergence.kl_tokens", 8)]:
        loaded = set_value(loaded, key, value)
    save(loaded)
    changed = BY_HAND.replace("n_trials = 10", "n_trials = 20").replace("'mine'", '"other"')
    assert by_hand.read_text() == changed.replace("kl_tokens = 4", "kl_tokens = 8")
    assert load(by_hand).profile == loaded.profile


def test_a_comment_behind_a_value_survives_its_change(by_hand):
    loaded = set_value(load(by_hand), "seed", 4)
    assert "seed = 4   # the lucky one" in loaded.document.as_string()


def test_windows_line_ends_survive(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"# c\r\nseed = 1\r\nn_trials = 2\r\n")
    save(set_value(load(path), "n_trials", 3))
    assert path.read_bytes() == b"# c\r\nseed = 1\r\nn_trials = 3\r\n"


def test_a_new_setting_stands_before_the_tables(by_hand):
    loaded = set_value(load(by_hand), "batch_size", 8)
    text = loaded.document.as_string()
    assert text.index("batch_size") < text.index("[good_prompts]")
    assert from_text(text, "again").profile == loaded.profile


def test_a_part_of_a_default_prompt_set_brings_the_rest_of_it(by_hand):
    loaded = set_value(load(by_hand), "bad_prompts.split", "train[:5]")
    assert loaded.profile.bad_prompts.dataset == "mlabonne/harmful_behaviors"
    assert from_text(loaded.document.as_string(), "again").profile == loaded.profile


def test_a_whole_table_can_be_set(by_hand):
    loaded = set_value(load(by_hand), "good_prompts", {"dataset": "other", "split": "train"})
    assert loaded.profile.good_prompts.column is None
    assert "# a folder" in loaded.document.as_string()


def test_an_element_of_the_scorers_can_be_set():
    loaded = set_value(resolve("demo"), "scorers[2].optimization", "maximize")
    assert len(loaded.profile.objectives) == 3


def test_resetting_a_setting_brings_its_default_back(by_hand):
    loaded = reset(load(by_hand), "n_trials")
    assert loaded.profile.n_trials == 200
    assert "n_trials" not in loaded.document.as_string()
    assert set_value(load(by_hand), "good_prompts", None).profile.good_prompts == Profile().good_prompts


def test_resetting_what_is_not_set_changes_nothing(by_hand):
    loaded = load(by_hand)
    assert reset(loaded, "bad_prompts.split") == loaded


def test_a_change_that_is_not_valid_leaves_the_profile_as_it_was(by_hand):
    loaded = load(by_hand)
    with pytest.raises(ProfileError, match="n_trials: must be at least 1, not 0"):
        set_value(loaded, "n_trials", 0)
    with pytest.raises(ProfileError, match="did you mean n_trials"):
        set_value(loaded, "n_trails", 1)
    assert loaded.document.as_string() == BY_HAND


def test_a_write_that_fails_leaves_the_old_file_and_says_why(by_hand, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ProfileError, match="cannot be written: No space left on device"):
        save(set_value(load(by_hand), "seed", 4))
    assert by_hand.read_text() == BY_HAND
    assert list(by_hand.parent.iterdir()) == [by_hand]


def test_saving_keeps_a_link_and_the_files_mode(by_hand, tmp_path):
    by_hand.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(by_hand)
    save(set_value(load(link), "seed", 4))
    assert link.is_symlink()
    assert load(by_hand).profile.seed == 4
    assert by_hand.stat().st_mode & 0o777 == 0o640


def test_a_built_in_profile_cannot_be_overwritten_but_saved_elsewhere(tmp_path):
    with pytest.raises(ProfileError, match="save it under a name"):
        save(resolve("demo"))
    saved = save(resolve("demo"), tmp_path / "sub" / "mine.toml")
    assert load(tmp_path / "sub" / "mine.toml").profile == saved.profile


def test_built_in_profiles_load_without_a_note():
    for entry in list_profiles():
        assert resolve(entry.name).notes == ()


def test_the_list_has_the_built_in_profiles_and_the_persons_own(profiles):
    (profiles / "mine.toml").write_text("# Stories.\nseed = 1\n")
    (profiles / "broken.toml").write_bytes(b"\xff")
    found = {entry.name: entry for entry in list_profiles()}
    assert next(iter(found)) == "default"
    assert {"demo", "heretic-1.4"} <= set(found)
    assert found["mine"].summary == "Stories."
    assert found["mine"].path == profiles / "mine.toml"
    assert not found["mine"].builtin
    assert "UTF-8" in found["broken"].summary


def test_a_profile_is_found_by_name_or_path(profiles, by_hand, monkeypatch):
    (profiles / "own.toml").write_text("seed = 7\n")
    assert resolve("own").profile.seed == 7
    assert resolve(str(by_hand)).profile.seed == 3
    monkeypatch.chdir(by_hand.parent)
    assert resolve("mine.toml").profile.seed == 3
    assert resolve("./mine.toml").profile.seed == 3


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list(profiles):
    with pytest.raises(ProfileError) as caught:
        resolve("dmeo")
    assert "there are default, demo, heretic-1.4 (did you mean demo?)" in str(caught.value)


@pytest.mark.parametrize("source", ["default", "demo", "heretic-1.4"])
def test_a_new_profile_asks_for_the_same_with_every_setting_explained(profiles, source):
    loaded = new("mine", source)
    assert loaded.profile == resolve(source).profile == resolve("mine").profile
    assert loaded.notes == ()
    text = (profiles / "mine.toml").read_text()
    for setting in settings():
        if setting.note is None and setting.form == "both" and "[]" not in setting.key:
            assert setting.key.rpartition(".")[2] in text
            assert setting.help[:20] in text


def test_a_new_profile_overwrites_nothing(profiles):
    new("mine")
    (profiles / "mine.toml").write_text("seed = 5\n")
    for name in ("mine", "default"):
        with pytest.raises(ProfileError, match="there is a profile of this name already"):
            new(name)
    assert resolve("mine").profile.seed == 5


def test_a_new_profiles_name_stays_in_its_folder(profiles):
    with pytest.raises(ProfileError, match="name has letters"):
        new("../mine")


def test_the_difference_of_two_profiles_names_every_setting():
    a = from_text("seed = 1\n", "a").profile
    b = from_text("n_trials = 3\n[scorer.KLDivergence]\nkl_tokens = 2\n", "b").profile
    assert difference(a, b) == [
        Difference("scorer.KLDivergence.kl_tokens", 1, 2),
        Difference("n_trials", 200, 3),
        Difference("seed", 1, None),
    ]
    assert difference(a, a) == []


def test_folders_follow_xdg_and_are_not_created(tmp_path, monkeypatch):
    for name in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    assert paths.config_dir() == tmp_path / "CONFIG" / "heretic-tui"
    assert paths.profiles_dir() == tmp_path / "CONFIG" / "heretic-tui" / "profiles"
    assert paths.runs_dir() == tmp_path / "DATA" / "heretic-tui" / "runs"
    assert paths.cache_dir() == tmp_path / "CACHE" / "heretic-tui"
    assert paths.log_dir() == tmp_path / "STATE" / "heretic-tui" / "log"
    assert list(tmp_path.iterdir()) == []


def test_a_relative_xdg_folder_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert paths.runs_dir().is_absolute()


def test_importing_paths_creates_nothing(tmp_path):
    subprocess.run(
        [sys.executable, "-c", "import heretic_tui.paths as p; p.runs_dir(); p.log_dir()"],
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(paths.__file__).parents[1])},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
