import json

import pytest

from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import TrialRecord
from heretic_tui.engine.timing import in_words, tokens_per_second, totals


def record(seconds, **timing):
    return TrialRecord(1, AblationParameters(None, {}), {}, seconds, timing=timing)


def test_the_parts_of_trials_add_up_to_their_seconds():
    records = [
        record(10.0, edit=1.0, divergence=2.0, decoding=6.0, tokens=300.0),
        record(2.5, edit=1.0, divergence=1.5),
    ]
    found = totals(records)
    assert found == {"edit": 2.0, "divergence": 3.5, "decoding": 6.0, "tokens": 300.0, "other": 1.0}
    assert tokens_per_second(found) == pytest.approx(50)


def test_trials_that_did_not_keep_their_parts_do_not_count_as_other():
    assert totals([record(99.0), record(1.0, edit=1.0)])["other"] == 0


def test_where_nothing_was_generated_there_is_no_speed():
    assert tokens_per_second({"decoding": 0.0, "tokens": 0.0}) is None
    assert in_words({"edit": 1.0, "divergence": 2.0, "tokens": 0.0}) == "divergence 2.0 s, edit 1.0 s"


def test_every_trial_of_a_study_keeps_its_parts(study):
    for trial in study.records():
        assert set(trial.timing) == {"edit", "divergence", "decoding", "tokens"}
        assert 0 < trial.timing["edit"] + trial.timing["divergence"] + trial.timing["decoding"] <= trial.seconds + 0.01


def test_the_log_of_a_run_tells_where_time_went(study):
    lines = [json.loads(line.partition(" ")[2]) for line in (study.path / "log.txt").read_text().splitlines()]
    timing = next(line["timing"] for line in lines if line["event"] == "study_finished")
    assert {"loading", "start", "edit", "divergence", "decoding", "other", "tokens"} == set(timing)
    assert all(line["timing"] for line in lines if line["event"] == "trial_finished")
