"""A setting's value as a person edits it: written as text, read back, and put into the profile."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heretic_tui.profile import store
from heretic_tui.profile.form import Field, at
from heretic_tui.profile.lines import Path, lines_of
from heretic_tui.profile.overrides import KeyProblem, key_path
from heretic_tui.profile.problems import Problem, ProfileError, dotted
from heretic_tui.profile.render import toml
from heretic_tui.profile.settings import Setting, settings
from heretic_tui.profile.store import LoadedProfile

Notation = Literal["toggle", "choice", "word", "text", "lines", "pairs", "body", "tables", "toml"]
"""How a value is edited: by a key, in a line, or as a longer text in one of several notations."""

_SPANNING = {"prefix", "suffix", "system_prompt", "response_prefix"}
"""Texts that may span lines."""

HINTS: dict[Notation, str] = {
    "text": "The text as it is; line breaks count.",
    "lines": "One a line.",
    "pairs": 'One pair a line: "how it opens", "the closed block".',
    "body": 'One a line: name = "value". Nothing at all means that it is not set.',
    "tables": "Every element below a header of its own, as it stands in the file.",
    "toml": "The value as TOML.",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with an edited text; `line` counts its own lines from 1."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


def notation(field: Field) -> Notation:
    """How a setting is best edited."""
    one = field.setting
    match one.kind:
        case "flag":
            return "toggle"
        case "choice":
            return "choice"
        case "text":
            return "text" if one.key.rpartition(".")[2] in _SPANNING else "word"
        case "list":
            return {"list of tables": "tables", "list of pairs": "pairs"}.get(one.type_text, "lines")  # type: ignore[return-value]
        case "table":
            return "body"
        case "mixed" if isinstance(field.value, Mapping):
            return "toml"
        case _:
            return "word"


def hint(field: Field, kind: Notation) -> str:
    """What is to be known for typing a value in a notation."""
    below = [one for one in settings() if one.key.startswith(f"{field.key}[].") and one.choices]
    choices = [f"{one.key.rpartition('.')[2]}: {' | '.join(one.choices)}" for one in below]
    if field.setting.choices:
        choices.append(" | ".join(field.setting.choices))
    return "\n".join([f"{field.setting.help} {HINTS.get(kind, '')}".strip(), *choices])


def written(value: Any, kind: Notation, key: str = "value") -> str:
    """A value in a notation."""
    if value is None:
        return ""
    match kind:
        case "lines":
            return "\n".join(str(one) for one in value)
        case "pairs":
            return "\n".join(", ".join(toml(part) for part in pair) for pair in value)
        case "body":
            return "\n".join(f"{name} = {toml(one)}" for name, one in _named(value).items())
        case "tables":
            return "\n".join(f"[[{key}]]\n{written(row, 'body')}\n" for row in value)
        case "toml":
            return toml(_named(value) if isinstance(value, Mapping) else value)
        case "word" if isinstance(value, Mapping):
            return toml(value)
        case "word" if isinstance(value, bool):
            return toml(value)
        case _:
            return str(value)


def read(text: str, kind: Notation, field: Field) -> Any:
    """The value that a text stands for; None where the setting is to be unset. Raises `ProfileError`."""
    match kind:
        case "text":
            return text
        case "lines":
            return [line for line in text.splitlines() if line.strip()]
        case "pairs":
            return [_parsed(f"[{line}]", number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        case "body":
            return _document(text) or None
        case "tables":
            return _document(text).get(str(field.path[-1]), []) if text.strip() else []
        case "toml":
            return _parsed(text, 1) if text.strip() else None
        case _:
            return _word(text, field)


def attempt(loaded: LoadedProfile, field: Field, text: str, kind: Notation) -> LoadedProfile:
    """The profile with the setting as the text has it. Raises `ProfileError`."""
    value = read(text, kind, field)
    if value == "" and kind == "word" and field.setting.optional:
        value = None
    return put(loaded, field, value)


def put(loaded: LoadedProfile, field: Field, value: Any) -> LoadedProfile:
    """The profile with a setting changed; None unsets it. Raises `ProfileError`."""
    if field.setting.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return store.set_value(loaded, field.key, value)


def to_default(loaded: LoadedProfile, field: Field) -> LoadedProfile:
    """The profile with a setting back at the default that the form shows. Raises `ProfileError`."""
    if not field.has_default:
        raise ProfileError(loaded.name, [Problem(None, field.key, "has no default: reset `scorers` as a whole")])
    done = store.reset(loaded, field.key)
    # Without it, the rest of a prompt set that stands in the file has the plain defaults, not those of the set.
    in_prompt_set = len(field.path) > 1 and field.path[0] != "scorers"
    return put(loaded, field, field.default) if in_prompt_set and field.given and field.default is not None else done


def table_field(path: Path, loaded: LoadedProfile, about: str) -> Field:
    """A whole table as one thing to edit, in the notation `body`."""
    value = at(loaded.profile.model_dump(), path)
    setting = Setting(
        key=dotted(path), group="", kind="table", type_text="table", default=None, choices=(), minimum=None,
        maximum=None, above_minimum=False, unit=None, help=about, optional=False, form="both", default_1_4=None,
        note=None,
    )  # fmt: skip
    return Field(setting, path, "", "", str(path[-1]), value, value, None, True)


def next_choice(field: Field) -> Any:
    """The value that follows in the circle of a flag or a choice."""
    circle: list[Any] = [True, False] if field.setting.kind == "flag" else list(field.setting.choices)
    if field.setting.optional:
        circle.append(None)
    return circle[(circle.index(field.value) + 1) % len(circle)] if field.value in circle else circle[0]


def mistakes(error: ProfileError, text: str, kind: Notation, field: Field) -> list[Mistake]:
    """What is wrong, with the lines of the edited text where they can be told."""
    return [Mistake(_line(problem, text, kind, field), _reason(problem, field)) for problem in error.problems]


def _reason(problem: Problem, field: Field) -> str:
    hint = f" (did you mean {problem.suggestion}?)" if problem.suggestion else ""
    inside = problem.key.removeprefix(field.key).lstrip(".")
    about = inside if problem.key.startswith(field.key) else problem.key
    about = re.sub(r"^\[\d+\]\.?", "", about)  # the line says which element
    return f"{about}: {problem.reason}{hint}" if about else f"{problem.reason}{hint}"


def _line(problem: Problem, text: str, kind: Notation, field: Field) -> int | None:
    if not problem.key:
        return problem.line
    element = re.match(r"\[(\d+)\]", problem.key.removeprefix(field.key))
    if kind in {"lines", "pairs"} and element:
        filled = [number for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return filled[int(element[1])] if int(element[1]) < len(filled) else None
    try:
        path = key_path(problem.key)
    except KeyProblem:
        return None
    inside = path[len(field.path) :]
    if path[: len(field.path)] != field.path or not inside:
        return None
    if kind == "tables":
        lines = lines_of(text)
        return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    return lines_of(text).get(inside) if kind == "body" else None


def _word(text: str, field: Field) -> Any:
    text = text.strip() if field.setting.kind != "text" else text
    match field.setting.kind:
        case "whole" | "number":
            if not text and field.setting.optional:
                return None
            return _number(text, field)
        case "mixed":
            if text.startswith("{") or ("whole number" in field.setting.type_text and text.isdecimal()):
                return _parsed(text, None)
            if "true or false" in field.setting.type_text and text in {"true", "false"}:
                return text == "true"
            return text
        case _:
            return text


def _number(text: str, field: Field) -> Any:
    whole = field.setting.kind == "whole"
    kind = "a whole number" if whole else "a number"
    if not text:
        raise ProfileError("", [Problem(None, field.key, f"expected {kind}")])
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise ProfileError("", [Problem(None, field.key, f"expected {kind}, not {text}")]) from None


def _parsed(text: str, line: int | None) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise ProfileError("", [Problem(line, "", f"not valid TOML: {_said(error)}")]) from error
    if len(parsed) != 1:
        raise ProfileError("", [Problem(line, "", "expected one value")])
    return parsed["value"]


def _document(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = _line_said(str(error)) or len(text.splitlines())
        raise ProfileError("", [Problem(line, "", f"not valid TOML: {_said(error)}")]) from error


def _said(error: Exception) -> str:
    return str(error).partition(" (at ")[0]


def _line_said(message: str) -> int | None:
    _, found, rest = message.partition("(at line ")
    return int(rest.partition(",")[0]) if found else None


def _named(value: Any) -> dict[str, Any]:
    """A table without what is not set."""
    shown = {str(name): one for name, one in value.items() if one is not None}
    return {name: _named(one) if isinstance(one, Mapping) else one for name, one in shown.items()}
