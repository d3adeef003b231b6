"""A profile as a form: its settings in groups, with their values, defaults and marks. No screen is needed here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from heretic_tui.profile.lines import Path
from heretic_tui.profile.problems import dotted
from heretic_tui.profile.prompt_set import PromptSet
from heretic_tui.profile.render import toml
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.scorers import TABLES, plugin_of
from heretic_tui.profile.settings import Setting, setting_at, settings
from heretic_tui.profile.store import Difference, LoadedProfile, difference

IDLE_GROUP = "no effect"
"""The group of the settings that files of the reference tool may hold and that do nothing here."""
UNSET = "not set"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of one profile, as the form shows it."""

    setting: Setting
    path: Path
    group: str
    section: str
    """The table that it stands in, dotted; empty at the top."""
    label: str
    value: Any
    saved: Any
    """Its value in the file."""
    default: Any
    given: bool
    """Whether the text sets it, to the default or otherwise."""
    idle: str = ""
    """Why it does nothing here; empty where it does something."""

    @property
    def key(self) -> str:
        """Its dotted key."""
        return dotted(self.path)

    @property
    def unsaved(self) -> bool:
        """Whether it differs from the file."""
        return bool(self.value != self.saved)

    @property
    def changed(self) -> bool:
        """Whether it differs from the default."""
        return bool(self.value != self.default)

    @property
    def has_default(self) -> bool:
        """Whether it can be put back on its own: an element of a list cannot."""
        return not (self.path[0] == "scorers" and len(self.path) > 1)

    @property
    def sign(self) -> str:
        """Its mark: `●` differs from the file, `*` from the default."""
        return "●" if self.unsaved else "*" if self.changed else ""

    @property
    def text(self) -> str:
        """Its value for people."""
        return value_text(self.value, self.setting)

    @property
    def state(self) -> str:
        """What its value is compared with: the file's where they differ, else the default."""
        if self.unsaved:
            return f"was {value_text(self.saved, self.setting)}"
        if not self.has_default:
            return ""
        return f"default {value_text(self.default, self.setting)}" if self.changed else "default"


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the form: its dotted key, and what it is for."""

    path: Path
    help: str
    idle: str = ""

    @property
    def key(self) -> str:
        """Its dotted key."""
        return dotted(self.path)

    @property
    def is_prompt_set(self) -> bool:
        """Whether it holds prompts."""
        return setting_at((*self.path, "dataset")) is not None


def fields(loaded: LoadedProfile, saved: Profile) -> tuple[Field, ...]:
    """The settings that apply to the profile's form; those that do nothing come last, in a group of their own."""
    profile = loaded.profile
    values, before, given = profile.model_dump(), saved.model_dump(), loaded.document.unwrap()
    used = {name for choice in profile.scorers for name in (choice.table, choice.plugin_table)}
    found: list[Field] = []
    other = "scorers" if profile.form == "1.4" else "1.4"
    for one in settings():
        if one.form == other:
            continue
        for path in _paths(one, profile):
            *around, label = path
            default = _default(one, path, values, profile)
            is_given = at(given, path, _NOTHING) is not _NOTHING
            if one.note and len(path) > 1 and not is_given:
                continue  # idle parts of prompt sets are many, and only worth a line where somebody has set them
            found.append(
                Field(
                    setting=one,
                    path=path,
                    group=IDLE_GROUP if one.note else one.group,
                    section="" if path[0] == "scorers" else dotted(tuple(around)),
                    label=_label(path, profile) or str(label),
                    value=at(values, path, default),
                    saved=at(before, path, default),
                    default=default,
                    given=is_given,
                    idle=one.note or _unused(path, used),
                )
            )
    return tuple(_ordered(found))


def section(path: Path, loaded: LoadedProfile) -> Section:
    """What the form tells of a table."""
    used = {name for choice in loaded.profile.scorers for name in (choice.table, choice.plugin_table)}
    return Section(path, _about(path), _unused(path, used))


def groups(found: Iterable[Field]) -> dict[str, list[Field]]:
    """The fields by group, in the form's order."""
    by_group: dict[str, list[Field]] = {}
    for field in found:
        by_group.setdefault(field.group, []).append(field)
    return by_group


def matching(found: Iterable[Field], words: str) -> list[Field]:
    """The fields whose key or help holds every word."""
    wanted = words.casefold().split()
    return [field for field in found if all(word in f"{field.key} {field.setting.help}".casefold() for word in wanted)]


def value_text(value: Any, setting: Setting) -> str:
    """A value for people, with its unit."""
    match value:
        case None:
            return UNSET
        case "":
            return "empty"
        case bool():
            return str(value).lower()
        case int() | float():
            unit = (setting.unit or "").removesuffix("s" if value == 1 else "")
            return f"{value} {unit}".strip()
        case str():
            return value
        case list() if value and isinstance(value[0], Mapping):
            return ", ".join(_row_text(row) for row in value)
        case list() if value and isinstance(value[0], list):
            return f"{len(value)}: " + ", ".join(str(row[0]) for row in value)
        case list():
            return (f"{len(value)}: " if len(value) > 6 else "") + ", ".join(map(str, value)) or "empty"
        case _:
            return toml(value)


def facts(field: Field) -> list[str]:
    """What a value may be: type, bounds, unit, default."""
    one = field.setting
    found = [" | ".join(one.choices) if one.choices else one.type_text]
    if one.minimum is not None:
        found.append(f"{'more than' if one.above_minimum else 'at least'} {one.minimum:g}")
    if one.maximum is not None:
        found.append(f"at most {int(one.maximum) if one.maximum == int(one.maximum) else one.maximum}")
    if one.unit:
        found.append(f"in {one.unit}")
    if field.has_default:
        found.append(f"default: {value_text(field.default, one)}")
    return found


