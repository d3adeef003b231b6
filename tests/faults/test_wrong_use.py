"""Wrong profiles and wrong use of the command line: exit code 2, one line a problem."""

from pathlib import Path

import pytest

from heretic_tui import paths


@pytest.fixture
def wrong(heretic):
    """Call the command line wrongly: exit code 2, a short message with all words."""

    def call(*arguments: object, words: tuple[object, ...], lines: int = 2) -> None:
        heretic(*arguments).is_plain(*words, code=2, lines=lines)

    return call


def test_an_unknown_profile(wrong, model_dir):
    wrong("run", model_dir, "--profile", "defalt", words=("defalt", "no such profile", "did you mean default?"))


def test_a_profile_file_that_is_not_there(wrong, model_dir, tmp_path):
    wrong("run", model_dir, "--profile", tmp_path / "nothing.toml", words=("nothing.toml", "no such file"))


def test_a_profile_that_is_not_toml(wrong, model_dir, tmp_path):
    (tmp_path / "bad.toml").write_text("n_trials = \n")
    wrong("run", model_dir, "--profile", tmp_path / "bad.toml", words=("bad.toml:1", "not valid TOML"))


def test_a_profile_that_is_not_utf8(wrong, model_dir, tmp_path):
    (tmp_path / "bad.toml").write_bytes(b'system_prompt = "caf\xe9"\n')
    wrong("run", model_dir, "--profile", tmp_path / "bad.toml", words=("bad.toml:1", "UTF-8"))


def test_a_profile_with_several_problems_tells_them_all(wrong, model_dir, tmp_path):
    (tmp_path / "bad.toml").write_text('n_trals = 3\nbatch_size = "x"\n')
    words = ("bad.toml:1", "did you mean n_trials?", "bad.toml:2", "whole number")
    wrong("run", model_dir, "--profile", tmp_path / "bad.toml", words=words)
    wrong("profiles", "check", tmp_path / "bad.toml", words=words)


def test_a_setting_that_is_not_one(wrong, model_dir):
    wrong("run", model_dir, "--set", "n_trails=3", words=("n_trails", "n_trials"))
    wrong("run", model_dir, "--set", "n_trials", words=("n_trials",))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run",), "Give a model"),
        (("nosuch",), "nosuch"),
        (("run", "--nosuch"), "--nosuch"),
        (("run", "model", "--trials", "0"), "--trials"),
        (("run", "model", "--trials", "many"), "--trials"),
        (("run", "model", "--seed", "-1"), "--seed"),
        (("export",), "RUN"),
        (("export", "run"), "--trial"),
        (("evaluate", "model"), "--base"),
        (("trials",), "RUN"),
        (("profiles", "show", "nosuch"), "nosuch"),
        (("profiles", "new", "../up"), "../up"),
        (("profiles", "new", "default"), "default"),
    ],
)
def test_wrong_arguments(wrong, arguments, word):
    wrong(*arguments, words=(word,))


def test_a_new_profile_does_not_replace_an_old_one(heretic, contents):
    assert heretic("profiles", "new", "mine").code == 0
    before = contents(paths.profiles_dir())
    heretic("profiles", "new", "mine").is_plain("mine", "already", code=2)
    assert contents(paths.profiles_dir()) == before


@pytest.mark.parametrize("command", [("trials",), ("run", "--resume"), ("export", "--trial", 1, "--to", "x")])
def test_a_run_that_does_not_exist(heretic, study, command):
    name, *options = command
    wanted = f"{study.name[:-1]}9"
    outcome = heretic(name, *options, wanted, "--runs-dir", study.parent)
    outcome.is_plain(wanted, f"Did you mean {study.name}?", "heretic-tui runs")


def test_the_folder_of_the_runs_may_be_given_before_the_command_or_behind_it(heretic, study, tmp_path):
    listed = heretic("--runs-dir", study.parent, "runs", "--json")
    assert [row["run"] for row in listed.objects] == [study.name]
    assert heretic("runs", "--runs-dir", study.parent, "--json").objects == listed.objects
    assert heretic("--runs-dir", study.parent, "trials", study.name).code == 0
    nearer = heretic("--runs-dir", study.parent, "runs", "--runs-dir", tmp_path / "other", "--json")
    assert nearer.objects == []


def test_watching_needs_a_terminal_and_something_to_watch(heretic, study):
    heretic("attach", study.name, "--runs-dir", study.parent).is_plain("needs a terminal", code=2)
    heretic("attach", f"{study.name}9", "--runs-dir", study.parent).is_plain("There is no run", study.name)
    heretic("attach", "--runs-dir", study.parent).is_plain("No process works on a run", "heretic-tui attach RUN")


def test_a_trial_that_does_not_exist(heretic, study, tmp_path):
    outcome = heretic("export", study, "--trial", 7, "--to", tmp_path / "out")
    outcome.is_plain("no trial 7", "2 finished trials", "heretic-tui trials")
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_of_another_model(heretic, study, model_copy, contents):
    before = contents(study)
    heretic("run", model_copy, "--resume", study).is_plain(study.name, model_copy, code=2)
    assert contents(study) == before


