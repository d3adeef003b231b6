"""A run's log is read back as the events that were told."""

import pytest

from heretic_tui.engine.events import BaselineMeasured, Note, PhaseFinished, RunOpened, StudyFinished, TrialFinished
from heretic_tui.engine.runs import run_log
from heretic_tui.engine.runs.run_log import LogReader
from heretic_tui.told import told


def events_of(folder):
    return [logged.event for logged in LogReader(folder).read()]


def test_the_log_of_a_study_tells_what_its_events_told(study):
    found = events_of(study.path)
    kinds = [type(event) for event in found]
    assert kinds[0] is RunOpened
    assert kinds.count(TrialFinished) == 4
    assert kinds[-1] is StudyFinished
    assert {PhaseFinished, BaselineMeasured} < set(kinds)
    records = {event.record.trial: event.record for event in found if isinstance(event, TrialFinished)}
    for record in study.records():
        assert records[record.trial].parameters == record.parameters
        assert [score.text for score in records[record.trial].scores.values()] == [
            score.text for score in record.scores.values()
        ]
    assert all(told(event) is not None for event in found)


def test_only_what_was_added_is_read_the_next_time(study):
    reader = LogReader(study.path)
    assert reader.read()
    assert reader.read() == []
    study.log('{"event": "note", "text": "more", "level": "warning"}')
    (logged,) = reader.read()
    assert logged.event == Note("more", "warning")
    assert logged.time > 1_000_000_000


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(study):
    reader = LogReader(study.path)
    reader.read()
    with (study.path / "log.txt").open("a") as file:
        file.write('2026-01-02T03:04:05+00:00 {"event": "note", "te')
        file.flush()
        assert reader.read() == []
        file.write('xt": "whole", "level": "info"}\n')
        file.flush()
    assert [logged.event for logged in reader.read()] == [Note("whole")]


@pytest.mark.parametrize(
    "line",
    ["", "\x00", "no time", "2026-01-02T03:04:05+00:00 {}", '2026-01-02T03:04:05+00:00 {"event": "shell"}',
     '2026-01-02T03:04:05+00:00 {"event": "trial_finished", "trial": 1}', 'yesterday {"event": "note"}', "[1]", "{"],
)  # fmt: skip
def test_lines_that_tell_nothing_are_passed_over(study, line):
    before = events_of(study.path)
    with (study.path / "log.txt").open("a") as file:
        file.write(f"{line}\n")
    assert events_of(study.path) == before


def test_of_a_long_log_the_end_is_read(study, monkeypatch):
    monkeypatch.setattr(run_log, "TAIL", 2000)
    for number in range(200):
        study.log(f'{{"event": "note", "text": "line {number}", "level": "info"}}')
    found = events_of(study.path)
    assert 5 < len(found) < 50
    assert found[-1] == Note("line 199")


def test_a_log_that_begins_anew_is_read_from_its_beginning(study):
    reader = LogReader(study.path)
    reader.read()
    (study.path / "log.txt").write_text("")
    assert reader.read() == []
    study.log('{"event": "note", "text": "new", "level": "info"}')
    assert [logged.event for logged in reader.read()] == [Note("new")]


def test_a_run_without_a_log_tells_nothing(tmp_path):
    assert LogReader(tmp_path).read() == []
