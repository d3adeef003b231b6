"""Profiles as TOML files: found by name or path, read, changed with comments and order kept, and saved."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import TOMLKitError

from heretic_tui import paths
from heretic_tui.names import LONGEST, is_device
from heretic_tui.profile import forms
from heretic_tui.profile.files import read_text, write_text
from heretic_tui.profile.insertion import with_key
from heretic_tui.profile.lines import Path as KeyPath
from heretic_tui.profile.lines import lines_of
from heretic_tui.profile.notes import notes
from heretic_tui.profile.overrides import KeyProblem, key_path, override, put
from heretic_tui.profile.problems import Problem, ProfileError, dotted, nearest, problems_of
from heretic_tui.profile.render import commented, dump, toml
from heretic_tui.profile.schema import Profile

__all__ = [
    "Difference",
    "LoadedProfile",
    "Problem",
    "ProfileEntry",
    "ProfileError",
    "apply_overrides",
    "delete",
    "difference",
    "dump",
    "duplicate",
    "from_text",
    "list_profiles",
    "load",
    "name_problem",
    "new",
    "rename",
    "reset",
    "resolve",
    "save",
    "save_as",
    "set_value",
]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class LoadedProfile:
    """A valid profile with the document it was read from."""

    profile: Profile
    notes: tuple[str, ...]
    document: tomlkit.TOMLDocument
    path: Path | None
    name: str
    overrides: tuple[str, ...] = ()
    """The `key=value` settings on top of the document; `save` does not write them."""


@dataclass(frozen=True)
class ProfileEntry:
    """A profile that can be asked for by name."""

    name: str
    path: Path | None
    builtin: bool
    summary: str


@dataclass(frozen=True)
class Difference:
    """A setting in which two profiles differ; None where one has no such setting."""

    key: str
    a: Any
    b: Any


def load(path: Path, overrides: Iterable[str] = ()) -> LoadedProfile:
    """Read a profile's file; a ProfileError tells everything that is wrong with it."""
    if not path.exists() and not path.is_symlink():
        raise _no_file(path)
    return _read(read_text(path), path.name, path, tuple(overrides))


def from_text(text: str, name: str, overrides: Iterable[str] = ()) -> LoadedProfile:
    """Read a profile from a text; `name` stands in its error messages."""
    return _read(text, name, None, tuple(overrides))


def apply_overrides(base: LoadedProfile | Profile, overrides: Iterable[str]) -> LoadedProfile:
    """Put `key=value` settings on top of a profile, and validate the whole."""
    if isinstance(base, Profile):
        return from_text(dump(base), "profile", overrides)
    return _read(base.document.as_string(), base.name, base.path, (*base.overrides, *overrides))


def resolve(name_or_path: str | None, overrides: Iterable[str] = ()) -> LoadedProfile:
    """The profile of a name (built-in, or the person's own) or a path; without either, the default one."""
    name = "default" if name_or_path is None else name_or_path
    builtin = _builtins().get(name)
    if builtin is not None:
        return from_text(builtin, name, overrides)
    with suppress(OSError, RuntimeError, ValueError):  # no name that a file can have
        own = paths.profiles_dir() / f"{name}.toml"
        if _NAME.fullmatch(name) and own.is_file():
            return load(own, overrides)
        path = Path(name).expanduser()
        if os.sep in name or "/" in name or name.endswith(".toml") or path.is_file():
            return load(path, overrides)
    known = [entry.name for entry in list_profiles()]
    problem = Problem(None, "", f"no such profile; there are {', '.join(known)}", nearest(name, known))
    raise ProfileError(name, [problem])


def save(loaded: LoadedProfile, path: Path | None = None) -> LoadedProfile:
    """Write the document to its file, or to another; returns the profile as it now stands there."""
    target = path or loaded.path
    if target is None:
        problem = Problem(None, "", "has no file of its own: save it under a name")
        raise ProfileError(loaded.name, [problem])
    write_text(target, loaded.document.as_string())
    return replace(loaded, path=target, name=target.name)


