"""A profile as TOML text: everything resolved, for a run's folder; or with help, for a person to edit."""

import re
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

import tomlkit

from heretic_tui.profile import forms
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.scorers import TABLES, plugin_of
from heretic_tui.profile.settings import Setting, pattern, setting_at, settings

_WIDTH = 120


def dump(profile: Profile) -> str:
    """The profile with every value resolved; options that do nothing here only where they are set."""
    return _text(profile, helpful=False)


def commented(profile: Profile, title: str) -> str:
    """Like `dump`, with each setting's help, type and bounds above it, and what is not set as a comment."""
    return "".join(f"# {line}\n" for line in wrap(title, _WIDTH - 2)) + "\n" + _text(profile, helpful=True)


def plain(profile: Profile) -> dict[str, Any]:
    """The profile's values as they would stand in a file, without what is unset, idle or said elsewhere in it."""
    values = _set_values(profile.model_dump())
    hidden = set(forms.ONLY_LATER if profile.form == "1.4" else ())
    idle = {one.key for one in settings() if one.note and values.get(one.key) == one.default}
    shown = {key: value for key, value in values.items() if key not in hidden | idle}
    if "scorer" in shown:
        shown["scorer"] = _telling_tables(profile, shown["scorer"])
    return shown


def _telling_tables(profile: Profile, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of scorers that are used or changed; an instance's without what it inherits."""
    used = {choice.plugin_table for choice in profile.scorers}
    defaults = _set_values(Profile().model_dump())["scorer"]
    general = {name: tables.get(name, {}) for name in TABLES}
    shown = {name: table for name, table in tables.items() if name not in TABLES or name in used}
    shown |= {name: table for name, table in general.items() if table != defaults[name]}
    return {
        name: table if name in TABLES else _own(table, general[str(plugin_of(name))])
        for name, table in sorted(shown.items(), key=lambda item: list(tables).index(item[0]))
    }


def _own(table: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value != inherited.get(key)}


def _set_values(value: Any) -> Any:
    """Without None, and without a prompt set's empty prefix and suffix."""
    if isinstance(value, Mapping):
        empty = {"prefix": "", "suffix": ""}
        kept = {key: inner for key, inner in value.items() if inner is not None and inner != empty.get(key)}
        return {key: _set_values(inner) for key, inner in kept.items()}
    return [_set_values(inner) for inner in value] if isinstance(value, list) else value


def _text(profile: Profile, helpful: bool) -> str:
    values = plain(profile)
    simple = {key: value for key, value in values.items() if not _is_table(key, value)}
    blocks = [_block((), simple, helpful, profile)]
    for key, value in values.items():
        if key in simple:
            continue
        if isinstance(value, list):
            blocks += [_table((key, index), f"[[{key}]]", one, helpful, profile) for index, one in enumerate(value)]
        else:
            blocks += _tables((key,), value, helpful, profile)
    return "\n".join(block for block in blocks if block)


def _is_table(key: str, value: Any) -> bool:
    """Whether a value is written below a [header]; tables of the person's own keys stand on one line."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return isinstance(value, dict) and setting_at((key,)) is None


def _tables(path: tuple[str, ...], values: dict[str, Any], helpful: bool, profile: Profile) -> Iterator[str]:
    inner = {key: value for key, value in values.items() if isinstance(value, dict)}
    own = {key: value for key, value in values.items() if key not in inner}
    header = ".".join(_key(part) for part in path)
    if own or not inner:
        yield _table(path, f"[{header}]", own, helpful, profile)
    for key, value in inner.items():
        yield from _tables((*path, key), value, helpful, profile)


def _table(path: tuple[str | int, ...], header: str, values: dict[str, Any], helpful: bool, profile: Profile) -> str:
    about = Profile.model_fields[str(path[0])].description if helpful and path[-1] in {*Profile.model_fields, 0} else ""
    return "".join(_comment(about or "")) + f"{header}\n" + _block(path, values, helpful, profile)


def _block(path: tuple[str | int, ...], values: dict[str, Any], helpful: bool, profile: Profile) -> str:
    """The key-value lines of one table, and with help the settings it does not set."""
    if not helpful or (path and isinstance(path[-1], int)):
        return "".join(f"{_key(key)} = {toml(value)}\n" for key, value in values.items())
    entries: list[str] = []
    for setting in _settings_of(path, profile):
        key = setting.key.rpartition(".")[2]
        if key in values:
            entries.append("".join(_comment(_help(setting))) + f"{_key(key)} = {toml(values[key])}\n")
        elif setting.note is None:
            entries.append("".join(_comment(_help(setting))) + f"# {_key(key)} = {_example(setting)}\n")
    return "\n".join(entries) if not path else "".join(entries)


def _settings_of(path: tuple[str | int, ...], profile: Profile) -> list[Setting]:
    prefix = f"{pattern(path)}." if path else ""
    other = "scorers" if profile.form == "1.4" else "1.4"
    return [
        one
        for one in settings()
        if one.key.startswith(prefix) and "." not in one.key[len(prefix) :] and one.form != other
        if path or one.kind != "list" or "tables" not in one.type_text
    ]


def _help(setting: Setting) -> str:
    facts = [" | ".join(setting.choices) if setting.choices else setting.type_text]
    if setting.minimum is not None:
        facts.append(f"{'more than' if setting.above_minimum else 'at least'} {setting.minimum:g}")
    if setting.maximum is not None:
        facts.append(f"at most {int(setting.maximum) if setting.maximum == int(setting.maximum) else setting.maximum}")
    if setting.unit:
        facts.append(f"in {setting.unit}")
    return f"{setting.help} ({', '.join(facts)})"


def _comment(text: str) -> list[str]:
    return [f"# {line}\n" for line in wrap(text, _WIDTH - 2)]


def _example(setting: Setting) -> str:
    if setting.choices:
        return toml(setting.choices[0])
    empty = {"text": "", "flag": False, "whole": 0, "number": 0.0, "list": [], "table": {}, "mixed": ""}
    return toml(empty[setting.kind])


def toml(value: Any) -> str:
    """A plain value as TOML; a list too long for a line has a line for each element."""
    if isinstance(value, list) and len(_inline(value)) > _WIDTH - 30:
        return "[\n" + "".join(f"    {_inline(element)},\n" for element in value) + "]"
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_inline(inner)}" for key, inner in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(element) for element in value)}]"
    return str(tomlkit.item(value).as_string())


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else toml(key)
