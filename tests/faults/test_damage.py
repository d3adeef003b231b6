"""Runs whose files were cut or damaged, two processes on one run, and text that is not meant for a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

HOSTILE = "a\x1b[31mred\x1b]0;title\x07 \x9b2J\u202e[bold]b[/bold] [link=x]c[/link] \x00\rZ"


def cut_journal(study: Path, length: int) -> bytes:
    """Cut bytes off the end of a journal; returns its whole lines."""
    journal = study / "study.journal"
    content = journal.read_bytes()[:-length]
    journal.write_bytes(content)
    return content[: content.rfind(b"\n") + 1]


@pytest.mark.parametrize("length", [1, 20, 200, 1500])
def test_a_journal_cut_in_a_line_keeps_its_whole_lines_and_goes_on(heretic, study, length):
    whole = cut_journal(study, length)
    assert not whole.endswith(b"\n\n")
    before = (study / "study.journal").read_bytes()
    listed = heretic("trials", study, "--json")
    assert listed.code == 0
    kept = [row["trial"] for row in listed.objects]
    assert (study / "study.journal").read_bytes() == before  # listing changes nothing
    resumed = heretic("run", "--resume", study, "--json")
    assert resumed.code == 0, resumed.err
    assert any("middle of a line" in note["text"] for note in resumed.of("note"))
    assert resumed.of("run_opened")[0]["finished"] == len(kept)
    assert resumed.of("study_finished")[0]["trials"] == 2
    assert (study / "study.journal").read_bytes().startswith(whole)
    assert (study / "study.journal.cut").read_bytes() == before[len(whole) :]
    again = heretic("run", "--resume", study, "--json")
    assert not again.of("note")


def test_people_are_told_of_a_cut_journal(heretic, study):
    cut_journal(study, 20)
    outcome = heretic("run", "--resume", study)
    assert outcome.code == 0
    assert "warning: The journal ended in the middle of a line" in outcome.out


@pytest.mark.parametrize("tail", [b"\0" * 700, b'{"op_code": 5, "worker\n'])
def test_a_journal_whose_end_never_reached_the_disk(heretic, study, tail):
    journal = study / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    assert len(heretic("trials", study, "--json").objects) == 2
    _goes_on(heretic, study, whole)


def test_a_journal_that_ends_in_a_line_of_zeros(heretic, study):
    journal = study / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"\0" * 20 + b"\n")
    heretic("trials", study).is_plain(journal, "damaged")
    _goes_on(heretic, study, whole)


def _goes_on(heretic, study, whole):
    journal = study / "study.journal"
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0, resumed.err
    assert journal.read_bytes().startswith(whole)
    assert len(heretic("trials", study, "--json").objects) == 3


def test_a_journal_damaged_in_its_middle_is_left_alone(heretic, study, contents):
    journal = study / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], lines[4][:10] + b"\n", *lines[5:]]))
    before = contents(study)
    for call in (("trials", study), ("run", "--resume", study), ("export", study, "--trial", 1, "--to", study / "x")):
        heretic(*call).is_plain(journal, "damaged", "backup")
    after = contents(study)
    assert {name: after[name] for name in before} == before
    listed = heretic("runs", "--runs-dir", study.parent)
    assert listed.code == 0
    assert "damaged" in listed.out


def test_an_empty_journal_is_a_study_that_has_not_begun(heretic, study):
    (study / "study.journal").write_bytes(b"")
    resumed = heretic("run", "--resume", study, "--json")
    assert resumed.code == 0
    assert resumed.of("study_finished")[0]["trials"] == 2


def test_a_stale_lock_of_a_killed_process_is_removed_with_a_word_in_the_log(heretic, study):
    (study / "study.journal.lock").write_bytes(b"")
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0
    assert_said(study, resumed, "locked by a process that is no more")


def assert_said(study, resumed, *words):
    """A note says all of these, on the screen and in the run's log."""
    for place in (" ".join(note["text"] for note in resumed.of("note")), (study / "log.txt").read_text()):
        for word in words:
            assert word in place, (word, place)


MADE_AGAIN = ["model.json", "baseline.json", "directions.safetensors", "baseline.safetensors"]


