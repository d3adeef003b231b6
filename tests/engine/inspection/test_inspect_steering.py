"""`heretic-tui inspect --steer` and `--sensitivity`, as a person or a script calls them."""

import csv
import json
import sys
from pathlib import Path

import pytest

from heretic_tui.cli import run_command_line
from heretic_tui.engine.inspection.sensitivity import sensitivity_path


@pytest.fixture
def inspect(study, capsys, monkeypatch):
    """Calls the command on the test's run; gives the exit code and what was printed."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heretic-tui", "inspect", str(study.path), *words])
        code = run_command_line()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_both_answers_stand_one_below_the_other(inspect):
    code, out, err = inspect("--steer", "layer 1 added x3 at 0-2", "--prompt", "Hello?", "--max-tokens", "8")
    assert code == 0, err
    for head in ("[prompt]", "Hello?", "[original]", "[layer 1 added x3 at 0-2]"):
        assert head in out
    assert out.index("[original]") < out.index("[layer 1 added")


def test_as_json_each_prompt_gives_a_line_with_both_answers(inspect):
    words = ("--steer", "layer 1 removed", "--prompt", "One?", "--prompt", "Two?", "--max-tokens", "5", "--json")
    code, out, _ = inspect(*words)
    found = [json.loads(line) for line in out.splitlines()]
    steered = [one for one in found if one["event"] == "steered"]
    assert code == 0
    assert [one["prompt"] for one in steered] == ["One?", "Two?"]
    assert {one["candidate"] for one in steered} == {"layer 1 removed x1 everywhere"}
    assert all(one["original"]["tokens"] <= 5 and one["steered"]["tokens"] <= 5 for one in steered)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steer", "layer 1 removed"), "needs a --prompt"),
        (("--prompt", "Hello?"), "something to --steer"),
        (("--steer", "anything", "--prompt", "Hello?"), "says no steering"),
        (("--steer", "layer 9 removed", "--prompt", "Hello?"), "no layer 9"),
        (("--steer", "nobody removed", "--prompt", "Hello?"), "no direction nobody"),
        (("--steer", "layer 1 removed", "--prompt", "Hello?", "--trial", "1"), "original model"),
        (("--sensitivity", "--sample", "0"), "--sample"),
    ],
)
def test_what_cannot_be_is_said_in_words(inspect, monkeypatch, tmp_path, words, message):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, _, err = inspect(*words)
    assert code in {1, 2}
    assert message in err
    assert "Traceback" not in err


def test_sensitivity_is_measured_once_and_then_read(inspect, study, monkeypatch):
    code, out, err = inspect("--sensitivity", "--sample", "3")
    assert code == 0, err
    for words in ("3 prompts of each set", "as measured", "one at a time", "position -2 'A'", "no template"):
        assert words in out
    assert sensitivity_path(study).is_file()

    def again(*_, **__):
        raise AssertionError

    monkeypatch.setattr("heretic_tui.engine.inspection.sensitivity_measuring.measure_sensitivity", again)
    code, out, _ = inspect("--sensitivity", "--json")
    assert code == 0
    (told,) = (json.loads(line) for line in out.splitlines())
    assert told["prompts"] == 3
    assert told["variants"][0]["cosines"][0] is None
    with Path(told["files"][0]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["in", "0", "1", "2"]
    assert float(rows[-1]["no template"]) == told["variants"][-1]["cosines"][-1]
    assert rows[0]["as measured"] == ""
