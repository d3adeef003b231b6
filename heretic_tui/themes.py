"""Themes as files: our own, which ship with the package, and the person's in the configuration folder."""

import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from textual.color import Color, ColorParseError
from textual.theme import Theme

from heretic_tui import paths

DEFAULT = "ember"
_COLOURS = {
    "primary", "secondary", "warning", "error", "success", "accent", "foreground", "background", "surface", "panel",
    "boost",
}  # fmt: skip
_KNOWN = {one.name for one in fields(Theme)}


class ThemeError(Exception):
    """A theme file that cannot be used; the text names the file and says why."""


def own_themes_dir() -> Path:
    """The folder of the themes that come with the package."""
    installed = Path(__file__).parent / "themes"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "themes"


def user_themes_dir() -> Path:
    """The folder of the person's own themes."""
    return paths.config_dir() / "themes"


def read_themes() -> tuple[list[Theme], list[str]]:
    """All themes there are, and what is wrong with the files that are none; a person's own wins over ours."""
    themes: dict[str, Theme] = {}
    problems = []
    for path in (*_files(own_themes_dir()), *_files(user_themes_dir())):
        try:
            theme = read_theme(path)
            themes[theme.name] = theme
        except ThemeError as error:
            problems.append(str(error))
    return list(themes.values()), problems


def find_theme(name: str) -> Theme | None:
    """The theme of this name: the person's own, else ours; None where there is neither. Raises `ThemeError`."""
    for folder in (user_themes_dir(), own_themes_dir()):
        if (path := folder / f"{name}.toml").is_file():
            return read_theme(path)
    return None


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("*.toml"))) if folder.is_dir() else iter(())


def read_theme(path: Path) -> Theme:
    """A theme from its file, named after it. Raises `ThemeError`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThemeError(f"The theme {path} cannot be read: {error}") from error
    for key, value in data.items():
        if key not in _KNOWN - {"name"}:
            raise ThemeError(f"The theme {path} has no use for {key!r}.")
        if key in _COLOURS:
            _check_colour(path, key, value)
    variables = data.get("variables", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ThemeError(f"The theme {path}: [variables] holds something that is not text.")
    if "primary" not in data:
        raise ThemeError(f"The theme {path} names no primary colour.")
    theme = Theme(name=path.stem, **data)
    try:
        theme.to_color_system().generate()
    except (ColorParseError, TypeError, ValueError, AttributeError) as error:
        raise ThemeError(f"The theme {path} cannot be used: {error}") from error
    return theme


def _check_colour(path: Path, key: str, value: object) -> None:
    try:
        Color.parse(value)
    except (ColorParseError, TypeError, AttributeError) as error:
        raise ThemeError(f"The theme {path}: {key} is no colour: {value!r}.") from error
