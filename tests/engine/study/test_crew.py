"""Joining a study: who does not fit is refused with the difference in words, and the start is measured once."""

import shutil

import pytest

from heretic_tui.engine import events
from heretic_tui.engine.checkpoints.permissions import permissions_file
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.pipeline import join_study, resume_study, start_study
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.summary import summarize
from heretic_tui.engine.study.crew import on_device, run_of_study
from heretic_tui.profile import store


def changed(run, **settings):
    """The run with another profile than it was begun with, as a worker elsewhere may have it."""
    text = store.dump(Run(run.path).profile.model_copy(update=settings))
    (run.path / "profile.toml").write_text(text)
    return Run(run.path)


def refused(run, **options):
    with pytest.raises(EngineError, match="does not fit") as told:
        list(join_study(run, **options))
    return told.value.cause


@pytest.fixture
def unfinished(study):
    """A run that is to have one more trial, with a model of its own."""
    study.want(5)
    return study


def test_a_worker_that_fits_does_the_trials_that_are_left_and_leaves(unfinished):
    told = list(join_study(unfinished))
    finished = [event.record for event in told if isinstance(event, events.TrialFinished)]
    assert [record.trial for record in finished] == [5]
    assert [record.trial for record in unfinished.records()] == [1, 2, 3, 4, 5]
    assert isinstance(told[-1], events.StudyFinished)


def test_what_a_worker_samples_is_what_the_resumed_run_would_have(unfinished, tmp_path):
    twin = Run(shutil.copytree(unfinished.path, tmp_path / "twin"))
    list(join_study(unfinished))
    list(resume_study(twin))
    assert unfinished.record(5).parameters == twin.record(5).parameters
    assert unfinished.record(5).scores == twin.record(5).scores


def test_another_data_type_is_refused(unfinished):
    list(resume_study(unfinished))
    unfinished.want(6)
    assert "dtype is bfloat16 here and float32 in the study" in refused(changed(unfinished, dtypes=["bfloat16"]))


def test_another_setting_is_refused_by_its_name(unfinished):
    cause = refused(changed(unfinished, row_normalization="columns"))
    assert "the setting row_normalization is columns here and full in the study" in cause


def test_other_prompts_are_refused(unfinished, tmp_path):
    prompts = tmp_path / "plain.txt"
    prompts.write_text("\n".join(f"Name {n} lakes." for n in range(6)))
    asked = unfinished.profile.good_prompts.model_copy(update={"dataset": str(prompts)})
    cause = refused(changed(unfinished, good_prompts=asked))
    assert '"Name 0 lakes." here and "Tell me about 0 rivers." in the study' in cause


def test_fewer_prompts_are_refused_by_their_number(unfinished):
    asked = unfinished.profile.bad_prompts.model_copy(update={"split": "[:4]"})
    assert "4 here and 6 in the study" in refused(changed(unfinished, bad_prompts=asked))


def test_other_weights_are_refused(unfinished, tmp_path, tiny_folder):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(tiny_folder, tmp_path / "tiny")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    assert "the model's weights are not those of the study" in refused(changed(unfinished, model=str(other)))


def test_the_same_model_in_another_place_may_join(unfinished, tmp_path, tiny_folder):
    other = shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    list(join_study(changed(unfinished, model=str(other))))
    assert len(unfinished.records()) == 5


def test_a_worker_waits_while_another_measures_the_start(unfinished):
    (unfinished.path / "directions.safetensors").unlink()
    job = join_study(unfinished)
    with unfinished.starting() as first:
        assert first
        for event in job:
            if isinstance(event, events.Progress) and event.phase.startswith("waiting"):
                break
        assert not (unfinished.path / "directions.safetensors").exists()
    list(job)
    assert (unfinished.path / "directions.safetensors").exists()
    assert len(unfinished.records()) == 5


def test_a_device_of_the_worker_s_own_changes_nothing_but_the_place(unfinished):
    told = list(join_study(unfinished, load=on_device("cpu", load)))
    loaded = next(event for event in told if isinstance(event, events.ModelLoaded))
    assert loaded.facts.device == "cpu"
    assert unfinished.record(5).device == "cpu"


@pytest.mark.parametrize("work", [resume_study, join_study])
def test_a_run_is_running_while_the_model_that_goes_on_with_it_is_still_loaded(unfinished, work):
    job = work(unfinished)
    assert isinstance(next(job), events.Progress)
    assert summarize(unfinished).state == "running"
    job.close()
    assert summarize(unfinished).state == "paused"


@pytest.fixture
def shared(tiny_folder, short_profile, tmp_path):
    """A run whose study is in a database."""
    profile = short_profile.model_copy(update={"storage": f"sqlite:///{tmp_path}/study.db"})
    *_, finished = start_study(str(tiny_folder), profile, "short", tmp_path / "here")
    return Run(finished.path)


def test_a_machine_that_shares_no_folder_makes_the_run_anew_from_the_study_and_works_on_it(shared, tmp_path):
    shared.want(5)
    far = run_of_study(shared.profile.storage, shared.name, tmp_path / "there")
    list(join_study(far, shared.profile.storage))
    assert [record.trial for record in shared.records()] == [1, 2, 3, 4, 5]
    assert far.responses(5)
    assert far.path.stat().st_mode & 0o077 == 0
    assert run_of_study(shared.profile.storage, shared.name, tmp_path / "there") == far


@pytest.mark.parametrize("name", ["..", "", "a/b", "/etc", "nul", "x" * 300, "a\0b"])
def test_what_can_be_no_name_of_a_study_makes_no_folder(tmp_path, name):
    with pytest.raises(EngineError, match="cannot be the name"):
        run_of_study(f"sqlite:///{tmp_path}/study.db", name, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_there_is_told_with_those_that_are(shared, tmp_path):
    with pytest.raises(EngineError, match=f"It has: {shared.name}"):
        run_of_study(shared.profile.storage, "another", tmp_path / "there")


@pytest.mark.parametrize("settings", [None, "", "[]", '{"n_trials": "many"}', 5])
def test_settings_that_cannot_be_understood_are_told(shared, tmp_path, settings):
    shared.read_study().set_user_attr("settings", settings)
    with pytest.raises(EngineError, match="settings that can be understood"):
        run_of_study(shared.profile.storage, shared.name, tmp_path / "there")


def test_the_folder_of_another_study_is_not_worked_in(shared, tiny_folder, short_profile, tmp_path):
    list(start_study(str(tiny_folder), short_profile, "short", tmp_path / "there"))
    with pytest.raises(EngineError, match="another study"):
        run_of_study(shared.profile.storage, shared.name, tmp_path / "there")


def test_a_password_in_the_address_of_a_storage_is_kept_nowhere(tmp_path):
    with pytest.raises(EngineError, match="with a password"):
        run_of_study("postgresql://me:s3cret@localhost/db", "run", tmp_path / "runs")
    assert not permissions_file().exists() or "s3cret" not in permissions_file().read_text()


def test_a_new_run_of_a_name_that_the_database_has_leaves_no_folder(shared, tiny_folder, tmp_path):
    with pytest.raises(EngineError, match="has a study"):
        list(start_study(str(tiny_folder), shared.profile, "short", tmp_path / "elsewhere"))
    assert not list((tmp_path / "elsewhere").iterdir())
    assert len(shared.records()) == shared.profile.n_trials
