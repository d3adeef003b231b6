"""What the program writes is this person's alone, whatever the umask and whatever was there before."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from heretic_tui import paths, private
from heretic_tui.atomic import write_whole
from heretic_tui.private import Refused, links_in, make_folder, read_own, tighten


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_private_file_and_the_folders_made_for_it_are_private(tmp_path, umask, attempt):
    file = tmp_path / "a" / "b" / "c.json"
    write_whole(file, lambda path: path.write_text("x"))
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b"), mode(file)) == (0o700, 0o700, 0o600)
    attempt(f"umask {umask:03o}", f"folders {mode(file.parent):o}, file {mode(file):o}")


def test_it_is_private_before_anything_is_in_it(tmp_path, umask):
    seen = []
    write_whole(tmp_path / "file", lambda path: seen.append(mode(path)))
    assert seen == [0o600]


def test_a_file_that_others_could_read_is_private_once_it_is_written_again(tmp_path, umask):
    file = tmp_path / "settings.toml"
    file.write_text("old")
    file.chmod(0o644)
    write_whole(file, lambda path: path.write_text("new"))
    assert mode(file) == 0o600


def test_an_export_has_the_rights_of_any_new_file(tmp_path, umask):
    file = tmp_path / "out" / "table.csv"
    write_whole(file, lambda path: path.write_text("x"), private=False)
    assert mode(file) == 0o666 & ~umask
    assert mode(file.parent) == 0o777 & ~umask


def test_an_export_keeps_the_rights_of_what_it_replaces(tmp_path, umask):
    file = tmp_path / "table.csv"
    file.write_text("x")
    file.chmod(0o640)
    write_whole(file, lambda path: path.write_text("y"), private=False)
    assert mode(file) == 0o640


def test_an_export_has_ordinary_rights_whatever_a_library_gave_it(tmp_path, umask):
    def by_a_library(path):
        path.write_text("x")
        path.chmod(0o600)

    write_whole(tmp_path / "file", by_a_library, private=False)
    assert mode(tmp_path / "file") == 0o666 & ~umask


def test_a_folder_that_is_in_use_already_is_made_private_with_all_that_is_in_it(tmp_path):
    inner = tmp_path / "runs" / "one" / "responses"
    inner.mkdir(parents=True)
    (inner / "trial-0001.jsonl").write_text("x")
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    (tmp_path / "runs" / "link").symlink_to(outside)
    for path in (inner, inner / "trial-0001.jsonl"):
        path.chmod(0o777)
    tighten(tmp_path / "runs")
    assert (mode(inner), mode(inner / "trial-0001.jsonl")) == (0o700, 0o700)
    assert mode(outside) == 0o644


def test_folders_that_are_there_keep_their_rights_when_one_is_made_in_them(tmp_path):
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "new" / "er")
    assert (mode(tmp_path), mode(tmp_path / "new"), mode(tmp_path / "new" / "er")) == (0o755, 0o700, 0o700)


def test_starting_the_program_shuts_its_folders_whoever_could_read_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    open_to_all = [
        paths.profiles_dir() / "own.toml",
        paths.directions_dir() / "one.safetensors",
        paths.chats_dir() / "one.md",
        paths.log_dir() / "app.log",
        paths.runs_dir() / "a--b--1" / "profile.toml",
    ]
    for file in open_to_all:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.chmod(0o666)
        file.parent.chmod(0o777)
    done = subprocess.run([sys.executable, "-m", "heretic_tui", "profiles", "list"], capture_output=True)
    assert done.returncode == 0
    for file in open_to_all:
        assert mode(file.parent) == 0o700, file
    assert [mode(file) for file in open_to_all[:4]] == [0o600] * 4


def fill_link(path, tmp_path):
    (tmp_path / "elsewhere").write_text("{}")
    path.symlink_to(tmp_path / "elsewhere")


def fill_foreign(path, tmp_path):
    path.write_text("{}")
    if os.geteuid():  # only root can give a file away: what belongs to root is another person's then
        private.check_own(Path("/etc/hostname").stat(), tmp_path)
    os.chown(path, 12345, -1)


FILES = {
    "a link": (fill_link, "a link"),
    "a link to nothing": (lambda path, _: path.symlink_to("nowhere"), "a link"),
    "a pipe": (lambda path, _: os.mkfifo(path), "no plain file"),
    "a folder": (lambda path, _: path.mkdir(), "no plain file"),
    "a huge file": (lambda path, _: path.write_bytes(b" " * (private.MOST + 1)), "bytes"),
    "a file of another person": (fill_foreign, "another person"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_control_file_is_a_small_plain_file_of_ones_own(tmp_path, attempt, what):
    fill, word = FILES[what]
    path = tmp_path / "owner.json"
    with pytest.raises(Refused, match=word) as told:
        fill(path, tmp_path)
        read_own(path)
    attempt(what, f"refused: {told.value}")


def test_what_a_refusal_is_about_is_told_once(tmp_path, caplog):
    for _ in range(3):
        private.tell_once(tmp_path / "told\x1b", "it is a link")
    assert caplog.text.count("it is a link") == 1
    assert "\x1b" not in caplog.text


def test_everything_that_is_neither_file_nor_folder_is_found(tmp_path):
    (tmp_path / "in" / "ner").mkdir(parents=True)
    (tmp_path / "in" / "file").write_text("")
    (tmp_path / "in" / "ner" / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert {path.name for path in links_in(tmp_path)} == {"link", "pipe"}
