import os
import subprocess
import sys

import pytest

from heretic_tui.engine.export.aside import HOST, written_aside


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder, name):
    (folder / name).mkdir()
    (folder / name / "half.txt").write_text(name, encoding="utf-8")


def test_what_a_killed_process_left_is_cleared_away(tmp_path, dead):
    left(tmp_path, f".out.{dead}-{HOST}aabbcc.partial")
    with written_aside(tmp_path / "other") as folder:
        assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_what_living_processes_and_other_machines_write_is_left_alone(tmp_path, dead):
    kept = [f".out.{os.getpid()}-{HOST}aabbcc.partial", f".out.{dead}-00000000aabbcc.partial", ".out.partial"]
    for name in kept:
        left(tmp_path, name)
    with written_aside(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "out"])


@pytest.mark.parametrize("arrived", [True, False])
def test_what_a_killed_process_had_set_aside_comes_back_where_nothing_took_its_place(tmp_path, dead, arrived):
    left(tmp_path, f".out.{dead}-{HOST}aabbcc.replaced")
    if arrived:
        left(tmp_path, "out")
    with written_aside(tmp_path / "other"):
        pass
    text = (tmp_path / "out" / "half.txt").read_text(encoding="utf-8")
    assert (text == "out") is arrived
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_link_stays_and_the_folder_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    left(tmp_path / "disk", "place")
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "place")
    with written_aside(tmp_path / "out") as folder:
        assert folder.parent == tmp_path / "disk"
        (folder / "new.txt").write_text("new", encoding="utf-8")
    assert (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new.txt"]
