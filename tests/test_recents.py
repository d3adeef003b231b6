"""Models used last: remembered in order, whatever has become of the file."""

import json
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heretic_tui.engine.errors import EngineError
from heretic_tui.recents import recent_models, recents_file, recents_problem, remember_model


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_nothing_is_remembered_at_first_and_nothing_is_wrong():
    assert recent_models() == []
    assert recents_problem() is None
    assert not recents_file().parent.exists()


def test_the_newest_comes_first_and_no_name_twice():
    for name in ("org/a", "org/b", "org/a"):
        remember_model(name)
    assert recent_models() == ["org/a", "org/b"]


def test_twenty_are_kept():
    for number in range(25):
        remember_model(f"org/{number}")
    assert recent_models() == [f"org/{number}" for number in range(24, 4, -1)]


def test_a_folder_is_found_again_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    remember_model("model")
    remember_model("./model")
    assert recent_models() == [str(tmp_path / "model")]


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_told_and_replaced_by_the_next_model(content):
    recents_file().parent.mkdir(parents=True)
    recents_file().write_bytes(content)
    assert recent_models() == []
    assert str(recents_file()) in recents_problem()
    remember_model("org/a")
    assert recent_models() == ["org/a"]
    assert recents_problem() is None


def test_a_folder_in_the_place_of_the_file_is_told():
    recents_file().mkdir(parents=True)
    assert recent_models() == []
    assert "cannot be read" in recents_problem()
    with pytest.raises(EngineError, match="Could not write"):
        remember_model("org/a")


def test_a_file_that_was_edited_by_hand_is_taken_as_far_as_it_goes():
    recents_file().parent.mkdir(parents=True)
    recents_file().write_text(json.dumps(["org/a", "", "org/a", *map(str, range(30))]))
    assert recent_models() == ["org/a", *map(str, range(19))]


def test_nothing_is_left_beside_the_file():
    remember_model("org/a")
    assert [file.name for file in recents_file().parent.iterdir()] == [recents_file().name]
    assert stat.S_ISREG(recents_file().stat().st_mode)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=st.lists(st.text(min_size=1) | st.binary(min_size=1).map(os.fsdecode) | st.just("~nobody/x"), max_size=5))
def test_any_name_comes_back_as_it_was(names):
    recents_file().unlink(missing_ok=True)
    for name in names:
        remember_model(name)
    assert len(recent_models()) <= len(set(names))
    assert recents_problem() is None
    if names and "/" not in names[-1] and names[-1] not in {".", "..", "~"}:
        assert recent_models()[0].endswith(names[-1])