def set_value(loaded: LoadedProfile, dotted_key: str, value: Any) -> LoadedProfile:
    """The profile with one setting changed in its document; None takes the setting out of it."""
    if value is None:
        return reset(loaded, dotted_key)
    text = loaded.document.as_string()
    document = tomlkit.parse(text)
    try:
        path = key_path(dotted_key)
        put(document, path, value, loaded.profile)
    except KeyProblem as error:
        raise ProfileError(loaded.name, [error.problem]) from error
    if isinstance(path[-1], str) and not isinstance(value, Mapping):
        document = _in_its_place(text, loaded, path, value) or document
    return _changed(loaded, document)


def _in_its_place(text: str, loaded: LoadedProfile, path: KeyPath, value: Any) -> tomlkit.TOMLDocument | None:
    """The document with a key that it did not have; None where it has it, or where the key needs more than a line."""
    data = loaded.document.unwrap()
    table: Any = data
    for part in path[:-1]:
        table = table.get(part) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or path[-1] in table:
        return None
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return None
    found = with_key(text, data, path[:-1], f"{dotted(path[-1:])} = {toml(value)}")
    return tomlkit.parse(found) if found is not None else None


def reset(loaded: LoadedProfile, dotted_key: str) -> LoadedProfile:
    """The profile with one setting taken out of its document, so that the default holds."""
    document = tomlkit.parse(loaded.document.as_string())
    try:
        path = key_path(dotted_key)
    except KeyProblem as error:
        raise ProfileError(loaded.name, [error.problem]) from error
    inside: Any = document
    try:
        for part in path[:-1]:
            inside = inside[part]
        del inside[path[-1]]
    except (KeyError, IndexError, TypeError):
        return loaded
    return _changed(loaded, document)


def list_profiles() -> list[ProfileEntry]:
    """The built-in profiles and the person's own, each with the first line of its comment."""
    builtin = [ProfileEntry(name, None, True, _summary(text)) for name, text in sorted(_builtins().items())]
    folder = paths.profiles_dir()
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    taken = {entry.name for entry in builtin}
    own = [ProfileEntry(f.stem, f, False, _summary_of_file(f)) for f in files if f.stem not in taken]
    return sorted(builtin, key=lambda entry: entry.name != "default") + own


def new(name: str, copy_from: str = "default") -> LoadedProfile:
    """Create a profile of the person's own, with every setting's help above it; nothing is overwritten."""
    path = _free(name)
    source = resolve(copy_from)
    write_text(path, commented(source.profile, f"{name}: made from {copy_from}."))
    return load(path)


def name_problem(name: str) -> str | None:
    """Why a profile of the person's own cannot have this name; None where it can."""
    if not _NAME.fullmatch(name):
        return "a profile's name has letters, digits, dots, dashes, underscores"
    if len(name) > LONGEST or is_device(name):
        return f"a profile's name has at most {LONGEST} letters and is none that Windows keeps for devices"
    path = paths.profiles_dir() / f"{name}.toml"
    return "there is a profile of this name already" if name in _builtins() or os.path.lexists(path) else None


def save_as(loaded: LoadedProfile, name: str) -> LoadedProfile:
    """Save the document as a new profile of the person's own; one made from a built-in profile says so on top."""
    path = _free(name)
    text = loaded.document.as_string()
    if loaded.path is None and text.startswith("#"):
        first, _, rest = text.partition("\n")
        text = f"# {name}: made from {loaded.name}.\n{rest}" if first else text
    write_text(path, text)
    return load(path)


def duplicate(name: str, new_name: str) -> Path:
    """Copy a profile, valid or not, to a new one of the person's own; returns its file."""
    path = _free(new_name)
    builtin = _builtins().get(name)
    if builtin is not None:
        return save_as(from_text(builtin, name), new_name).path or path
    write_text(path, read_text(_own(name)))
    return path


def rename(name: str, new_name: str) -> Path:
    """Give a profile of the person's own another name; returns its file."""
    old, path = _own(name), _free(new_name)
    try:
        old.rename(path)
    except OSError as error:
        raise ProfileError(name, [Problem(None, "", f"cannot be renamed: {error.strerror}")]) from error
    return path


