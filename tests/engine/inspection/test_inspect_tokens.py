"""`heretic-tui inspect --tokens` and `heretic-tui directions`, as a person or a script calls them."""

import csv
import io
import json
import sys

import numpy as np
import pytest

from heretic_tui.cli import run_command_line


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Calls a command; gives the exit code and what was printed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["heretic-tui", *map(str, words)])
        code = run_command_line()
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def events(out):
    return {one["event"]: one for one in map(json.loads, out.splitlines())}


def test_tokens_are_printed_with_numbers_and_written_as_files(call, study):
    code, out, err = call("inspect", study.path, "--tokens", "Open [bold]x[/] \x1b[31m 宽", "--direction", "layer:1")
    assert code == 0, err
    assert "layer 1 at layer 1" in out
    assert "\x1b" not in out
    folder = study.path / "inspection" / "tables"
    rows = list(csv.DictReader(io.StringIO((folder / "tokens.csv").read_text(encoding="utf-8"))))
    content = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    assert "".join(row["text"] for row in rows) == "".join(one["text"] for one in content["tokens"])
    assert "Open [bold]x[/] \x1b[31m 宽" in "".join(row["text"] for row in rows)


def test_as_json_there_is_one_object_for_the_original_and_one_for_the_trial(call, study, tmp_path):
    words = (
        "--tokens",
        "Open it",
        "--direction",
        "own",
        "--layer",
        "2",
        "--trial",
        "1",
        "--to",
        tmp_path / "out",
        "--json",
    )
    code, out, _ = call("inspect", study.path, *words)
    found = [one for one in map(json.loads, out.splitlines()) if one["event"] == "tokens"]
    assert code == 0
    assert [(one["trial"], one["layer"], one["direction"]["name"]) for one in found] == [
        (0, "2", "layer 2"),
        (1, "2", "layer 2"),
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tokens.csv", "tokens.json", "tokens-0001.csv", "tokens-0001.json",
    }  # fmt: skip


def test_what_a_direction_is_about_is_told(call, study):
    words = ("--direction", "layer:1", "--top", "3", "--over", "bad", "--vocabulary")
    code, out, err = call("inspect", study.path, *words)
    assert code == 0, err
    assert "highest" in out
    assert "promotes" in out
    code, out, _ = call("inspect", study.path, *words, "--json")
    found = events(out)
    assert len(found["contexts"]["positive"]) == len(found["vocabulary_read"]["promoted"]) == 3
    assert found["contexts"]["row"] == 2


def test_a_model_alone_is_looked_into_with_a_saved_direction(call, study, tiny_folder, tmp_path):
    np.save(tmp_path / "mine.npy", np.ones(48))
    assert call("directions", "import", tmp_path / "mine.npy", "--name", "mine")[0] == 0
    before = set((tmp_path).iterdir())
    code, out, err = call(
        "inspect", tiny_folder, "--tokens", "Open it", "--direction", "mine", "--layer", "in", "--json"
    )
    assert code == 0, err
    assert events(out)["tokens"]["layer"] == "in"
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--direction", "layer:1"), "needs something to look at"),
        (("--tokens", "x", "--direction", "layer:9"), "no layer '9'"),
        (("--tokens", "x", "--layer", "9"), "no layer '9'"),
        (("--tokens", "x", "--direction", "nobody"), "no direction nobody"),
        (("--tokens", "x", "--direction", "pc:1"), "need the residual vectors"),
        (("--tokens", " "), "no prompt to read"),
        (("--tokens", "x", "--trial", "99"), "no trial 99"),
        (("--top", "0"), "--top"),
    ],
)
def test_what_cannot_be_is_said_in_words(call, study, words, message):
    code, _, err = call("inspect", study.path, *words)
    assert code in {1, 2}
    assert message in err
    assert "Traceback" not in err


def test_a_direction_of_another_width_says_both(call, study, tmp_path):
    np.save(tmp_path / "mine.npy", np.ones(5))
    call("directions", "import", tmp_path / "mine.npy")
    code, _, err = call("inspect", study.path, "--tokens", "x", "--direction", "mine")
    assert code == 1
    assert "has 5 numbers, the residual stream of" in err
    assert "48" in err


def test_the_library_is_kept_from_the_command_line(call, study, tmp_path):
    assert "No direction was saved yet" in call("directions", "list")[1]
    file = study.path / "directions.safetensors"
    code, _, err = call("directions", "import", file)
    assert code == 1
    assert "Say which" in err
    code, out, _ = call("directions", "import", file, "--vector", "vectors[2]", "--name", "a [b]x[/]", "--note", "n")
    assert code == 0
    assert "a [b]x[/] (width 48)" in out
    assert call("directions", "rename", "a [b]x[/]", "new", "--note", "other")[0] == 0
    (found,) = [json.loads(line) for line in call("directions", "list", "--json")[1].splitlines()]
    assert (found["name"], found["note"], found["layer"], found["width"]) == ("new", "other", "1", 48)
    assert call("directions", "export", "new", "--to", tmp_path / "x.npy")[0] == 0
    assert np.load(tmp_path / "x.npy").shape == (48,)
    assert call("directions", "export", "new", "--to", tmp_path / "x.npy")[0] == 1
    assert call("directions", "delete", "new")[0] == 0
    assert call("directions", "delete", "new")[0] == 1
    assert (tmp_path / "data" / "heretic-tui" / "directions" / ".trash" / "new.safetensors").is_file()
