import shutil
import subprocess
import sys

import pytest
import torch
from tiny_models import result, run, same_weights, tiny_network, weights_of

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import ModelLoaded, TrialStarted
from heretic_tui.engine.loading import loader
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import resume_study, start_study
from heretic_tui.engine.runs.run import Run


@pytest.fixture
def profile(short_profile):
    return short_profile


def test_the_same_model_is_loaded_once(tiny_folder, profile):
    session = Session()
    first = result(session.load(str(tiny_folder), profile))
    events, second = run(session.load(str(tiny_folder), profile))
    assert second is first is session.model
    assert events == [ModelLoaded(first.facts)]


def test_settings_that_say_nothing_about_loading_do_not_count(tiny_folder, profile):
    session = Session()
    first = result(session.load(str(tiny_folder), profile))
    other = profile.model_copy(update={"n_trials": 9, "batch_size": 3, "seed": 5})
    assert result(session.load(str(tiny_folder), other)) is first


@pytest.mark.parametrize(
    "changes", [{"dtypes": ["float16"]}, {"trust_remote_code": True}, {"max_memory": {"0": "1GB"}}]
)
def test_other_loading_settings_load_anew(tiny_folder, profile, changes):
    session = Session()
    first = result(session.load(str(tiny_folder), profile))
    assert result(session.load(str(tiny_folder), profile.model_copy(update=changes))) is not first


def test_another_way_to_write_the_folder_is_the_same_model(tiny_folder, profile, monkeypatch):
    session = Session()
    first = result(session.load(str(tiny_folder), profile))
    monkeypatch.chdir(tiny_folder.parent)
    assert result(session.load(tiny_folder.name, profile)) is first


def test_a_folder_that_was_written_over_is_loaded_anew(tiny_folder, profile, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    session = Session()
    first = result(session.load(str(folder), profile))
    tiny_network("llama", seed=5).save_pretrained(folder)
    second = result(session.load(str(folder), profile))
    assert not torch.equal(second.writers[0].weight, first.writers[0].weight)


def test_a_commit_that_is_not_the_one_in_memory_is_loaded(tiny_folder, profile, monkeypatch):
    session = Session()
    first = result(session.load(str(tiny_folder), profile))
    assert result(session.load(str(tiny_folder), profile.model_copy(update={"model_commit": "abc"}))) is not first


def test_what_a_job_has_settled_is_forgotten(tiny_folder, profile):
    session = Session()
    model = result(session.load(str(tiny_folder), profile))
    model.batch_size, model.response_prefix = 64, "<think>"
    result(session.load(str(tiny_folder), profile))
    assert (model.batch_size, model.response_prefix) == (1, "")


def test_the_old_model_goes_before_the_new_one_comes(tiny_folder, profile, monkeypatch):
    session, seen = Session(), []
    result(session.load(str(tiny_folder), profile))
    loaded = loader.load

    def watched(*arguments):
        seen.append(session.model)
        return (yield from loaded(*arguments))

    monkeypatch.setattr(loader, "load", watched)
    result(session.load(str(tiny_folder), profile.model_copy(update={"dtypes": ["float16"]})))
    assert seen == [None]


def test_a_model_that_cannot_be_loaded_leaves_an_empty_session(tiny_folder, profile, tmp_path):
    session = Session()
    result(session.load(str(tiny_folder), profile))
    with pytest.raises(EngineError):
        result(session.load(str(tmp_path / "nothing"), profile))
    assert session.model is None
    assert result(session.load(str(tiny_folder), profile)) is session.model


def test_a_load_that_is_closed_leaves_an_empty_session(tiny_folder, profile):
    session = Session()
    job = session.load(str(tiny_folder), profile)
    next(job)
    job.close()
    assert session.model is None
    assert result(session.load(str(tiny_folder), profile)) is session.model


def test_unloading_lets_the_model_go(tiny_folder, profile):
    session = Session()
    session.unload()
    result(session.load(str(tiny_folder), profile))
    session.unload()
    assert session.model is None


def test_a_study_that_is_closed_during_a_trial_leaves_the_original_weights(tiny_folder, profile, tmp_path):
    session = Session()
    before = weights_of(result(session.load(str(tiny_folder), profile)))
    job = start_study(str(tiny_folder), profile, "short", tmp_path, load=session.load)
    for event in job:
        if isinstance(event, TrialStarted):
            next(job)
            assert not same_weights(session.model, before)
            break
    job.close()
    assert same_weights(session.model, before)


def test_a_study_in_a_session_gives_the_trials_of_one_without(tiny_folder, profile, finished_run, tmp_path):
    session = Session()
    job = start_study(str(tiny_folder), profile, "short", tmp_path, load=session.load)
    for event in job:
        if isinstance(event, TrialStarted) and event.trial == 3:
            break
    job.close()
    (folder,) = tmp_path.iterdir()
    result(resume_study(Run(folder), load=session.load))
    found, expected = Run(folder).records(), Run(finished_run).records()
    assert [(one.parameters, one.scores) for one in found] == [(one.parameters, one.scores) for one in expected]


def test_a_session_is_made_without_torch():
    code = (
        "import sys, heretic_tui.engine.chat.conversation; from heretic_tui.engine.loading.session import Session;"
        "Session(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "optuna", "transformers"} & set(done.stdout.split())