def at(values: Any, path: Path, otherwise: Any = None) -> Any:
    """The value at a path; `otherwise` where there is none."""
    for part in path:
        known = range(len(values)) if isinstance(values, list) else values if isinstance(values, Mapping) else ()
        if part not in known:
            return otherwise
        values = values[part]
    return values


def prompt_sets(loaded: LoadedProfile) -> dict[str, PromptSet]:
    """The prompt sets that the profile uses, by the key of their table."""
    profile = loaded.profile
    found: dict[str, PromptSet | None] = {"good_prompts": profile.good_prompts, "bad_prompts": profile.bad_prompts}
    if profile.form == "1.4":
        found["good_evaluation_prompts"] = profile.good_evaluation_prompts
        found["bad_evaluation_prompts"] = profile.bad_evaluation_prompts
    else:
        found |= {dotted(("scorer", name, "prompts")): table.prompts for name, table in profile.scorer.items()}
    return {name: one for name, one in found.items() if one is not None}


_OF_THE_RUN = {"model", "model_commit", "seed", "commit"}
"""What a run settles for itself when it is begun."""


def run_differences(run: Profile, here: Profile) -> list[Difference]:
    """The settings in which a profile differs from that of a run, without what the run has settled for itself."""
    return [one for one in difference(run, here) if not (one.key.rpartition(".")[2] in _OF_THE_RUN and one.b is None)]


def difference_texts(found: Iterable[Difference]) -> list[tuple[str, str, str]]:
    """Key, value there and value here of every difference, for people."""
    return [(one.key, _any_text(one.a), _any_text(one.b)) for one in found]


def _any_text(value: Any) -> str:
    match value:
        case None:
            return UNSET
        case [{}, *_]:
            return ", ".join(_row_text(row) for row in value)
        case list() | dict() | bool():
            return toml(value)
        case _:
            return str(value)


def styled_toml(text: str) -> list[tuple[Literal["comment", "table", "key"], str]]:
    """The lines of a TOML text, each with what it is."""

    def kind(line: str) -> Literal["comment", "table", "key"]:
        bare = line.lstrip()
        return "comment" if bare.startswith("#") else "table" if bare.startswith("[") else "key"

    return [(kind(line), line) for line in text.splitlines()]


_NOTHING = object()


def _paths(one: Setting, profile: Profile) -> Iterator[Path]:
    """Where a setting stands in this profile: tables of scorers may be there several times."""
    if one.key == "scorers[].optimization":
        yield from (("scorers", index, "optimization") for index in range(len(profile.scorers)))
    elif "[]" in one.key:
        return
    elif one.key.startswith("scorer."):
        _, plugin, *rest = one.key.split(".")
        yield from (("scorer", name, *rest) for name in profile.scorer if plugin_of(name) == plugin)
    else:
        yield tuple(one.key.split("."))


def _default(one: Setting, path: Path, values: Any, profile: Profile) -> Any:
    if path[0] == "scorers" and len(path) > 1:
        return at(values, path)  # it has none
    if path[0] == "scorer" and path[1] not in TABLES:
        return at(values, ("scorer", plugin_of(str(path[1])) or "", *path[2:]), one.default)
    return one.default_1_4 if profile.form == "1.4" else one.default


def _label(path: Path, profile: Profile) -> str | None:
    if path[0] == "scorers" and len(path) == 3 and isinstance(path[1], int):
        choice = profile.scorers[path[1]]
        return f"{path[1] + 1}. {choice.instance_name or choice.plugin_table}"
    return None


def _unused(path: Path, used: set[str]) -> str:
    return "is used by no scorer" if path[:1] == ("scorer",) and len(path) > 1 and path[1] not in used else ""


def _about(path: Path) -> str:
    """The help text of a table, from the schema."""
    table: type[BaseModel] | None = Profile
    text = ""
    if path[:1] == ("scorer",) and len(path) > 1:
        table, path = TABLES.get(plugin_of(str(path[1])) or ""), path[2:]
        text = (table.__doc__ or "").strip() if table else ""
    for part in path:
        if table is None or str(part) not in table.model_fields:
            break
        info = table.model_fields[str(part)]
        text, table = info.description or text, _table_of(info)
    return text


def _table_of(info: FieldInfo) -> type[BaseModel] | None:
    options = [info.annotation, *get_args(info.annotation)]
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _ordered(found: list[Field]) -> Iterator[Field]:
    """By group; in each, what stands at the top before the tables, and idle tables last."""
    by_group = groups(found)
    idle = by_group.pop(IDLE_GROUP, [])
    for group in by_group.values():
        order = list(dict.fromkeys(_table(field) for field in group))
        yield from sorted(group, key=lambda field: (bool(field.idle), bool(field.section), order.index(_table(field))))
    yield from idle


def _table(field: Field) -> Path:
    """The table that a field is listed with: prompts stand with their scorer."""
    return field.path[:2] if field.path[0] == "scorer" else field.path[:1] if field.section else ()


def _row_text(row: Mapping[str, Any]) -> str:
    if "plugin" in row:
        name = str(row["plugin"]).rpartition(".")[2]
        instance = f" {row['instance_name']}" if row.get("instance_name") else ""
        return f"{name}{instance} ({row.get('optimization')})"
    return str(next(iter(row.values()), ""))
