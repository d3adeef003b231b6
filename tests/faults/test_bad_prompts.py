"""Prompt sets: what cannot be read says why, and what can is read exactly."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.prompts.reading import Prompt, load_prompts
from heretic_tui.profile.schema import PromptSet

ROWS = [f"Prompt number {number}" for number in range(30)]


def read(dataset: Path | str, default_system_prompt: str = "", **settings: object) -> list[Prompt]:
    """The prompts of a set."""
    job = load_prompts(PromptSet(dataset=str(dataset), **settings), default_system_prompt)
    while True:
        try:
            next(job)
        except StopIteration as stop:
            return stop.value


def texts(dataset: Path | str, **settings: object) -> list[str]:
    return [prompt.text for prompt in read(dataset, **settings)]


def write_text(path: Path) -> Path:
    path.write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": row, "n": str(n)}) + "\n" for n, row in enumerate(ROWS)))
    return path


def write_csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "n"], *([row, n] for n, row in enumerate(ROWS))])
    return path


def write_parquet(path: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ROWS, "n": [str(n) for n in range(len(ROWS))]}), path)
    return path


def write_saved(path: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"text": ROWS, "n": [str(n) for n in range(len(ROWS))]}).save_to_disk(str(path))
    return path


def write_saved_splits(path: Path) -> Path:
    import datasets

    table = datasets.Dataset.from_dict({"text": ROWS, "n": [str(n) for n in range(len(ROWS))]})
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(path))
    return path


def write_folder(path: Path) -> Path:
    path.mkdir()
    write_jsonl(path / "train.jsonl")
    return path


TABLES = {
    "rows.jsonl": write_jsonl,
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "saved": write_saved,
    "splits": write_saved_splits,
    "folder": write_folder,
}
FORMS = {"rows.txt": write_text, **TABLES}
SLICES = {
    None: ROWS,
    "train": ROWS,
    "[:5]": ROWS[:5],
    "train[:400]": ROWS,
    "train[:7]": ROWS[:7],
    "[10:20]": ROWS[10:20],
    "train[25:]": ROWS[25:],
    "[-3:]": ROWS[-3:],
    "[50%:]": ROWS[15:],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_of_its_slice(form, tmp_path):
    path = FORMS[form](tmp_path / form)
    for split, expected in SLICES.items():
        assert texts(path, split=split) == expected, split


@pytest.mark.parametrize("form", FORMS)
def test_prefix_suffix_and_system_prompt(form, tmp_path):
    path = FORMS[form](tmp_path / form)
    assert read(path, "be kind", split="[:1]", prefix="Please: ", suffix="\nThanks.") == [
        Prompt("Please: Prompt number 0\nThanks.", "be kind")
    ]
    assert read(path, "be kind", split="[:1]", system_prompt="be terse") == [Prompt(ROWS[0], "be terse")]
    assert read(path, "be kind", split="[:1]", system_prompt="") == [Prompt(ROWS[0], "")]


@pytest.mark.parametrize("form", TABLES)
def test_answers_come_from_their_column(form, tmp_path):
    path = TABLES[form](tmp_path / form)
    assert [prompt.answer for prompt in read(path, split="[:3]", answer_column="n")] == ["0", "1", "2"]


@pytest.mark.parametrize("form", TABLES)
def test_a_column_that_is_not_there(form, tmp_path):
    path = TABLES[form](tmp_path / form)
    with pytest.raises(EngineError, match=r"no column 'prompt'; it has text, n\.") as raised:
        read(path, column="prompt")
    assert str(path) in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize("form", ["splits", "folder", "rows.csv"])
def test_a_split_that_is_not_there(form, tmp_path):
    path = TABLES[form](tmp_path / form)
    with pytest.raises(EngineError, match="validation") as raised:
        read(path, split="validation[:3]")
    assert str(path) in str(raised.value)
    assert raised.value.remedy


def test_the_other_split_of_a_saved_data_set(tmp_path):
    assert texts(write_saved_splits(tmp_path / "splits"), split="test") == ROWS[:1]


def test_a_text_file_may_have_a_byte_order_mark_blank_lines_and_any_line_ends(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two  \n\n\nthree")
    assert texts(path) == ["one", "two", "three"]


def test_only_line_ends_end_a_prompt(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one\u2028still one\nform\x0cfeed\nnext\x85line\n", encoding="utf-8")
    assert texts(path) == ["one\u2028still one", "form\x0cfeed", "next\x85line"]


def bounds() -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(-40, 40)


lines = st.lists(st.text("abcdefghij é漢", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=lines, start=bounds(), end=bounds(), base=st.sampled_from(["", "train"]))
def test_slices_of_text_files_are_those_of_python(tmp_path, rows, start, end, base):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(rows), encoding="utf-8")
    split = f"{base}[{'' if start is None else start}:{'' if end is None else end}]"
    expected = rows[start:end]
    if expected:
        assert texts(path, split=split) == expected
    else:
        with pytest.raises(EngineError, match="holds no prompt"):
            texts(path, split=split)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 30), start=st.integers(0, 100), end=st.integers(0, 100))
def test_percentages_of_text_files_round_as_the_data_set_library_rounds(tmp_path, count, start, end):
    from datasets import ReadInstruction

    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(ROWS[:count]), encoding="utf-8")
    try:
        (span,) = ReadInstruction.from_spec(f"train[{start}%:{end}%]").to_absolute({"train": count})
        expected = ROWS[:count][span.from_ : span.to]
    except (AssertionError, ValueError):
        expected = []
    if expected:
        assert texts(path, split=f"[{start}%:{end}%]") == expected
    else:
        with pytest.raises(EngineError, match="holds no prompt"):
            texts(path, split=f"[{start}%:{end}%]")


@pytest.fixture
def fails(heretic, profile, model_dir, runs_dir):
    """Run a study whose bad prompts cannot be used, and check what it says."""

    def check(dataset: Path | str, *words: object, **table: str) -> None:
        extra = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        written = profile(bad=dataset)
        text = written.read_text().replace("[scorer.KLDivergence", f"{extra}[scorer.KLDivergence", 1)
        written.write_text(text)
        heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir).is_plain(dataset, *words)

    return check


def test_a_file_that_does_not_exist(fails, tmp_path):
    fails(tmp_path / "nothing.txt", "There is no prompt file", "Check the path")


def test_a_relative_file_that_does_not_exist(fails):
    fails("prompts/nothing.jsonl", "There is no prompt file", "Check the path")


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_an_empty_text_file(fails, tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    fails(tmp_path / "empty.txt", "holds no prompt", "Check the file")


def test_a_slice_beyond_the_end(fails, prompts):
    fails(prompts["plain"], "[100:]", "holds no prompt", split="[100:]")


def test_two_slices_of_a_text_file(prompts):
    with pytest.raises(EngineError, match="is not a slice") as raised:
        texts(prompts["plain"], split="train[:1]+train[3:]")
    assert "[10:20]" in raised.value.remedy


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "empty.parquet", "empty.json"])
def test_an_empty_table(fails, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    fails(tmp_path / name, "Check the file")


def test_a_table_of_blanks(fails, tmp_path):
    (tmp_path / "blank.jsonl").write_text('{"text": ""}\n{"text": "  "}\n')
    fails(tmp_path / "blank.jsonl", "holds no prompt")


def test_nulls_are_no_prompts(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": null}\n{"text": "one"}\n')
    assert texts(path) == ["one"]


def test_jsonl_without_the_column(fails, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl")
    fails(path, "no column 'prompt'; it has text, n.", "Set `column`", column="prompt")


@pytest.mark.parametrize("name", ["latin.txt", "latin.jsonl", "latin.csv"])
def test_a_file_that_is_not_utf8(fails, tmp_path, name):
    row = {"latin.txt": "caf\xe9", "latin.jsonl": '{"text": "caf\xe9"}', "latin.csv": "text\ncaf\xe9"}[name]
    (tmp_path / name).write_bytes(f"{row}\n".encode("latin-1"))
    fails(tmp_path / name, "is not UTF-8", "iconv")


def test_a_text_file_in_utf16(fails, tmp_path):
    (tmp_path / "wide.txt").write_bytes("one\ntwo\n".encode("utf-16"))
    fails(tmp_path / "wide.txt", "is not UTF-8", "iconv")


def test_jsonl_cut_in_the_middle_of_a_line(fails, tmp_path):
    path = write_jsonl(tmp_path / "cut.jsonl")
    path.write_bytes(path.read_bytes()[:-15])
    fails(path, "cannot be read", "Check the file")


def test_a_truncated_parquet_file(fails, tmp_path):
    path = write_parquet(tmp_path / "cut.parquet")
    path.write_bytes(path.read_bytes()[:-15])
    fails(path, "cannot be read", "Check the file")


def test_a_folder_without_data(fails, tmp_path):
    (tmp_path / "nothing").mkdir()
    fails(tmp_path / "nothing", "Check")


def test_a_damaged_saved_data_set(fails, tmp_path):
    path = write_saved(tmp_path / "saved")
    for arrow in path.glob("*.arrow"):
        arrow.write_bytes(b"")
    fails(path, "cannot be read", "Check the file")


def test_a_saved_data_set_without_its_table(fails, tmp_path):
    path = write_saved(tmp_path / "saved")
    for arrow in path.glob("*.arrow"):
        arrow.unlink()
    fails(path, "cannot be read", "Check the file")


def test_an_unknown_embedded_set(fails):
    fails("demo:nosuch", "no embedded", "demo:")


def test_accuracy_needs_its_answer_column(heretic, profile, model_dir, runs_dir, tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl")
    tables = (
        '[[scorers]]\nplugin = "heretic.scorers.kl_divergence.KLDivergence"\noptimization = "minimize"\n'
        '[[scorers]]\nplugin = "heretic_tui.scorers.Accuracy"\noptimization = "maximize"\n'
        f'[scorer.Accuracy.prompts]\ndataset = {json.dumps(str(rows))}\nanswer_column = "answer"\n'
    )
    outcome = heretic("run", model_dir, "--profile", profile(tables), "--runs-dir", runs_dir)
    outcome.is_plain(rows, "no column 'answer'", "`answer_column`")


def test_the_same_prompts_on_both_sides(heretic, profile, prompts, model_dir, runs_dir):
    outcome = heretic("run", model_dir, "--profile", profile(bad=prompts["plain"]), "--runs-dir", runs_dir)
    outcome.is_plain("same residual vectors", "good_prompts and bad_prompts")


def test_prompts_that_are_not_there_leave_no_run_behind(heretic, profile, model_dir, runs_dir, tmp_path):
    late = tmp_path / "late.txt"
    heretic("run", model_dir, "--profile", profile(bad=late), "--runs-dir", runs_dir).is_plain(late)
    assert not runs_dir.exists()


def test_a_run_whose_prompts_are_gone_goes_on_once_they_are_back(heretic, profile, model_dir, runs_dir, tmp_path):
    late = tmp_path / "late.txt"
    late.write_text("\n".join(f"Other: {row}" for row in ROWS[:6]))
    assert heretic("run", model_dir, "--profile", profile(bad=late), "--runs-dir", runs_dir).code == 0
    (run,) = runs_dir.iterdir()
    late.rename(tmp_path / "away.txt")
    heretic("run", "--resume", run, "--trials", 3).is_plain(late)
    (tmp_path / "away.txt").rename(late)
    outcome = heretic("run", "--resume", run, "--trials", 3, "--json")
    assert outcome.code == 0
    assert outcome.of("study_finished")[0]["trials"] == 3
