"""Notes: what a file asks for that does nothing here, said plainly instead of refused."""

from collections.abc import Iterator, Mapping
from typing import Any

from heretic_tui.profile.lines import Path
from heretic_tui.profile.problems import dotted, nearest
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.scorers import TABLES
from heretic_tui.profile.settings import setting_at


def notes(profile: Profile, data: Mapping[str, Any]) -> tuple[str, ...]:
    """A note for each option set in `data` that has no meaning here, and for each scorer table that no scorer uses."""
    return (*_idle_options(data), *_idle_tables(profile, data))


def _idle_options(data: Mapping[str, Any]) -> Iterator[str]:
    tables: dict[tuple[str, str], list[str]] = {}
    for path in _paths(data):
        setting = setting_at(path)
        if setting is not None and setting.note is not None:
            tables.setdefault((str(path[-1]), setting.note), []).append(dotted(path[:-1]))
    for (key, note), around in tables.items():
        where = f" (in {', '.join(around)})" if any(around) else ""
        yield f"`{key}`{where} {note}."


def _idle_tables(profile: Profile, data: Mapping[str, Any]) -> Iterator[str]:
    used = {name for choice in profile.scorers for name in (choice.table, choice.plugin_table)}
    for name in data.get("scorer", {}):
        if name not in used:
            near = None if name in TABLES else nearest(name, used)
            yield f"`scorer.{name}` is used by no scorer{f' (did you mean scorer.{near}?)' if near else ''}."


def _paths(value: Any, around: Path = ()) -> Iterator[Path]:
    if around:
        yield around
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, (*around, key))
