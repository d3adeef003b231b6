"""A new key in a TOML text, below the last one of its table: a comment above the next table stays with that table."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from heretic_tui.profile.lines import Path, lines_of


def with_key(text: str, data: Mapping[str, Any], table: Path, line: str) -> str | None:
    """The text with the line `key = value` in a table; None where the table holds no plain key to put it after."""
    rows = text.splitlines(keepends=True)
    places = lines_of(text)
    headers = {place for path, place in places.items() if _heads(path, data, rows[place - 1])}
    first = places.get(table, 0) if table else 0
    if table and first not in headers:
        return None  # an inline table, or one that is not there
    end = min((header for header in headers if header > first), default=len(rows) + 1)
    keys = [place for path, place in places.items() if path[:-1] == table and first < place < end]
    if not keys:
        return None
    last = _end_of_value(rows, max(keys))
    ending = "\r\n" if rows[last - 1].endswith("\r\n") else "\n"
    before = rows[:last]
    if not before[-1].endswith("\n"):
        before[-1] += ending
    return "".join([*before, line, ending, *rows[last:]])


def _heads(path: Path, data: Mapping[str, Any], row: str) -> bool:
    """Whether the path stands in a header of this line."""
    value: Any = data
    for part in path:
        value = value[part]
    return isinstance(value, Mapping) and row.lstrip().startswith("[")


def _end_of_value(rows: list[str], start: int) -> int:
    """The last line of the value that begins on a line; both count from 1."""
    for end in range(start, len(rows)):
        with suppress(tomllib.TOMLDecodeError):
            tomllib.loads("".join(rows[start - 1 : end]))
            return end
    return len(rows)
