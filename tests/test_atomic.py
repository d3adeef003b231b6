"""Files are written whole or not at all."""

import errno

import pytest

from heretic_tui.atomic import write_whole


def test_folders_that_are_missing_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b.txt", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "a" / "b.txt").read_text() == "new"


def test_a_write_that_fails_halfway_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path):
    path, link = tmp_path / "kept.txt", tmp_path / "link.txt"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_whole(link, lambda temporary: temporary.write_text("new"), private=False)
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
    path = tmp_path / "shared.txt"

    def outer(temporary):
        temporary.write_text("first")
        write_whole(path, lambda other: other.write_text("second"))

    write_whole(path, outer)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
