"""The person's settings of the app itself: one TOML file in the configuration folder."""

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from heretic_tui import paths

TEMPLATE = """\
# Settings of the heretic-tui app. Every line may be left out.

# theme = "ember"            # ember, paper, sixteen, one of Textual's, or a file of the themes folder
# model_folders = ["~/models"]
# bell = false               # ring when a run ends
# notify = false             # a desktop notification through the terminal when a run ends
# on_hang_up = "continue"    # where the terminal is lost a study goes on; "stop" ends it after the trial under way

# Other keys for an action, by its id; the help panel (?) shows the ids.
[keys]
# "study.pause" = "p,f5"
"""


@dataclass(frozen=True)
class Preferences:
    """What the person set; `problems` says in words what in the file could not be used."""

    theme: str = "ember"
    model_folders: tuple[Path, ...] = ()
    bell: bool = False
    notify: bool = False
    on_hang_up: Literal["continue", "stop"] = "continue"
    keys: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def preferences_file() -> Path:
    """Where the settings stand."""
    return paths.config_dir() / "settings.toml"


def read_preferences() -> Preferences:
    """Read the settings; whatever cannot be used is left at its default and named in `problems`."""
    path = preferences_file()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return Preferences()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Preferences(problems=(f"{path} cannot be used, so the defaults hold: {error}",))
    return _checked(data, path)


def _checked(data: dict[str, Any], path: Path) -> Preferences:
    known = {one.name for one in fields(Preferences)} - {"problems"}
    problems = [f"{path}: {key} is no setting." for key in data if key not in known]
    found = Preferences()
    for key in known & data.keys():
        value = data[key]
        match key:
            case "theme" if isinstance(value, str):
                found = replace(found, theme=value)
            case "model_folders" if isinstance(value, list) and all(isinstance(one, str) for one in value):
                found = replace(found, model_folders=tuple(Path(one).expanduser() for one in value))
            case "bell" if isinstance(value, bool):
                found = replace(found, bell=value)
            case "notify" if isinstance(value, bool):
                found = replace(found, notify=value)
            case "on_hang_up" if value in ("continue", "stop"):
                found = replace(found, on_hang_up=value)
            case "keys" if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
                found = replace(found, keys=value)
            case _:
                problems.append(f"{path}: {key} cannot be {value!r}; its default holds.")
    return replace(found, problems=tuple(problems))


def write_preference(key: str, value: Any) -> None:
    """Change one setting in the file and keep its comments and order. Raises `ProfileError` where it cannot."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from heretic_tui.profile.files import read_text, write_text

    path = preferences_file()
    text = read_text(path) if path.exists() else TEMPLATE
    try:
        document = tomlkit.parse(text)
    except TOMLKitError:
        return  # the person's own file is broken: it was reported when it was read, and must not be lost
    if key in document:
        document[key] = value
        text = document.as_string()
    else:
        text = f"{key} = {tomlkit.item(value).as_string()}\n{text}"
    write_text(path, text)