def test_a_resumed_run_keeps_its_own_settings_and_says_what_differs(heretic, study, profile):
    before = (study / "profile.toml").read_bytes()
    other = profile(name="other", max_response_length=9, seed=5)
    outcome = heretic(
        "run", "--resume", study, "--profile", other, "--set", "batch_size=3", "--trials", 3, "--seed", 6, "--json"
    )
    assert outcome.code == 0
    notes = outcome.err.splitlines()
    assert "note: max_response_length stays 6; 9 was asked for." in notes
    assert "note: batch_size stays 6; 3 was asked for." in notes
    assert "note: seed stays 1; 6 was asked for." in notes
    assert len([note for note in notes if "seed" in note]) == 1
    assert notes[-1] == "note: a resumed run keeps its own settings; start a new run to use others."
    assert outcome.of("study_finished")[0]["trials"] == 3
    assert (study / "profile.toml").read_bytes() == before


def test_a_seed_that_differs_only_in_the_profile_is_told(heretic, study, profile):
    outcome = heretic("run", "--resume", study, "--profile", profile(name="other", seed=5))
    assert "note: seed stays 1; 5 was asked for." in outcome.err


def test_a_resumed_run_with_the_same_profile_says_nothing(heretic, study, profile):
    outcome = heretic("run", "--resume", study, "--profile", profile())
    assert outcome.code == 0
    assert not outcome.err


def test_a_resumed_run_with_an_unknown_profile(heretic, study, contents):
    before = contents(study)
    heretic("run", "--resume", study, "--profile", "defalt").is_plain("defalt", "did you mean default?", code=2)
    assert contents(study) == before


def test_a_run_whose_profile_was_damaged(heretic, study):
    (study / "profile.toml").write_text("n_trials = \n")
    heretic("run", "--resume", study).is_plain("profile.toml:1", "not valid TOML", code=2)
    listed = heretic("runs", "--runs-dir", study.parent)
    assert listed.code == 0
    assert "not valid TOML" in listed.out


def test_a_model_that_moved_away(heretic, study, model_dir, tmp_path, contents):
    text = (study / "profile.toml").read_text().replace(str(model_dir), str(tmp_path / "gone"))
    (study / "profile.toml").write_text(text)
    before = contents(study)
    heretic("run", "--resume", study, "--trials", 3).is_plain(tmp_path / "gone", "Give a folder")
    assert contents(study) == before
    assert heretic("trials", study).code == 0


def test_an_export_does_not_replace_what_is_there(heretic, study, tmp_path, contents):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    heretic("export", study, "--trial", 1, "--to", target).is_plain(target, "exists already", "--overwrite")
    assert contents(target) == {"mine.txt": b"mine"}


def test_an_export_onto_a_file(heretic, study, tmp_path):
    target = tmp_path / "out"
    target.write_text("mine")
    heretic("export", study, "--trial", 1, "--to", target).is_plain(target, "exists already")
    assert target.read_text() == "mine"


def test_an_export_below_a_file(heretic, study, tmp_path):
    (tmp_path / "file").write_text("mine")
    heretic("export", study, "--trial", 1, "--to", tmp_path / "file" / "out").is_plain(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("below", "word"), [("", "in the way"), ("runs", "file, not a folder")])
def test_runs_below_a_file(heretic, model_dir, profile, tmp_path, below, word):
    (tmp_path / "file").write_text("mine")
    outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", tmp_path / "file" / below)
    outcome.is_plain(tmp_path / "file", word, "Choose another place")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_study_file_that_is_none(heretic, tmp_path):
    for content in ("", "not a journal\n", "{}\n", '{"op_code": 0}\n'):
        (tmp_path / "study.jsonl").write_text(content)
        heretic("trials", tmp_path / "study.jsonl").is_plain(tmp_path / "study.jsonl")
        assert (tmp_path / "study.jsonl").read_text() == content
        assert not list(tmp_path.glob("study.jsonl.*"))


def test_success_is_silent_on_standard_error_and_json_is_pure(heretic, study, tmp_path):
    calls: list[tuple[object, ...]] = [
        ("runs", "--runs-dir", study.parent),
        ("trials", study),
        ("trials", study, "--front"),
        ("run", "--resume", study, "--trials", 3),
        ("export", study, "--trial", 1, "--to", tmp_path / "model"),
        ("export", study, "--trial", 1, "--to", tmp_path / "adapter", "--adapter"),
        ("profiles", "list"),
    ]
    for call in calls:
        outcome = heretic(*call, "--json")
        assert (outcome.code, outcome.err) == (0, ""), call
        assert outcome.objects


def test_evaluate_with_json(heretic, model_dir, profile, tmp_path):
    outcome = heretic("evaluate", model_dir, "--base", model_dir, "--profile", profile(), "--json")
    assert outcome.code == 0
    assert outcome.of("evaluated")[0]["scores"]["kl_divergence"]["value"] == pytest.approx(0, abs=1e-6)
    heretic("evaluate", tmp_path / "no", "--base", model_dir, "--profile", profile()).is_plain(tmp_path / "no")


def test_help_and_version_are_done(heretic):
    assert heretic("--help").code == 0
    assert heretic("run", "--help").code == 0


def test_paths_of_folders_with_spaces(heretic, model_dir, profile, tmp_path):
    import shutil

    folder = Path(shutil.copytree(model_dir, tmp_path / "a model é"))
    outcome = heretic("run", folder, "--profile", profile(), "--runs-dir", tmp_path / "my runs", "--json")
    assert outcome.code == 0
