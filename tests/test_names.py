"""Names from elsewhere become names of files, and never a way to anywhere else."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heretic_tui import names, paths
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.pictures import plots_folder
from heretic_tui.engine.runs.listing import create_run, open_run
from heretic_tui.engine.runs.run import PROFILE, Run
from heretic_tui.exports import default_place
from heretic_tui.profile import store
from heretic_tui.profile.problems import ProfileError
from heretic_tui.profile.schema import Profile
from heretic_tui.transcripts import keep

ATTEMPTS = [
    "..",
    ".",
    "",
    " ",
    "../../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/authorized_keys",
    "..\\..\\windows\\system32",
    "C:\\Windows\\win.ini",
    "\\\\server\\share",
    "a/../../b",
    "name\0.toml",
    "name\n[settings]",
    "\x1b]0;title\x07",
    "\x9b31m",
    "right\u202eot-left",
    "in\u200bvisible",
    "half a pair \ud800",
    "n" * 5000,
    "é" * 500,
    "CON",
    "nul.txt",
    "com1",
    "LPT¹.toml",
    "aux .json",
    "ends in a dot.",
    "ends in a space ",
    ".hidden",
    "-rf",
    "file:stream",
    'a"b<c>d|e?f*g',
    "${HOME}",
    "$(touch here)",
]
anything = st.text(st.characters(exclude_categories=()), max_size=400) | st.sampled_from(ATTEMPTS)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "xdg"))


def is_safe(name):
    """Whether a name is one part of a path that every file system takes."""
    return (
        Path(name).name == name
        and names.in_folder(name)
        and len(name.encode()) <= 255
        and name == name.strip(". ")
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
    )


@given(anything)
@example("CON.a.b")
@example("a" * 79 + ".é")
def test_every_text_becomes_a_name_in_its_folder(text):
    name = names.file_name(text)
    assert is_safe(name), name
    assert names.file_name(name) == name
    assert len(name.encode()) <= names.LONGEST


@given(anything)
def test_every_model_has_one_folder_for_its_pictures(text):
    base = Path("/plots")
    for trial in (0, 7):
        folder = plots_folder(base, text, trial)
        assert folder.parent == base
        assert is_safe(folder.name), folder.name


@given(anything)
def test_an_export_is_offered_in_the_current_folder(text):
    place = default_place(text, 3, adapter=False)
    assert place.startswith("./")
    assert is_safe(place.removeprefix("./"))


@settings(max_examples=60)
@given(anything)
def test_no_name_is_a_profile_that_lies_elsewhere(text):
    if store.name_problem(text) is None:
        assert is_safe(f"{text}.toml")
    else:
        with pytest.raises(ProfileError):
            store.new(text)


def below(folder):
    """All files below a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_run_stays_below_its_folder(tmp_path, attempt, name):
    run = create_run(tmp_path / "runs", name, name, Profile())
    assert run.path.parent == tmp_path / "runs"
    assert is_safe(run.name)
    assert below(tmp_path) == {run.path / PROFILE}
    attempt(name, f"runs/{run.name}")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_direction_stays_in_the_library(tmp_path, attempt, name):
    library = DirectionLibrary(tmp_path / "directions")
    try:
        entry = library.save(direction("x", [1.0, 2.0, 2.0]), name)
    except EngineError as error:
        assert not below(tmp_path)
        attempt(name, f"refused: {error}")
    else:
        assert entry.path.parent == library.folder
        assert is_safe(entry.path.name)
        assert below(tmp_path) == {entry.path, entry.facts}
        assert library.delete(entry.name).parent.parent == library.folder
        attempt(name, f"directions/{entry.path.name}")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_transcript_stays_with_the_chats(tmp_path, attempt, name):
    keep("some/model", name, "words")
    (written,) = below(tmp_path)
    assert written.parent == paths.chats_dir()
    assert is_safe(written.name)
    run = Run(tmp_path / "runs" / "one")
    run.path.mkdir(parents=True)
    kept = run.save_chat(f"{name}.md", "words")
    assert kept.parent == run.path / "chats"
    assert is_safe(kept.name)
    attempt(name, f"chats/{written.name}")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_profile_of_that_name_is_refused_or_stays_with_the_others(tmp_path, attempt, name):
    try:
        made = store.new(name).path
    except ProfileError as error:
        assert not below(tmp_path)
        attempt(name, f"refused: {error.problems[0].reason}")
    else:
        assert made.parent == paths.profiles_dir()
        attempt(name, f"profiles/{made.name}")
    with pytest.raises(ProfileError):
        store.rename("none of mine", name)


@pytest.mark.parametrize("name", [one for one in ATTEMPTS if one.strip(" .")])
def test_asking_for_a_run_or_a_profile_by_such_a_name_says_that_there_is_none(tmp_path, attempt, name):
    with pytest.raises(EngineError) as told:
        open_run(tmp_path / "runs", name)
    with pytest.raises(ProfileError):
        store.resolve(name if not name.startswith("~") else f"{name}.toml")
    attempt(name, told.value.cause)
