"""Joining a study: who does not fit is refused with the difference in words, and the start is measured once."""

import shutil

import pytest

from heretic_tui.engine import events
from heretic_tui.engine.crew import on_device
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.loading import load
from heretic_tui.engine.pipeline import join_study, resume_study
from heretic_tui.engine.run import Run
from heretic_tui.engine.summary import summarize
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
