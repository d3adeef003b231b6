"""On which line of a TOML text each key stands: tomlkit and tomllib read values, but do not tell."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

# Longer openings first. A triple-quoted string may end with up to two more of its own quotes.
_TOKEN = re.compile(
    r"""
      (?P<skip>    [ \t\r]+ | \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string>  \"{3} (?: [^\\] | \\. )*? \"{3,5}(?!\") | '{3} .*? '{3,5}(?!')
                 | " (?: [^"\\\n] | \\. )* "           | ' [^'\n]* ' )
    | (?P<mark>    [][{}=,.] )
    | (?P<bare>    [^\s\[\]{}=,.\#"']+ )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


_END = _Token("end", "", 0)


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and array element of a valid TOML text."""
    scan = _Scan(_tokens(text))
    scan.document()
    return scan.lines


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of a path, or of the nearest table around it; None where the text has neither."""
    around = (path[:end] for end in range(len(path), 0, -1))
    return next((lines[part] for part in around if part in lines), None)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "skip"
        if kind != "skip":
            tokens.append(_Token(kind, match.group(), line))
        line += match.group().count("\n")
    return tokens


@dataclass
class _Scan:
    """A walk over the tokens of a valid TOML text."""

    tokens: list[_Token]
    at: int = 0
    lines: dict[Path, int] = field(default_factory=dict)
    lengths: dict[Path, int] = field(default_factory=dict)  # how often each [[table]] has been opened

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else _END

    def take(self) -> _Token:
        token = self.peek()
        self.at += 1
        return token

    def skip(self, *texts: str) -> None:
        while self.peek().text in texts and self.peek().kind in {"mark", "newline"}:
            self.at += 1

    def note(self, path: Path, line: int) -> None:
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def document(self) -> None:
        table: Path = ()
        while self.peek() is not _END:
            if self.peek().kind == "newline":
                self.take()
            elif self.peek().text == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        line = self.take().line
        several = self.peek().text == "["
        self.skip("[")
        keys = self.keys()
        self.skip("]")
        path: Path = ()
        for key in keys[:-1]:
            path = self.latest((*path, key))
        path = (*path, keys[-1])
        if several:
            self.lengths[path] = self.lengths.get(path, 0) + 1
        path = self.latest(path)
        self.note(path, line)
        self.lines[path] = line
        return path

    def latest(self, path: Path) -> Path:
        """The last element, where the path is an array of tables."""
        return (*path, self.lengths[path] - 1) if path in self.lengths else path

    def keys(self) -> list[str]:
        keys = [_key(self.take())]
        while self.peek().text == ".":
            self.take()
            keys.append(_key(self.take()))
        return keys

    def pair(self, table: Path) -> None:
        line = self.peek().line
        path = (*table, *self.keys())
        self.note(path, line)
        self.skip("=")
        self.value(path)

    def value(self, path: Path) -> None:
        opening = self.take()
        if opening.kind == "mark" and opening.text == "[":
            self.array(path)
        elif opening.kind == "mark" and opening.text == "{":
            self.inline_table(path)
        elif opening.kind == "bare":
            while self.peek().kind == "bare" or self.peek().text == ".":  # 1.5, or a date and a time
                self.take()

    def array(self, path: Path) -> None:
        self.skip("\n")
        index = 0
        while self.peek().text != "]":
            self.note((*path, index), self.peek().line)
            self.value((*path, index))
            self.skip("\n", ",")
            index += 1
        self.take()

    def inline_table(self, path: Path) -> None:
        self.skip("\n")
        while self.peek().text != "}":
            self.pair(path)
            self.skip("\n", ",")
        self.take()


def _key(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    return str(tomllib.loads(f"key = {token.text}")["key"])
