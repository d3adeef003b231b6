import json
import os
import shutil
from pathlib import Path

import pytest

from heretic_tui.engine import pipeline
from heretic_tui.engine.events import Note, PhaseFinished
from heretic_tui.engine.runs.run import BASELINE_TENSORS, DIRECTIONS, MODEL, RESIDUALS, Run
from heretic_tui.engine.study.reuse import OF_NO_ACCOUNT
from heretic_tui.profile.schema import Profile

MEASURED = ["directions", "original model"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_folder, short_profile):
    """A folder of runs with one of a single trial, the model and the profile; do not change them, copy them."""
    folder = tmp_path_factory.mktemp("begun")
    model = shutil.copytree(tiny_folder, folder / "model")
    source = Path(short_profile.good_prompts.dataset).parent
    prompts = shutil.copytree(source, folder / "prompts")
    text = short_profile.model_dump_json().replace(str(source), str(prompts))
    profile = Profile.model_validate_json(text).model_copy(update={"n_trials": 1})
    list(pipeline.start_study(str(model), profile, "first", folder / "runs"))
    return folder


@pytest.fixture
def place(begun, tmp_path_factory):
    """The same folder, restored after the test: the model's path and times are part of what makes runs the same."""
    kept = tmp_path_factory.mktemp("kept") / "copy"
    shutil.copytree(begun, kept)
    yield begun
    shutil.rmtree(begun)
    shutil.copytree(kept, begun)


def first_of(place):
    return Run(next((place / "runs").glob("*--first--1")))


def start(place, **changes):
    """Start another run with changed settings: it, the phases that it went through, and its notes."""
    profile = first_of(place).profile.model_copy(update={"model": None, "model_commit": None, **changes})
    events = list(pipeline.start_study(str(place / "model"), profile, "again", place / "runs"))
    return (
        Run(events[-1].path),
        [event.phase for event in events if isinstance(event, PhaseFinished) and event.phase in MEASURED],
        [event.text for event in events if isinstance(event, Note)],
    )


def test_a_second_run_measures_nothing_and_says_where_it_has_it_from(place):
    first = first_of(place)
    again, measured, notes = start(place)
    assert measured == []
    assert any(first.name in note for note in notes)
    for name in (DIRECTIONS, BASELINE_TENSORS):
        assert (again.path / name).read_bytes() == (first.path / name).read_bytes()
    assert again.base_scores() == first.base_scores()
    assert again.model() == first.model()
    assert again.responses(0) == first.responses(0)


def test_trials_after_a_start_that_was_taken_over_score_the_same(place):
    again, _, _ = start(place)
    assert [one.scores for one in again.records()] == [one.scores for one in first_of(place).records()]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_trials": 2},
        {"seed": 9},
        {"row_normalization": "columns"},
        {"end_dominated_trials": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_of_the_search_and_of_the_edit_do_not_matter(place, changes):
    assert start(place, **changes)[1] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"reuse_measurements": False},
        {"dtypes": ["bfloat16"]},
        {"batch_size": 3},
        {"max_response_length": 5},
        {"system_prompt": "Be brief."},
        {"response_prefix": "Well,"},
        {"orthogonalize_direction": False},
        {"winsorization_quantile": 0.9},
        {"direction_estimator": "geometric_median"},
        {"gain_aware": False},
        {"stop_decided_responses": False},
        {"save_residuals": True},  # the first run has kept none
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_change_what_is_measured_have_it_measured_anew(place, changes):
    assert start(place, **changes)[1] == MEASURED


@pytest.mark.parametrize("name", ["plain.txt", "other.txt"])
def test_other_prompts_in_the_same_file_have_it_measured_anew(place, name):
    path = place / "prompts" / name
    path.write_text(path.read_text().replace("2", "7"))
    assert start(place)[1] == MEASURED


def test_a_model_whose_files_changed_is_measured_anew(place):
    weights = place / "model" / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert start(place)[1] == MEASURED


def test_another_chat_template_has_it_measured_anew(place):
    path = place / "model" / "chat_template.jinja"
    stamp = path.stat()
    path.write_text(path.read_text().replace("{%", " {%", 1))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert start(place)[1] == MEASURED


def test_another_version_of_the_library_has_it_measured_anew(place, monkeypatch):
    from heretic_tui.engine.study import reuse

    monkeypatch.setattr(reuse, "version", lambda name: "0.0")
    assert start(place)[1] == MEASURED


@pytest.mark.parametrize(
    "name", [DIRECTIONS, BASELINE_TENSORS, MODEL, "responses/trial-0000.jsonl", "fingerprint.json"]
)
@pytest.mark.parametrize("content", [None, b"{"], ids=["missing", "damaged"])
def test_nothing_is_taken_from_a_run_that_is_not_whole(place, name, content):
    path = first_of(place).path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert start(place)[1] == MEASURED


def test_residuals_are_taken_over_where_both_runs_keep_them(place):
    kept, measured, _ = start(place, save_residuals=True)
    assert measured == MEASURED
    again, measured, _ = start(place, save_residuals=True)
    assert measured == []
    assert (again.path / RESIDUALS).read_bytes() == (kept.path / RESIDUALS).read_bytes()


def test_a_run_that_goes_on_with_another_model_is_no_source_for_others(place):
    """Its fingerprint is that of the model it began with, so what is measured after that must not be found by it."""
    first = first_of(place)
    (first.path / DIRECTIONS).unlink()
    weights = place / "model" / "model.safetensors"
    before = weights.stat()
    os.utime(weights, ns=(1, 1))
    list(pipeline.resume_study(first))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert json.loads((first.path / "fingerprint.json").read_text()) == {"fingerprint": None}
    assert start(place)[1] == MEASURED


def test_settings_of_no_account_are_settings():
    assert set(Profile.model_fields) >= OF_NO_ACCOUNT