@pytest.mark.parametrize("name", MADE_AGAIN)
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b'{"facts": {"x": 1}}'])
def test_a_damaged_file_is_set_aside_with_a_word_and_made_again(heretic, study, name, content):
    whole = json.loads((study / "model.json").read_bytes())
    (study / name).write_bytes(content)
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0, resumed.err
    assert_said(study, resumed, name, "is damaged", f"kept as {name}.damaged", "measured again")
    assert (study / f"{name}.damaged").read_bytes() == content
    assert resumed.of("run_opened")[0]["finished"] == 2
    assert resumed.of("study_finished")[0]["trials"] == 3
    assert json.loads((study / "model.json").read_bytes()) == whole
    assert not heretic("run", "--resume", study, "--trials", 4, "--json").of("note")


@pytest.mark.parametrize("name", ["directions.safetensors", "baseline.safetensors", "trial-0000.jsonl", "model.json"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_was_written_halfway_is_made_again_as_it_was(heretic, study, name, part):
    (path,) = study.rglob(name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0, resumed.err
    assert_said(study, resumed, name, "is damaged", f"{name}.damaged")
    assert path.read_bytes() == whole


def test_a_file_that_is_damaged_twice_is_kept_twice(heretic, study):
    for trials in (3, 4):
        (study / "baseline.json").write_bytes(b"{" * trials)
        assert heretic("run", "--resume", study, "--trials", trials).code == 0
    assert (study / "baseline.json.damaged").read_bytes() == b"{{{"
    assert (study / "baseline.json.damaged-2").read_bytes() == b"{{{{"


def test_what_a_killed_process_was_writing_is_removed_with_a_word(heretic, study):
    from heretic_tui.atomic import HOST

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = study / f".directions.safetensors.{dead.pid}-{HOST}abc123.partial"
    others = [
        study / f".model.json.{dead.pid}-00000000abc123.partial",
        study / f".x.{os.getppid()}-{HOST}abc123.partial",
    ]
    for path in (left, *others):
        path.write_bytes(b"half")
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert_said(study, resumed, "directions.safetensors was being written", "removed")
    assert not left.exists()
    assert all(path.exists() for path in others)  # another machine's, and a living process's


def test_a_log_that_was_cut_goes_on_in_a_line_of_its_own(heretic, study):
    log = study / "log.txt"
    cut = log.read_bytes()[:-20]
    log.write_bytes(cut)
    assert heretic("run", "--resume", study, "--trials", 3).code == 0
    after = log.read_bytes()
    assert after.startswith(cut + b"\n")
    assert all(json.loads(line.split(b" ", 1)[1]) for line in after[len(cut) + 1 :].splitlines())


def test_every_torn_line_of_a_journal_is_kept(heretic, study):
    journal, torn = study / "study.journal", b""
    for trials in (3, 4):
        with journal.open("ab") as file:
            file.write(b'{"op_code": 5, "wor')
        torn += b'{"op_code": 5, "wor'
        assert heretic("run", "--resume", study, "--trials", trials).code == 0
        assert (study / "study.journal.cut").read_bytes() == torn


def test_a_line_that_a_process_was_killed_in_is_set_aside_by_the_next_that_writes(study):
    """Without anybody having opened the run anew: as among several processes that work on one study."""
    from heretic_tui.engine.runs.run import Run

    run, journal = Run(study), study / "study.journal"
    opened = run.read_study()
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 5, "wor')
    opened.set_user_attr("n_trials", 7)
    assert run.wanted() == 7
    assert (study / "study.journal.cut").read_bytes() == b'{"op_code": 5, "wor'
    assert journal.read_bytes().startswith(whole + b'{"op_code"')
    assert len(run.records()) == 2


@pytest.mark.parametrize("name", ["model.json", "directions.safetensors"])
def test_an_export_of_a_damaged_run(heretic, study, name, tmp_path):
    (study / name).write_bytes(b"{")
    heretic("export", study, "--trial", 1, "--to", tmp_path / "out").is_plain(study / name, "damaged")
    (study / name).unlink()
    heretic("export", study, "--trial", 1, "--to", tmp_path / "out").is_plain(study.name, "Resume it")
    assert not (tmp_path / "out").exists()


def test_damaged_responses_harm_nothing_else(heretic, study):
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.runs.run import Run

    path = study / "responses" / "trial-0001.jsonl"
    path.write_text('{"prompt": "x"}\n{')
    with pytest.raises(EngineError, match="trial-0001"):
        Run(study).responses(1)
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert_said(study, resumed, "trial-0001.jsonl", "kept as trial-0001.jsonl.damaged", "scores stand in the journal")
    assert path.with_name("trial-0001.jsonl.damaged").read_text() == '{"prompt": "x"}\n{'


def test_of_responses_that_were_cut_the_whole_ones_are_kept(heretic, study):
    from heretic_tui.engine.runs.run import Run

    path = study / "responses" / "trial-0001.jsonl"
    before, content = Run(study).responses(1), path.read_bytes()
    path.write_bytes(content[:-10])
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert_said(study, resumed, "trial-0001.jsonl", f"{len(before) - 1} whole responses are kept")
    assert Run(study).responses(1) == before[:-1]
    assert path.with_name("trial-0001.jsonl.damaged").read_bytes() == content[:-10]


def test_damaged_labels_are_set_aside_and_those_found_by_themselves_stand(heretic, study):
    from heretic_tui.engine.runs.run import Run

    (study / "responses" / "trial-0001.labels.json").write_text('{"0": "ans')
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert_said(study, resumed, "trial-0001.labels.json.damaged", "found by themselves stand")
    assert Run(study).overruled(1) == {}


def test_damaged_residual_vectors_are_set_aside_and_the_study_goes_on(heretic, study):
    (study / "residuals.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0
    assert_said(study, resumed, "residuals.safetensors.damaged", "inspector")


def test_a_take_over_that_was_cut_short_is_taken_up_again(heretic, model_dir, profile, runs_dir):
    written = profile()
    assert heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir).code == 0
    second = heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir, "--json")
    (first, later) = sorted(runs_dir.iterdir())
    assert any("taken from" in note["text"] for note in second.of("note"))
    for name in ("model.json", "baseline.json", "study.journal"):
        (later / name).unlink()
    resumed = heretic("run", "--resume", later, "--json")
    assert any(f"taken from {first.name}" in note["text"] for note in resumed.of("note"))
    for name in ("model.json", "baseline.json", "directions.safetensors"):
        assert (later / name).read_bytes() == (first / name).read_bytes()


def test_responses_with_every_kind_of_line_end_come_back(study):
    from heretic_tui.engine.records import Label, Response
    from heretic_tui.engine.runs.run import Run

    text = "one\u2028two\x85three\x0cfour\r\nfive\x1b[31m"
    response = Response("set", text, text, "eos", Label.ANSWER)
    Run(study).save_responses(9, [response])
    assert Run(study).responses(9) == [response]


def test_a_second_process_on_the_same_run(heretic, study, contents):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, study / "run.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    before = contents(study)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        outcome = heretic("run", "--resume", study, "--trials", 3)
        outcome.is_plain(study.name, "Another process", f"heretic-tui attach {study.name}")
        assert contents(study) == before
        assert heretic("trials", study).code == 0
        assert heretic("runs", "--runs-dir", study.parent).code == 0
        holder.kill()
    assert heretic("run", "--resume", study, "--trials", 3).code == 0  # the lock died with its holder


HOLD = """
import sys
from pathlib import Path
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def is_safe(text: str) -> bool:
    return not any(character in text for character in "\x1b\x07\x9b\x00\r\u202e")


def test_hostile_responses_are_shown_as_data(heretic, model_dir, profile, runs_dir, tmp_path, monkeypatch):
    """With `print_responses`, prompts and model output reach the screen as text, never as codes or markup."""
    from heretic_tui.engine.model.language_model import LanguageModel

    monkeypatch.setattr(LanguageModel, "decode", lambda self, rows: [HOSTILE for _ in rows])
    prompts = tmp_path / "hostile.txt"
    prompts.write_text(f"say {HOSTILE}\n".replace("\r", ""), encoding="utf-8")
    written = profile()
    text = written.read_text()
    head = text.partition("[scorer.KeywordRate.prompts]\n")[0]
    written.write_text(
        f"{head}[scorer.KeywordRate]\nprint_responses = true\n[scorer.KeywordRate.prompts]\n"
        f"dataset = {json.dumps(str(prompts))}\n"
    )
    outcome = heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir)
    assert outcome.code == 0, outcome.err
    assert is_safe(outcome.out + outcome.err)
    assert r"\x1b[31mred" in outcome.out
    assert "[bold]b[/bold] [link=x]c[/link]" in outcome.out
    (run,) = runs_dir.iterdir()
    assert json.loads((run / "responses" / "trial-0001.jsonl").read_text().splitlines()[0])["response"] == HOSTILE
    as_json = heretic("run", "--resume", run, "--trials", 3, "--json")
    assert as_json.code == 0
    assert as_json.objects
    assert is_safe(as_json.out)


def test_hostile_names_do_not_reach_a_real_terminal(heretic, study, monkeypatch):
    """Names of scorers, runs and files are foreign text too; a forced terminal shows what would be sent."""
    from heretic_tui.commands.tables import front_table

    monkeypatch.setenv("FORCE_COLOR", "1")
    evil = study.rename(study.with_name("x\x1b[31m[bold]y\x07"))
    for call in (("trials", evil), ("runs", "--runs-dir", study.parent)):
        outcome = heretic(*call)
        assert outcome.code == 0
        assert "\x1b[31m[bold]y" not in outcome.out
        assert "\x07" not in outcome.out
        assert r"x\x1b[31m[bold]y\x07" in outcome.out
    assert front_table([], (), {}) is not None


def test_the_names_of_scorers_are_not_markup(heretic, model_dir, profile, runs_dir):
    name = "[red]loud\u202e[/red]"
    tables = (
        '[[scorers]]\nplugin = "heretic.scorers.kl_divergence.KLDivergence"\noptimization = "minimize"\n'
        '[[scorers]]\nplugin = "heretic.scorers.keyword_rate.KeywordRate"\noptimization = "minimize"\n'
        f"instance_name = {json.dumps(name)}\n"
    )
    outcome = heretic("run", model_dir, "--profile", profile(tables), "--runs-dir", runs_dir)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(r"[red]loud\x202e[/red]") >= 3
    assert "\u202e" not in outcome.out
    (run,) = runs_dir.iterdir()
    assert r"[red]loud\x202e[/red]" in heretic("trials", run).out
    assert r"[red]loud\x202e[/red]" in heretic("runs", "--runs-dir", runs_dir).out


def test_progress_names_are_not_markup():
    from heretic_tui.commands.console import _bars
    from heretic_tui.engine import events

    progress: Progress
    with _bars() as progress:
        from heretic_tui.commands.console import Terminal

        terminal = Terminal(progress)
        terminal.show(events.Progress(f"phase {HOSTILE}", 1, 2, "prompts", HOSTILE))
        console = Console(force_terminal=True, color_system=None, width=200)
        with console.capture() as captured:
            console.print(progress.get_renderable())
    assert "[bold]b[/bold]" in captured.get()
    assert "\x1b[31m" not in captured.get()


@pytest.mark.parametrize("bad", ["nosuch\x1b[31m", "x\x07[bold]"])
def test_messages_do_not_pass_escape_sequences_on(heretic, bad, runs_dir, profile, model_dir):
    for call in (
        ("run", bad, "--profile", profile(), "--runs-dir", runs_dir),
        ("trials", bad),
        ("run", model_dir, "--profile", bad),
        ("run", model_dir, "--set", f"{bad}=1"),
        (bad,),
    ):
        outcome = heretic(*call)
        assert outcome.code in {1, 2}
        assert is_safe(outcome.err), outcome.err


def test_prompts_of_a_damaged_name(heretic, profile, model_dir, runs_dir):
    outcome = heretic("run", model_dir, "--profile", profile(bad="x\x1b[31m.txt"), "--runs-dir", runs_dir)
    outcome.is_plain(r"x\x1b[31m.txt", "Check the path")
