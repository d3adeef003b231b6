"""The settings of a profile as a list: what the editor, the command line and the reference page are made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from heretic_tui.profile import forms
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.scorers import TABLES, plugin_of

Kind = Literal["text", "choice", "flag", "whole", "number", "list", "table", "mixed"]

_TYPE_TEXTS: dict[Kind, str] = {
    "text": "text",
    "choice": "one of",
    "flag": "true or false",
    "whole": "whole number",
    "number": "number",
    "list": "list",
    "table": "table",
    "mixed": "text or table",
}
_KINDS: dict[Any, Kind] = {str: "text", bool: "flag", int: "whole", float: "number", dict: "table", list: "list"}


@dataclass(frozen=True)
class Setting:
    """One setting: what it is called, what it may be and what it means."""

    key: str
    """Dotted; `[]` stands for the elements of a list of tables."""
    group: str
    kind: Kind
    type_text: str
    default: Any
    """A plain value; None where nothing is set. Of a 1.4.0-only setting, its default in that form."""
    choices: tuple[str, ...]
    """The values it may have, or the elements of its list may have; empty where any will do."""
    minimum: float | None
    maximum: float | None
    above_minimum: bool
    """The minimum itself is too small."""
    unit: str | None
    help: str
    optional: bool
    form: Literal["both", "1.4", "scorers"]
    default_1_4: Any
    """The default in the 1.4.0 form, where it differs; else `default`."""
    note: str | None
    """What is said when a file sets an option that does nothing here."""


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the schema; tables below it come with dotted keys."""
    defaults = Profile().model_dump()
    return tuple(
        one for name, info in Profile.model_fields.items() for one in _settings(name, info, defaults[name], None)
    )


def setting_at(path: tuple[str | int, ...]) -> Setting | None:
    """The setting that a path in a file belongs to; None for a table or an unknown key."""
    return _by_key().get(pattern(path))


def pattern(path: tuple[str | int, ...]) -> str:
    """A path in a file as a setting's key: `scorer.KeywordRate_a.prompts` is `scorer.KeywordRate.prompts`."""
    if len(path) > 1 and path[0] == "scorer":
        path = ("scorer", plugin_of(str(path[1])) or path[1], *path[2:])
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@cache
def _by_key() -> dict[str, Setting]:
    return {one.key: one for one in settings()}


def _settings(key: str, info: FieldInfo, default: Any, outer: Setting | None) -> Iterator[Setting]:
    annotation = _plain(info.annotation)
    one = _setting(key, info, annotation, default, outer)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _below(f"{key}.", annotation, one)
    elif key == "scorer":
        for name, table in TABLES.items():
            yield from _below(f"scorer.{name}.", table, one)
    else:
        yield one
        element = _plain(next(iter(get_args(annotation)), None))
        if get_origin(annotation) is list and isinstance(element, type) and issubclass(element, BaseModel):
            yield from _below(f"{key}[].", element, one, fresh=True)


def _below(prefix: str, table: type[BaseModel], outer: Setting, fresh: bool = False) -> Iterator[Setting]:
    default = None if fresh else outer.default
    if prefix.startswith("scorer.") and prefix.count(".") == 2:
        default = outer.default.get(prefix.split(".")[1])
    for name, info in table.model_fields.items():
        inside = default[name] if isinstance(default, dict) and name in default else _default(info)
        yield from _settings(prefix + name, info, inside, outer)


def _default(info: FieldInfo) -> Any:
    return None if info.is_required() else info.get_default(call_default_factory=True)


def _setting(key: str, info: FieldInfo, annotation: Any, default: Any, outer: Setting | None) -> Setting:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    element = _plain(get_args(annotation)[0]) if get_origin(annotation) is list else annotation
    choices = tuple(str(choice) for choice in get_args(element)) if get_origin(element) is Literal else ()
    bounds = {
        name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)
    }
    kind = _kind(annotation)
    default_1_4: Any = extra.get("default_1_4", default)
    form = outer.form if outer else _form(key)
    return Setting(
        key=key,
        group=outer.group if outer else str(extra.get("group")),
        kind=kind,
        type_text=_type_text(annotation, kind),
        default=default_1_4 if form == "1.4" and default is None else default,
        choices=choices,
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds.get("lt")),
        above_minimum="gt" in bounds,
        unit=str(extra["unit"]) if extra.get("unit") else None,
        help=info.description or "",
        optional=NoneType in get_args(info.annotation),
        form=form,
        default_1_4=default_1_4,
        note=str(extra["note"]) if extra.get("note") else None,
    )


def _form(key: str) -> Literal["both", "1.4", "scorers"]:
    if key in forms.ONLY_1_4:
        return "1.4"
    return "scorers" if key in forms.ONLY_LATER else "both"


def _plain(annotation: Any) -> Any:
    """A type without its constraints and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        parts = [_plain(part) for part in get_args(annotation) if part is not NoneType]
        return parts[0] if len(parts) == 1 else annotation
    return annotation


def _kind(annotation: Any) -> Kind:
    if get_origin(annotation) is Literal:
        return "choice"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return _KINDS.get(get_origin(annotation) or annotation, "mixed")


def _type_text(annotation: Any, kind: Kind) -> str:
    if kind == "mixed":
        parts = [_type_text(_plain(part), _kind(_plain(part))) for part in get_args(annotation) if part is not NoneType]
        return " or ".join(dict.fromkeys(parts))
    if kind == "list":
        element = _plain(get_args(annotation)[0])
        text = _type_text(element, _kind(element))
        return {"one of": "list of choices", "list of text": "list of pairs", "table": "list of tables"}.get(
            text, f"list of {text}"
        )
    return _TYPE_TEXTS[kind]
