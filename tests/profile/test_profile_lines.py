"""Every key of a TOML text is found on its line."""

import re
import tomllib
from itertools import count

from hypothesis import given, reject
from hypothesis import strategies as st

from heretic_tui.profile.lines import line_of, lines_of


def basic(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


KEYS = st.one_of(
    st.text("ab_-1", min_size=1, max_size=3),
    st.text('a .[]={}#"\\é', max_size=4).map(basic),
    st.text('a .[]={}#"', max_size=4).map(lambda text: f"'{text}'"),
)
# Text that looks like keys, tables and comments, in every kind of string, and scalars with marks in them.
DECOYS = st.sampled_from(
    [
        '"""\n[x]\na = 1 # """',
        '"""a "quoted" b = 1""""',
        '"""\\"""\n\\\\"""',
        "'''\na = 1\n[b]\n'''",
        "'''it''s'''''",
        '"# [a] = \\" {"',
        "'a = {'",
        '""',
        "''",
        '""""""',
        "1979-05-27 07:32:00.5",
        "1.5e3",
        "true",
    ]
)
LEAF = st.just("leaf")
VALUES = st.recursive(
    LEAF | DECOYS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: ("array", found))
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(lambda found: ("inline", found))
    ),
    max_leaves=6,
)
PAIRS = st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=2), VALUES), max_size=4)
HEADERS = st.tuples(st.booleans(), st.lists(KEYS, min_size=1, max_size=3))
GAPS = st.sampled_from(["", "\n", "# a = 1\n", "  \n#[x]\n\n"])


@st.composite
def texts(draw):
    """A text that is mostly valid TOML, in which every leaf is a number of its own."""
    numbers = count(1_000_000)
    newline = draw(st.sampled_from(["\n", "\r\n"]))

    def value(drawn):
        match drawn:
            case ("array", elements):
                gap = draw(st.sampled_from(["", " ", "\n", " # ]\n "]))
                return "[" + gap + f",{gap}".join(value(element) for element in elements) + gap + "]"
            case ("inline", pairs):
                return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in pairs) + " }"
            case "leaf":
                return str(next(numbers))
            case _:
                return drawn

    def block():
        return "".join(
            draw(GAPS) + f"{' . '.join(keys)} = {value(drawn)}{draw(st.sampled_from(['', ' # c']))}\n"
            for keys, drawn in draw(PAIRS)
        )

    text = block()
    for several, keys in draw(st.lists(HEADERS, max_size=4)):
        header = " . ".join(keys)
        text += draw(GAPS) + (f"[[{header}]]\n" if several else f"[ {header} ]\n") + block()
    return text.replace("\n", newline)


def leaves(value, path=()):
    match value:
        case dict():
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from leaves(inner, (*path, index))
        case _:
            yield path, value


def all_paths(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from all_paths(inner, (*path, key))


def valid(text):
    """The values of a text; the few that use a key twice are passed over."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return reject()


@given(texts())
def test_every_path_of_a_text_has_a_line_and_no_other_has(text):
    assert set(lines_of(text)) == set(all_paths(valid(text)))


@given(texts())
def test_the_line_of_a_value_is_the_one_it_stands_on(text):
    data = valid(text)
    lines = lines_of(text)
    rows = text.split("\n")
    for path, value in leaves(data):
        if isinstance(value, int) and value >= 1_000_000:
            standing = next(number for number, row in enumerate(rows, 1) if re.search(rf"\b{value}\b", row))
            # A key stands where it begins; only an array may put the value on a later line.
            key_line = lines[path]
            assert key_line == standing if isinstance(path[-1], int) else key_line <= standing


SAMPLE = """\
# comment
a = 1
b.c = [
    1,
    { d = 2 },
]

[t."x.y"]
e = \"\"\"
f = 3
\"\"\"
g = 4

[[s]]
h = 5
[[s]]
h = 6
[s.u]
i = 7
"""


def test_lines_of_a_text_with_everything():
    lines = lines_of(SAMPLE)
    assert lines["a",] == 2
    assert lines["b", "c"] == 3
    assert lines["b", "c", 1, "d"] == 5
    assert lines["t", "x.y"] == 8
    assert lines["t", "x.y", "g"] == 12
    assert lines["s", 0, "h"] == 15
    assert lines["s", 1] == 16
    assert lines["s", 1, "u", "i"] == 19
    assert ("f",) not in lines


def test_a_missing_key_is_looked_for_in_the_table_around_it():
    assert line_of(lines_of(SAMPLE), ("s", 1, "missing")) == 16
    assert line_of(lines_of(SAMPLE), ("nowhere",)) is None
