import json
import threading

import pytest
from tiny_models import result

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import TrialFinished, TrialStarted
from heretic_tui.engine.pipeline import resume_study, start_study
from heretic_tui.engine.run import JOURNAL, Run, create_run
from heretic_tui.engine.session import Session


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
