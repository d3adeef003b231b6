"""The person's settings and themes: what is broken is told and costs no more than itself."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from heretic_tui import paths
from heretic_tui.preferences import TEMPLATE, Preferences, preferences_file, read_preferences, write_preference
from heretic_tui.themes import ThemeError, own_themes_dir, read_theme, read_themes, user_themes_dir


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def write_settings(text: str) -> None:
    preferences_file().parent.mkdir(parents=True, exist_ok=True)
    preferences_file().write_text(text, encoding="utf-8")


def test_without_a_file_the_defaults_hold():
    assert read_preferences() == Preferences()


def test_every_setting_is_read():
    write_settings(
        'theme = "paper"\nmodel_folders = ["/m"]\nbell = true\nnotify = true\non_hang_up = "stop"\n'
        '[keys]\n"study.pause" = "f5"\n'
    )
    found = read_preferences()
    assert found == Preferences("paper", (Path("/m"),), True, True, "stop", {"study.pause": "f5"})


@pytest.mark.parametrize("text", ["theme = ", "\x00", "theme = 'a'\ntheme = 'b'"])
def test_a_broken_file_is_told_and_the_defaults_hold(text):
    write_settings(text)
    found = read_preferences()
    assert found.theme == Preferences().theme
    assert str(preferences_file()) in found.problems[0]


def test_a_wrong_setting_is_told_and_the_others_hold():
    write_settings('theme = "paper"\nbell = "loud"\nvolume = 3\n')
    found = read_preferences()
    assert found.theme == "paper"
    assert not found.bell
    assert len(found.problems) == 2


def test_a_changed_setting_keeps_the_comments():
    write_settings('# mine\ntheme = "paper"  # light\n[keys]\n"study.pause" = "f5"\n')
    write_preference("theme", "ember")
    text = preferences_file().read_text()
    assert "# mine" in text
    assert "# light" in text
    assert read_preferences().theme == "ember"
    assert read_preferences().keys == {"study.pause": "f5"}


def test_a_setting_that_is_new_in_the_file_does_not_fall_into_its_tables():
    write_preference("theme", "paper")
    assert read_preferences().theme == "paper"
    assert "[keys]" in preferences_file().read_text()


def test_a_broken_file_of_the_person_is_not_written_over():
    write_settings("theme = ")
    write_preference("theme", "ember")
    assert preferences_file().read_text() == "theme = "


def test_the_template_is_a_settings_file():
    assert tomllib.loads(TEMPLATE) == {"keys": {}}


@pytest.mark.parametrize("path", sorted(own_themes_dir().glob("*.toml")), ids=lambda path: path.stem)
def test_our_own_themes_can_be_used(path):
    assert read_theme(path).name == path.stem


def test_there_is_a_dark_a_light_and_a_sixteen_colour_theme():
    themes = {theme.name: theme for theme in read_themes()[0]}
    assert themes["ember"].dark
    assert not themes["paper"].dark
    assert themes["sixteen"].ansi


@pytest.mark.parametrize(
    "text",
    [
        "primary = ",
        'primary = "no colour"',
        "primary = 3",
        'accent = "#ffffff"',
        'primary = "#ffffff"\ncolour = "red"',
        'primary = "#ffffff"\n[variables]\nx = 1',
        'primary = "#ffffff"\nluminosity_spread = "much"',
    ],
)
def test_a_broken_theme_is_told_and_the_others_hold(text):
    user_themes_dir().mkdir(parents=True)
    path = user_themes_dir() / "broken.toml"
    path.write_text(text)
    with pytest.raises(ThemeError, match="broken"):
        read_theme(path)
    themes, problems = read_themes()
    assert len(problems) == 1
    assert "ember" in {theme.name for theme in themes}


def test_a_theme_of_the_person_wins_over_ours():
    user_themes_dir().mkdir(parents=True)
    (user_themes_dir() / "ember.toml").write_text('primary = "#123456"')
    themes = {theme.name: theme for theme in read_themes()[0]}
    assert themes["ember"].primary == "#123456"


def test_the_folders_are_where_the_person_expects_them(home):
    assert preferences_file() == home / paths.APP / "settings.toml"
    assert user_themes_dir() == home / paths.APP / "themes"


def test_our_themes_come_with_the_installed_package(tmp_path):
    """Seen from a folder in which the checkout does not stand."""
    code = "from heretic_tui.themes import read_themes; print(sorted(theme.name for theme in read_themes()[0]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ember', 'paper', 'sixteen']"