def delete(name: str) -> None:
    """Delete a profile of the person's own."""
    try:
        _own(name).unlink()
    except OSError as error:
        raise ProfileError(name, [Problem(None, "", f"cannot be deleted: {error.strerror}")]) from error


def _free(name: str) -> Path:
    """The file of a new profile."""
    if problem := name_problem(name):
        raise ProfileError(name, [Problem(None, "", problem)])
    return paths.profiles_dir() / f"{name}.toml"


def _own(name: str) -> Path:
    """The file of a profile of the person's own."""
    if name in _builtins():
        raise ProfileError(name, [Problem(None, "", "is built in and stays as it is: save it under a name of its own")])
    path = paths.profiles_dir() / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise ProfileError(name, [Problem(None, "", "there is no such profile of your own")])
    return path


def difference(a: Profile, b: Profile) -> list[Difference]:
    """The settings in which two profiles differ, in the schema's order."""
    flat_a, flat_b = _flat(a.model_dump()), _flat(b.model_dump())
    keys = dict.fromkeys([*flat_a, *flat_b])
    return [Difference(key, flat_a.get(key), flat_b.get(key)) for key in keys if flat_a.get(key) != flat_b.get(key)]


def _flat(values: dict[str, Any], around: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{around}{key}.") if isinstance(value, dict) else {f"{around}{key}": value}
    return flat


def _read(text: str, name: str, path: Path | None, overrides: tuple[str, ...]) -> LoadedProfile:
    document, data = _parsed(text, name)
    in_form_1_4 = forms.is_1_4(data)
    changed, problems = override(data, overrides, _defaults_of(data)) if overrides else ([], [])
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(name, [*problems, *problems_of(error, lines_of(text), changed)]) from error
    if problems:
        raise ProfileError(name, problems)
    found = notes(profile, data)
    if profile.form == "1.4" and not in_form_1_4:
        found = (f"`{next(iter(forms.given_1_4(data)))}` {_CHANGES_FORM}", *found)
    return LoadedProfile(profile, found, document, path, name, overrides)


_CHANGES_FORM = "is a setting of Heretic 1.4.0's files: that form's defaults and its two scorers hold."


def _changed(loaded: LoadedProfile, document: tomlkit.TOMLDocument) -> LoadedProfile:
    return _read(document.as_string(), loaded.name, loaded.path, loaded.overrides)


def _defaults_of(data: dict[str, Any]) -> Profile:
    """The profile of a file's valid part."""
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        broken = {one["loc"][0] for one in error.errors(include_url=False)}
        rest = {key: value for key, value in data.items() if key not in broken}
        return _defaults_of(rest) if len(rest) < len(data) else Profile()


def _parsed(text: str, name: str) -> tuple[tomlkit.TOMLDocument, dict[str, Any]]:
    try:
        data = tomllib.loads(text)
        return tomlkit.parse(text), data
    except (tomllib.TOMLDecodeError, TOMLKitError) as error:
        raise ProfileError(name, [_syntax(str(error), text)]) from error
    except (RecursionError, ValueError) as error:  # brackets within brackets, numbers without an end
        raise ProfileError(name, [Problem(None, "", "not valid TOML: nothing that a profile can hold")]) from error


def _syntax(message: str, text: str) -> Problem:
    place = re.search(r" \(?at (?:line (\d+),? col(?:umn)? (\d+)|end of document)\)?$", message)
    if place is None:
        return Problem(None, "", f"not valid TOML: {message}")
    line = int(place[1]) if place[1] else max(1, len(text.splitlines()))
    where = f" at column {place[2]}" if place[2] else " at the end of the file"
    return Problem(line, "", f"not valid TOML{where}: {message[: place.start()]}")


def _no_file(path: Path) -> ProfileError:
    beside = [str(path.with_name(file.name)) for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    return ProfileError(str(path), [Problem(None, "", "there is no such file", nearest(str(path), beside))])


def _builtins() -> dict[str, str]:
    folder = resources.files("heretic_tui.profile") / "builtin"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def _summary(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _summary_of_file(path: Path) -> str:
    try:
        return _summary(read_text(path))
    except ProfileError as error:
        return error.problems[0].reason
