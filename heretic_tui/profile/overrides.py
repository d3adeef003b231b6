"""Single settings by their dotted key: reading `key=value`, and putting a value where it belongs."""

import re
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

from heretic_tui.profile import forms
from heretic_tui.profile.lines import Path
from heretic_tui.profile.problems import Problem, dotted, shown, unknown
from heretic_tui.profile.render import plain
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.scorers import plugin_of
from heretic_tui.profile.settings import pattern, setting_at, settings

_FREE_TABLES = ("max_memory", "device_map")


def override(data: dict[str, Any], overrides: Iterable[str], effective: Profile) -> tuple[list[Path], list[Problem]]:
    """Put every `key=value` into the values of a file; returns what was set, and what could not be read."""
    changed: list[Path] = []
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            problems.append(Problem(None, key.strip(), "expected key=value"))
            continue
        try:
            path = key_path(key)
            put(data, path, _value(path, value), effective)
            changed.append(path)
        except KeyProblem as error:
            problems.append(error.problem)
    return changed, problems


class KeyProblem(Exception):
    """A key that leads nowhere."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def key_path(key: str) -> Path:
    """A dotted key as a path; keys may be quoted, and `scorers[0]` is the first element."""
    numbered = re.sub(r"\[(\d+)\]", r".\1", key.strip())
    try:
        nested: Any = tomllib.loads(f"{numbered} = 0")
    except tomllib.TOMLDecodeError:
        raise KeyProblem(Problem(None, key.strip(), "expected a setting's name")) from None
    path: Path = ()
    while isinstance(nested, dict):
        part, nested = next(iter(nested.items()))
        is_index = part.isdecimal() and path[:1] in {("scorers",), ("benchmarks",), ("chain_of_thought_skips",)}
        path = (*path, int(part) if is_index else part)
    if not _is_known(path):
        raise KeyProblem(unknown(path, None))
    return path


def _is_known(path: Path) -> bool:
    key = pattern(path)
    return path[0] in _FREE_TABLES or any(
        one.key == key or one.key.startswith((f"{key}.", f"{key}[]")) or key == f"{one.key}[]" for one in settings()
    )


def _value(path: Path, text: str) -> Any:
    """The text as a TOML value; as it is where the setting is text or it is no TOML."""
    setting = setting_at(path)
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed.pop("value")
    is_text = setting is not None and setting.kind in {"text", "choice"}
    return text if parsed or (is_text and not isinstance(value, str)) else value


def put(table: MutableMapping[str, Any], path: Path, value: Any, effective: Profile) -> None:
    """Set the value at a path, in plain values or in a document, and keep what stands around it.

    A prompt set or a list that the file leaves to the defaults is written out first: a part of it alone would
    replace the whole.
    """
    inside: Any = table
    for end, part in enumerate(path[:-1], start=1):
        if _missing(inside, part):
            inside[part] = _filled(path[:end], effective)
        inside = _inner(inside, part, path)
    last = path[-1]
    if not isinstance(inside, MutableMapping):
        _inner(inside, last, path)
    if _missing(inside, last) or not _same(inside, last, value):
        _replace(inside, last, value, path)


def _replace(inside: Any, key: str | int, value: Any, path: Path) -> None:
    existing = None if _missing(inside, key) else _inner(inside, key, path)
    if isinstance(value, Mapping) and isinstance(existing, MutableMapping):
        for gone in [inner for inner in existing if inner not in value]:
            del existing[gone]
        for inner, new in value.items():
            if inner not in existing or not _same(existing, inner, new):
                _replace(existing, inner, new, path)
    else:
        inside[key] = value


def _same(inside: Any, key: str | int, value: Any) -> bool:
    old = inside[key].unwrap() if hasattr(inside[key], "unwrap") else inside[key]
    return type(old) is type(value) and bool(old == value) and repr(old) == repr(value)


def _missing(inside: Any, key: str | int) -> bool:
    return isinstance(inside, MutableMapping) and key not in inside


def _inner(inside: Any, key: str | int, path: Path) -> Any:
    if isinstance(inside, MutableMapping | MutableSequence):
        with suppress(KeyError, IndexError, TypeError):
            return inside[key]  # type: ignore[index]
    raise KeyProblem(Problem(None, dotted(path), f"there is no {shown(key)} here to set"))


def _filled(path: Path, effective: Profile) -> Any:
    """What a table that is not in the file starts from: all of a prompt set or a list, else nothing."""
    values: Any = {**forms.defaults_1_4(Profile.model_fields), **plain(effective)}
    if len(path) > 2 and path[0] == "scorer" and path[1] not in values.get("scorer", {}):
        path = ("scorer", plugin_of(str(path[1])) or path[1], *path[2:])
    setting = setting_at(path)
    if setting is not None and setting.kind == "list" and path[0] not in values:
        return deepcopy(setting.default)
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, list) or (isinstance(values, Mapping) and "dataset" in values) else {}
