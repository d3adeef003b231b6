import shutil

import numpy as np
import pytest
import torch
from tiny_models import result, run, same_weights, weights_of

from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import GeometryMeasured, Measured, PhaseFinished, TrialFinished
from heretic_tui.engine.inspection.geometry import geometry_of, kept_geometry
from heretic_tui.engine.inspection.leak import leak_path, load_leak
from heretic_tui.engine.inspection.measuring import measure, measure_run
from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
from heretic_tui.engine.loading import loader
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.pipeline import resume_study, start_study
from heretic_tui.engine.runs.run import Run


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory, tiny_folder, short_profile):
    """The folder of a run that was only measured, and its events; copy it before changing it."""
    events, found = run(measure(str(tiny_folder), short_profile, "short", tmp_path_factory.mktemp("measured")))
    return found.path, events


@pytest.fixture
def measured(measured_folder, tmp_path):
    return Run(shutil.copytree(measured_folder[0], tmp_path / "measured" / measured_folder[0].name))


def test_a_measured_model_is_a_run_without_trials(measured):
    names = {path.name for path in measured.path.iterdir()}
    expected = {"profile.toml", "model.json", "directions.safetensors", "residuals.safetensors"}
    assert expected <= names and "study.journal" not in names
    assert measured.records() == []
    sets = load_residual_sets(residuals_path(measured))
    assert sets.good.shape == (6, 4, 48) and sets.bad_mid.shape == (6, 3, 48)


def test_it_tells_what_was_measured_and_the_memory(measured_folder):
    path, events = measured_folder
    told = next(event for event in events if isinstance(event, Measured))
    sets = load_residual_sets(path / "residuals.safetensors")
    assert told == Measured(path.name, path, 0, (6, 6), 4, 48, sets.bytes)
    phase = next(event for event in events if isinstance(event, PhaseFinished) and event.phase == "residuals")
    assert "kB" in phase.result


def test_it_can_be_gone_on_with_as_a_study(measured):
    before = (measured.path / "directions.safetensors").read_bytes()
    events, finished = run(resume_study(measured))
    assert finished.trials == 4
    assert sum(isinstance(event, TrialFinished) for event in events) == 4
    assert (measured.path / "directions.safetensors").read_bytes() == before
    assert not any(isinstance(event, PhaseFinished) and event.phase == "directions" for event in events)


def test_its_directions_are_those_of_a_study(measured, study):
    ours, theirs = (load_directions(found.path / "directions.safetensors") for found in (measured, study))
    torch.testing.assert_close(ours.vectors[1:], theirs.vectors[1:], rtol=1e-4, atol=1e-5)


def test_nothing_is_left_of_a_measurement_that_is_stopped_or_fails(tmp_path, tiny_folder, short_profile):
    job = measure(str(tiny_folder), short_profile, "short", tmp_path)
    for event in job:
        if getattr(event, "phase", "").startswith("residuals"):
            break
    job.close()
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    nothing = short_profile.good_prompts.model_copy(update={"dataset": str(empty)})
    with pytest.raises(EngineError):
        result(measure(str(tiny_folder), short_profile.model_copy(update={"good_prompts": nothing}), "short", tmp_path))
    assert list(tmp_path.iterdir()) == [empty]


def test_a_run_without_vectors_gets_them_and_keeps_its_directions(study):
    before = (study.path / "directions.safetensors").read_bytes()
    path = result(measure_run(study))
    assert path == study.path / "residuals.safetensors" and path.is_file()
    assert (study.path / "directions.safetensors").read_bytes() == before
    leak = load_leak(leak_path(study))
    assert max(leak.leak) < 1e-5 < min(leak.write)


def test_a_trial_is_measured_ablated_as_its_study_had_it(study):
    path = result(measure_run(study, 2))
    assert path == study.path / "inspection" / "residuals-0002.safetensors"
    found = load_residual_sets(path)
    model = result(loader.load(study.model_name, study.profile))
    model.batch_size = 6
    texts = [model.template(f"Tell me about {n} rivers.", study.profile.system_prompt) for n in range(6)]
    directions = load_directions(study.path / "directions.safetensors")
    with ablated(model, directions, study.record(2).parameters, style_of(study.profile)):
        ids = model.encode(texts)
        mask = ids.mask
        states = model.network(input_ids=ids.ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0),
                               output_hidden_states=True).hidden_states  # fmt: skip
    np.testing.assert_allclose(found.good[:, 2], states[2][:, -1].numpy(), rtol=1e-4, atol=1e-5)
    assert load_leak(leak_path(study, 2)).leak is None


def test_the_weights_are_put_back_after_a_trial_and_when_it_is_stopped(study):
    session = Session()
    result(session.load(study.model_name, study.profile))
    before = weights_of(session.model)
    result(measure_run(study, 1, session.load))
    assert same_weights(session.model, before)
    job = measure_run(study, 1, session.load)
    changed = False
    for _ in job:
        changed = changed or not same_weights(session.model, before)
        if changed:
            break
    job.close()
    assert changed and same_weights(session.model, before)


def test_a_trial_that_is_not_there_is_refused_before_anything_is_loaded(study):
    with pytest.raises(EngineError, match="no trial 99"):
        next(measure_run(study, 99))


def test_a_trial_without_its_directions_is_refused(study):
    (study.path / "directions.safetensors").unlink()
    with pytest.raises(EngineError, match="no directions any more"):
        next(measure_run(study, 1))


def test_what_was_found_out_of_older_vectors_is_found_out_again(study):
    result(measure_run(study))
    first = result(geometry_of(study))
    assert kept_geometry(study) == first
    result(measure_run(study, 1))
    shutil.copy(residuals_path(study, 1), residuals_path(study))
    assert kept_geometry(study) is None


def test_a_measurement_is_in_the_run_s_log(measured):
    assert '"event": "measured"' in (measured.path / "log.txt").read_text()


def test_a_study_that_is_to_keep_its_vectors_keeps_all_that_the_inspector_wants(tmp_path, tiny_folder, short_profile):
    profile = short_profile.model_copy(update={"save_residuals": True, "n_trials": 1})
    finished = result(start_study(str(tiny_folder), profile, "short", tmp_path))
    assert load_residual_sets(finished.path / "residuals.safetensors").mid is not None


def test_a_study_that_is_to_print_its_geometry_measures_it_before_the_search(tmp_path, tiny_folder, short_profile):
    profile = short_profile.model_copy(update={"print_residual_geometry": True, "n_trials": 1})
    events, finished = run(start_study(str(tiny_folder), profile, "short", tmp_path))
    kinds = [type(event) for event in events]
    assert kinds.index(GeometryMeasured) < kinds.index(TrialFinished)
    assert kept_geometry(Run(finished.path)).whole
