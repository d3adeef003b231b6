"""Several workers on one study: every number is told once, whoever takes it and whoever dies, in every storage."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import optuna
import pytest
from made_up import BASE, COMPONENTS, LAYERS, scored, search_in, settings

from heretic_tui.engine.records import Score
from heretic_tui.engine.storage import slots, storages
from heretic_tui.engine.storage.slots import Signs, claim
from heretic_tui.engine.storage.storages import INDEX
from heretic_tui.engine.storage.studies import read_study, under_way, want, want_pause
from heretic_tui.engine.study import search as search_module
from heretic_tui.engine.study.search import StudyExists, open_study

MADE_UP = Path(__file__).parent / "made_up.py"
COUNTER = count(1)
KINDS = ["journal", "database", "proxy"]


@pytest.fixture
def asked(request, tmp_path):
    """Makes the profile of a new study, in a folder of its own, in the storage that the test is about."""

    def ask(kind, trials, **changes):
        url = None if kind == "journal" else request.getfixturevalue(kind)
        folder = tmp_path / f"study-{os.getpid()}-{next(COUNTER)}"
        folder.mkdir()
        return folder, settings(trials, url, **changes)

    return ask


def one_trial(search):
    suggestion = search.ask(COMPONENTS, LAYERS)
    return suggestion and search.tell(suggestion, scored(suggestion.parameters), BASE, 1.0)


def numbers(search):
    search.refresh()
    return sorted(record.trial for record in search.records)


def test_workers_that_begin_together_do_not_all_want_the_same_trial(asked):
    """Each has read the study before any other has taken anything, and knows of the others by their claims alone."""
    folder, profile = asked("journal", 100)
    random.seed(0)
    study = open_study(profile, folder / "study.journal")
    taken = [claim(study, [], 100, name, "cpu", others=7)[0].user_attrs[INDEX] for name in "abcdefgh"]
    assert len(set(taken)) == 8
    assert max(taken) <= 22
    fallen = [trial for trial in study.get_trials() if trial.state == optuna.trial.TrialState.FAIL]
    assert len(fallen) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_take_turns_tell_every_number_once(asked, kind):
    folder, profile = asked(kind, 12)
    crew = [search_in(folder, profile, name) for name in "abc"]
    under_way = []
    chance = random.Random(3)
    while not all(search.done for search in crew):
        search = chance.choice(crew)
        if len(under_way) < 3 and (suggestion := search.ask(COMPONENTS, LAYERS)):
            under_way.append((search, suggestion))
        elif under_way:
            owner, suggestion = under_way.pop(chance.randrange(len(under_way)))
            owner.tell(suggestion, scored(suggestion.parameters), BASE, 1.0)
    assert all(numbers(search) == list(range(1, 13)) for search in crew)
    assert {record.worker for record in crew[0].records} == {"a", "b", "c"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_a_dead_worker_is_done_by_another_and_its_late_word_changes_nothing(asked, kind):
    folder, profile = asked(kind, 4)
    dying = search_in(folder, profile, "dying")
    living = search_in(folder, profile, "living", gone=lambda worker: worker == "dying")
    lost = dying.ask(COMPONENTS, LAYERS)
    while not living.done:
        one_trial(living)
    assert dying.tell(lost, {name: Score(0.0) for name in BASE}, BASE, 1.0) is None
    assert not dying.holds(lost)
    dying.drop(lost)
    assert numbers(dying) == numbers(living) == [1, 2, 3, 4]
    assert {record.worker for record in dying.records} == {"living"}


def test_what_a_worker_samples_is_decided_by_the_seed_and_the_number_of_the_trial(asked):
    folder, profile = asked("journal", 9)
    alone = search_in(folder, profile, alone=True)
    whole = [one_trial(alone) for _ in range(9)]
    folder, profile = asked("journal", 9)
    crew = [search_in(folder, profile, name) for name in "ab"]
    first = crew[0].ask(COMPONENTS, LAYERS)
    while len(numbers(crew[1])) < 8:
        one_trial(crew[1])
    crew[0].tell(first, scored(first.parameters), BASE, 1.0)
    assert numbers(crew[0]) == list(range(1, 10))
    assert {r.trial: r.parameters for r in crew[0].records} == {r.trial: r.parameters for r in whole}


def test_of_two_slots_of_one_number_only_the_first_counts(asked):
    folder, profile = asked("journal", 2)
    search = search_in(folder, profile, "a")
    for _ in range(3):
        search.study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"index": 1})
        )
    other = search_in(folder, profile, "b")
    told = [one_trial(worker) for worker in (search, other, search, other)]
    assert [record and record.trial for record in told] == [1, 2, None, None]
    states = [trial.state.name for trial in search.study.trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]


def test_a_worker_that_died_before_it_put_its_name_to_a_trial_blocks_nothing(asked, monkeypatch):
    folder, profile = asked("journal", 2)
    search = search_in(folder, profile, "a")
    search.study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"index": 1}))
    search.study.ask()
    assert one_trial(search).trial == 2
    assert search.ask(COMPONENTS, LAYERS) is None
    monkeypatch.setattr(slots, "UNHEARD", 0)
    assert one_trial(search).trial == 1


@pytest.mark.parametrize(("before", "after"), [(3, 6), (6, 3)])
def test_the_number_of_trials_may_change_while_several_work(asked, before, after):
    folder, profile = asked("journal", before)
    crew = [search_in(folder, profile, name) for name in "ab"]
    held = crew[0].ask(COMPONENTS, LAYERS)
    one_trial(crew[1])
    want(crew[1].study, after)
    crew[0].tell(held, scored(held.parameters), BASE, 1.0)
    while not all(search.done for search in crew):
        for search in crew:
            one_trial(search)
    done = numbers(crew[0])
    # Several draw from the next few numbers: one that was drawn before fewer were wanted counts.
    assert len(set(done)) == len(done) == after
    assert after < before or done == list(range(1, after + 1))


def test_a_trial_ends_early_by_what_another_worker_has_finished(asked, monkeypatch):
    monkeypatch.setattr(search_module, "LOOK", 0)
    monkeypatch.setattr(search_module, "SHARE", 0)
    folder, profile = asked("journal", 4)
    one, other = search_in(folder, profile, "a"), search_in(folder, profile, "b")
    bad = {"refusals": Score(0.9, 90, 100), "kl_divergence": Score(3.0)}
    assert not one.beaten(bad)
    one_trial(other)
    assert one.beaten(bad)
    assert [record.worker for record in one.news()] == ["b"]
    assert one.news() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_wish_to_pause_reaches_every_worker_that_was_there_and_none_that_comes_later(asked, kind):
    folder, profile = asked(kind, 4)
    crew = [search_in(folder, profile, name) for name in "ab"]
    assert not any(search.asked_to_pause() for search in crew)
    want_pause(crew[0].study)
    assert all(search.asked_to_pause() for search in crew)
    assert not search_in(folder, profile, "c").asked_to_pause()


def test_a_silent_worker_s_trial_is_queued_again_by_the_database_s_heartbeats(asked, monkeypatch):
    monkeypatch.setattr(storages, "HEARTBEAT", 1)
    monkeypatch.setattr(search_module, "HEARTBEAT", 1)
    monkeypatch.setattr(storages, "SILENCE", 4)
    folder, profile = asked("database", 2)
    silent, busy, living = (search_in(folder, profile, name) for name in ("silent", "busy", "living"))
    lost, kept = silent.ask(COMPONENTS, LAYERS), busy.ask(COMPONENTS, LAYERS)
    silent._beating.close()
    deadline = time.monotonic() + 60
    while (again := living.ask(COMPONENTS, LAYERS)) is None:
        assert time.monotonic() < deadline, "nobody got the trial"
        time.sleep(0.2)
    assert again.trial == lost.trial
    assert again.parameters == lost.parameters
    living.tell(again, scored(again.parameters), BASE, 1.0)
    assert silent.tell(lost, scored(lost.parameters), BASE, 1.0) is None
    assert busy.tell(kept, scored(kept.parameters), BASE, 1.0) is not None
    assert numbers(living) == [1, 2]
    retried = [trial for trial in living.study.trials if "retried" in trial.user_attrs]
    assert [trial.user_attrs["worker"] for trial in retried] == ["living"]


@pytest.mark.parametrize("kind", ["database", "proxy"])
def test_the_trial_of_a_worker_from_elsewhere_is_freed_once_its_pulse_stops(asked, monkeypatch, kind):
    monkeypatch.setattr(storages, "HEARTBEAT", 0.2)
    monkeypatch.setattr(slots, "UNHEARD", 5)
    folder, profile = asked(kind, 2)
    unknown = {"gone": lambda worker: None}
    silent, busy, living = (search_in(folder, profile, name, **unknown) for name in ("silent", "busy", "living"))
    lost, kept = silent.ask(COMPONENTS, LAYERS), busy.ask(COMPONENTS, LAYERS)
    silent.close()
    deadline = time.monotonic() + 60
    while (again := living.ask(COMPONENTS, LAYERS)) is None:
        assert time.monotonic() < deadline, "nobody got the trial"
        time.sleep(0.1)
    assert again.trial == lost.trial
    assert busy.holds(kept)
    assert not silent.holds(lost)
    for search in (busy, living):
        search.close()


@pytest.mark.parametrize("kind", ["database", "proxy"])
def test_who_looks_sees_who_is_at_which_trial_and_who_has_fallen_silent(asked, monkeypatch, kind):
    monkeypatch.setattr(storages, "HEARTBEAT", 0.2)
    folder, profile = asked(kind, 9)
    silent, busy = (search_in(folder, profile, name) for name in ("silent", "busy"))
    held = {search.worker: search.ask(COMPONENTS, LAYERS).trial for search in (silent, busy)}
    watched, signs = read_study(profile.storage, folder / "study.journal"), Signs()
    assert under_way(watched, signs) == held
    silent.close()
    monkeypatch.setattr(slots, "UNHEARD", 3)
    deadline = time.monotonic() + 60
    while under_way(watched, signs) != {"busy": held["busy"]}:
        assert time.monotonic() < deadline, "the silent one is still there"
        time.sleep(0.2)
    busy.close()


def test_who_looks_between_two_trials_of_a_worker_sees_it_at_the_last_one_for_a_moment(asked, monkeypatch):
    folder, profile = asked("journal", 9)
    search, watched, signs = search_in(folder, profile, "busy"), read_study(None, folder / "study.journal"), Signs()
    first = search.ask(COMPONENTS, LAYERS)
    assert under_way(watched, signs) == {"busy": first.trial}
    search.tell(first, scored(first.parameters), BASE, 1.0)
    assert under_way(watched, signs) == {"busy": first.trial}
    second = search.ask(COMPONENTS, LAYERS)
    assert under_way(watched, signs) == {"busy": second.trial}
    search.tell(second, scored(second.parameters), BASE, 1.0)
    monkeypatch.setattr(slots, "BETWEEN", 0)
    assert under_way(watched, signs) == {}


def test_a_session_that_goes_on_frees_what_the_dead_left_and_leaves_the_living_theirs(asked):
    folder, profile = asked("journal", 4)
    crew = {name: search_in(folder, profile, name) for name in ("dead", "living", "unknown")}
    held = {name: search.ask(COMPONENTS, LAYERS) for name, search in crew.items()}
    on = search_in(folder, profile, "on", gone={"dead": True, "living": False}.get)
    on.take_back(all_here=False)
    assert [crew[name].holds(held[name]) for name in crew] == [False, True, True]
    on.take_back(all_here=True)
    assert [crew[name].holds(held[name]) for name in crew] == [False, True, False]


def test_a_session_that_goes_on_frees_what_an_earlier_one_of_the_same_process_left(asked):
    folder, profile = asked("journal", 1)
    first, again = search_in(folder, profile, "a"), search_in(folder, profile, "a")
    left = first.ask(COMPONENTS, LAYERS)
    assert again.ask(COMPONENTS, LAYERS) is None
    again.take_back(all_here=False)
    assert not first.holds(left)
    assert one_trial(again).trial == 1


def test_a_trial_that_is_taken_away_while_it_is_sampled_is_another_s(asked, monkeypatch):
    folder, profile = asked("journal", 1)
    one, other = search_in(folder, profile, "a"), search_in(folder, profile, "b", gone=lambda worker: True)
    sampled = search_module.suggest
    monkeypatch.setattr(search_module, "suggest", lambda *what: other.take_back(all_here=True) or sampled(*what))
    assert one.ask(COMPONENTS, LAYERS) is None


def test_a_new_study_in_a_database_does_not_take_over_another_of_its_name(asked):
    folder, profile = asked("database", 2)
    search_in(folder, profile, "a")
    with pytest.raises(StudyExists, match="has a study"):
        open_study(profile, folder / "study.journal", new=True)


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_four_processes_one_of_them_killed_reach_exactly_the_number_asked_for(asked, kind):
    folder, profile = asked(kind, 30)
    begin = [sys.executable, MADE_UP, folder, profile.model_dump_json(), "0.1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(begin, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    looking, killed = search_in(folder, profile, "looking"), processes[0]

    def at_work():
        return len(numbers(looking)) >= 8 and any(f"-{killed.pid}-" in record.worker for record in looking.records)

    deadline = time.monotonic() + 600
    while not at_work():
        assert time.monotonic() < deadline, "it did no trial"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    told = [json.loads(process.communicate(timeout=600)[0] or "[]") for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0, 0, 0]
    assert numbers(looking) == list(range(1, 31))
    by_hand = [number for one in told for number, _ in one]
    assert len(by_hand) == len(set(by_hand)) >= 15


def test_a_line_that_a_dying_worker_has_torn_is_set_aside_by_the_next_one_that_writes(asked):
    folder, profile = asked("journal", 3)
    search = search_in(folder, profile, "a")
    one_trial(search)
    journal = folder / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 8, "trial')
    one_trial(search)
    one_trial(search_in(folder, profile, "b"))
    assert numbers(search) == [1, 2, 3]
    assert (folder / "study.journal.cut").read_bytes() == b'{"op_code": 8, "trial'
