"""What is wrong with a profile, said for people: line, key, reason and the nearest known name."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from heretic_tui.masking import masked
from heretic_tui.profile.lines import Path, line_of
from heretic_tui.profile.settings import pattern, settings


@dataclass(frozen=True)
class Problem:
    """One thing wrong; `line` is None for what does not stand in a file."""

    line: int | None
    key: str
    reason: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.key}: {self.reason}{hint}" if self.key else f"{self.reason}{hint}"


class ProfileError(Exception):
    """A profile that cannot be used, with all its problems; a command that meets it exits with `exit_code`."""

    exit_code = 2

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        ordered = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        self.name = name
        self.problems = tuple(ordered)
        super().__init__(name, self.problems)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.name}:{problem.line}: {problem}" if problem.line else f"{self.name}: {problem}"
            for problem in self.problems
        )


def problems_of(error: ValidationError, lines: Mapping[Path, int], elsewhere: Iterable[Path] = ()) -> list[Problem]:
    """Every problem of a validation, with its line in the file; what was set `elsewhere` has none."""
    set_elsewhere = tuple(elsewhere)
    return [_problem(one, lines, set_elsewhere) for one in error.errors(include_url=False)]


def dotted(path: Path) -> str:
    """A path as people write it: `scorers[0].plugin`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that a word was most likely meant to be."""
    by_plain = {_plain(name): name for name in known}
    if _plain(word) in by_plain:
        return by_plain[_plain(word)]
    found = difflib.get_close_matches(_plain(word), by_plain, n=1, cutoff=cutoff)
    return by_plain[found[0]] if found else None


def unknown(path: Path, line: int | None) -> Problem:
    """The problem of a key that no setting has."""
    return Problem(line, dotted(path), "unknown setting", _nearest_setting(path))


def shown(value: Any) -> str:
    """A value as it stands in a file, or what it is where that is long."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            line = masked(value).replace("\n", "\\n")
            return f'"{line}"' if len(line) <= 40 else f'"{line[:37]}..."'
        case int() | float():
            return str(value)
        case Mapping():
            return "a table"
        case list():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _problem(error: Any, lines: Mapping[Path, int], elsewhere: tuple[Path, ...]) -> Problem:
    path: Path = tuple(error["loc"])
    line = None if any(path[: len(other)] == other for other in elsewhere) else line_of(lines, path)
    if error["type"] == "extra_forbidden":
        return unknown(path, line)
    context = error.get("ctx") or {}
    suggestion = context.get("nearest")
    if error["type"] == "literal_error":
        suggestion = _nearest_choice(error["input"], _choices(context))
    return Problem(line, dotted(path), _reason(error["type"], context, error["input"], error["msg"]), suggestion)


def _reason(kind: str, context: Mapping[str, Any], value: Any, otherwise: str) -> str:
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, not {shown(value)}"
    if kind in _BOUNDS:
        return f"{_BOUNDS[kind](context)}, not {shown(value)}"
    return _OTHER[kind](context, value) if kind in _OTHER else otherwise


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUNDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda context: f"must be at least {context['ge']:g}",
    "greater_than": lambda context: f"must be more than {context['gt']:g}",
    "less_than_equal": lambda context: f"must be at most {_number(context['le'])}",
    "less_than": lambda context: f"must be less than {_number(context['lt'])}",
}


_OTHER: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "literal_error": lambda context, value: f"expected {_one_of(_choices(context))}, not {shown(value)}",
    "missing": lambda context, value: "is needed here",
    "string_too_short": lambda context, value: "must not be empty",
    "too_short": lambda context, value: f"expected at least {_elements(context['min_length'])}, not {len(value)}",
    "too_long": lambda context, value: f"expected at most {_elements(context['max_length'])}, not {len(value)}",
}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{count} elements"


def _one_of(choices: list[str]) -> str:
    *most, last = [f'"{choice}"' for choice in choices]
    return f"{', '.join(most)} or {last}" if most else last


def _choices(context: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _nearest_choice(value: Any, choices: list[str]) -> str | None:
    if not isinstance(value, str):
        return None
    dotted_names = {choice.rpartition(".")[2]: choice for choice in choices}
    by_end = nearest(value.rpartition(".")[2], dotted_names)
    found = dotted_names[by_end] if by_end else nearest(value, choices)
    # Of a few long dotted names, the nearest helps even when it is far.
    found = found or (nearest(value, choices, 0.0) if any("." in choice for choice in choices) else None)
    return f'"{found}"' if found else None


def _nearest_setting(path: Path) -> str | None:
    """A setting of this name elsewhere, or one of a like name in the same table."""
    around, word = pattern(path[:-1]), str(path[-1])
    prefix = f"{around}." if around else ""
    keys = [one.key for one in settings()]
    siblings = dict.fromkeys(re.split(r"[.\[]", key[len(prefix) :])[0] for key in keys if key.startswith(prefix))
    elsewhere = (key for key in keys if _plain(key.rpartition(".")[2]) == _plain(word))
    exact = next((name for name in siblings if _plain(name) == _plain(word)), None)
    if exact is None and (moved := next(elsewhere, None)):
        return moved
    near = exact or nearest(word, siblings)
    return dotted((*path[:-1], near)) if near else None


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[\w-]+", part, re.ASCII) else f'"{part}"'
