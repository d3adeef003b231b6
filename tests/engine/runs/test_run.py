import json
import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import result

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import TrialFinished, TrialStarted
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import resume_study, start_study
from heretic_tui.engine.records import Label
from heretic_tui.engine.runs.listing import create_run
from heretic_tui.engine.runs.run import JOURNAL, Run
from heretic_tui.engine.study.relabelling import corrected
from heretic_tui.profile.schema import RefusalsSpec


@pytest.fixture
def session(tiny_folder, short_profile):
    session = Session()
    result(session.load(str(tiny_folder), short_profile))
    return session


def in_a_thread(call, *arguments):
    """Call from another thread and wait for it, as a screen does while the engine works."""
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


# How many trials


@pytest.mark.parametrize("wanted", [6, 3])
def test_a_running_study_sees_the_new_number_at_its_next_trial(
    session, tiny_folder, short_profile, finished_run, tmp_path, wanted
):
    numbers = []
    for event in start_study(str(tiny_folder), short_profile, "short", tmp_path, load=session.load):
        if isinstance(event, TrialStarted):
            numbers.append((event.trial, event.trials))
        if isinstance(event, TrialFinished) and event.record.trial == 2:
            (folder,) = tmp_path.iterdir()
            in_a_thread(Run(folder).want, wanted)
    assert numbers == [(1, 4), (2, 4), *((trial, wanted) for trial in range(3, wanted + 1))]
    run = Run(folder)
    assert run.wanted() == len(run.records()) == wanted
    assert run.read_study().user_attrs["finished"] is True
    ours, plain = run.records()[:4], Run(finished_run).records()[:wanted]
    assert [one.parameters for one in ours] == [one.parameters for one in plain]


def test_asking_for_fewer_than_there_are_ends_the_study_after_its_trial(session, study):
    job = resume_study(study, 20, load=session.load)
    for event in job:
        if isinstance(event, TrialStarted):
            in_a_thread(study.want, 1)
    assert len(study.records()) == 5


def test_many_changes_from_other_threads_leave_the_journal_whole(session, study):
    def change():
        for trials in range(9, 4, -1):
            study.want(trials + 4)

    threads = [threading.Thread(target=change) for _ in range(3)]
    job = resume_study(study, 30, load=session.load)
    next(event for event in job if isinstance(event, TrialStarted))
    for thread in threads:
        thread.start()
    events = list(job)
    for thread in threads:
        thread.join()
    assert [event.record.trial for event in events if isinstance(event, TrialFinished)] == list(range(5, 10))
    assert study.wanted() == len(study.records()) == 9
    assert all(json.loads(line) for line in (study.path / JOURNAL).read_text(encoding="utf-8").splitlines())


def test_a_study_at_rest_can_be_asked_for_more(session, study):
    study.want(6)
    assert study.wanted() == 6
    result(resume_study(study, load=session.load))
    assert len(study.records()) == 6


@pytest.mark.parametrize("trials", [0, -3])
def test_a_study_has_one_trial_at_least(study, trials):
    with pytest.raises(EngineError, match="is none"):
        study.want(trials)
    assert study.wanted() == 4


def test_a_study_that_has_not_begun_says_so(short_profile, tmp_path):
    with pytest.raises(EngineError, match="not begun"):
        create_run(tmp_path, "model", "short", short_profile).want(3)


# Labels


def test_an_overruled_label_survives_opening_the_run_again(study):
    study.overrule(2, 3, Label.ANSWER)
    study.overrule(2, 0, Label.DEGENERATE)
    study.overrule(0, 1, Label.REFUSAL)
    again = Run(study.path)
    assert again.overruled(2) == {0: Label.DEGENERATE, 3: Label.ANSWER}
    assert again.overruled(0) == {1: Label.REFUSAL}
    assert again.overruled(1) == {}
    assert not list(study.path.rglob("*.partial"))


def test_overruling_leaves_responses_and_records_alone(study):
    responses, records = study.responses(2), study.records()
    study.overrule(2, 3, Label.DEGENERATE)
    assert (study.responses(2), study.records()) == (responses, records)


def test_a_label_can_be_changed_and_given_back(study):
    study.overrule(2, 3, Label.ANSWER)
    study.overrule(2, 3, Label.REFUSAL)
    assert study.overruled(2) == {3: Label.REFUSAL}
    study.overrule(2, 3, None)
    study.overrule(2, 4, None)
    assert study.overruled(2) == {}


@pytest.mark.parametrize("index", [-1, 6, 100])
def test_only_a_response_that_there_is_can_be_overruled(study, index):
    with pytest.raises(EngineError, match="no response"):
        study.overrule(2, index, Label.ANSWER)
    with pytest.raises(EngineError, match="no responses of trial 9"):
        study.overrule(9, 0, Label.ANSWER)


def test_new_responses_of_a_trial_have_no_old_labels(study):
    study.overrule(2, 3, Label.ANSWER)
    study.save_responses(2, study.responses(1))
    assert study.overruled(2) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "answer"}', '{"1": "wrong"}', '{"1": null}', "\udcff"])
def test_damaged_labels_say_so_and_what_to_do(study, content):
    path = study.path / "responses" / "trial-0002.labels.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(EngineError, match=r"labels\.json is damaged.*Delete that file"):
        study.overruled(2)


def test_overruled_labels_correct_the_score_of_their_trial(study):
    records, responses = study.records(), study.responses(1)
    (spec,) = (spec for spec in study.profile.scorer_specs() if isinstance(spec, RefusalsSpec))
    measured = records[0].scores["refusals"]
    place = next(place for place, found in enumerate(responses) if found.label is Label.ANSWER)
    study.overrule(1, place, Label.REFUSAL)
    found = corrected(records[0].scores, responses, study.overruled(1), study.profile.scorer_specs())
    assert found == {spec.name: replace(measured, count=measured.count + 1, value=(measured.count + 1) / 6)}


# Chats


def test_chats_are_kept_with_the_run_newest_first(study):
    assert study.chats() == []
    first = study.save_chat("one.md", "Hello \u2028 there\r\n")
    second = study.save_chat("two.md", "Hi\n")
    os.utime(first, (1, 1))
    assert Run(study.path).chats() == [second, first]
    assert first.parent == study.path / "chats"
    assert first.read_bytes().decode("utf-8") == "Hello \u2028 there\r\n"
    study.save_chat("one.md", "Hello again")
    assert first.read_text(encoding="utf-8") == "Hello again"
    assert len(study.chats()) == 2


@given(st.text())
def test_no_name_of_a_chat_leads_out_of_its_folder(name):
    with tempfile.TemporaryDirectory() as folder:
        path = Run(Path(folder)).save_chat(name, "Hello")
        assert path.parent == Path(folder) / "chats"
        assert Run(Path(folder)).chats() == [path]


def test_a_trial_that_ended_early_is_known_by_its_attribute(study):
    assert not any(record.ended_early for record in study.records())
    assert "ended_early" not in study.records()[1].as_json()
    journal = study.path / JOURNAL
    lines = journal.read_text(encoding="utf-8").splitlines()
    place = next(n for n, line in enumerate(lines) if '"trial_id":1,' in line and '"user_attr":{"seconds"' in line)
    lines.insert(place, json.dumps({**json.loads(lines[place]), "user_attr": {"censored": True}}))
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [record.ended_early for record in study.records()] == [False, True, False, False]
    assert study.records()[1].as_json()["ended_early"] is True
