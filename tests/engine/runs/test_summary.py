import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heretic_tui.engine.runs.listing import create_run
from heretic_tui.engine.runs.run import JOURNAL, PROFILE, Run
from heretic_tui.engine.runs.summary import RunSummary, summarize
from heretic_tui.engine.storage.front import best_compromise, pareto_front


def test_a_finished_run(study):
    records, objectives = study.records(), study.profile.objectives
    assert summarize(study) == RunSummary(
        name=study.name,
        path=study.path,
        model=study.model_name,
        trials=4,
        wanted=4,
        finished=True,
        best=best_compromise(pareto_front(records, objectives), objectives),
        begun=(study.path / PROFILE).stat().st_mtime,
        problem=None,
    )


def test_a_run_that_is_to_have_more_trials_is_not_finished(study):
    study.want(9)
    found = summarize(study)
    assert (found.trials, found.wanted, found.finished) == (4, 9, False)


def test_a_run_before_its_first_trial(tmp_path, short_profile):
    found = summarize(create_run(tmp_path, "model", "short", short_profile))
    assert (found.trials, found.wanted, found.finished, found.best, found.problem) == (0, 4, False, None, None)


@pytest.mark.parametrize("name", [PROFILE, JOURNAL])
def test_a_run_that_cannot_be_read_says_why(study, name):
    (study.path / name).write_bytes(b"\xff\x00 nothing of the kind\n")
    found = summarize(study)
    assert found.problem
    assert not found.finished
    assert found.best is None
    assert found.model == ("?" if name == PROFILE else study.model_name)


def test_a_folder_that_has_gone(tmp_path):
    found = summarize(Run(tmp_path / "gone"))
    assert (found.name, found.begun) == ("gone", 0.0)
    assert found.problem


def test_a_trial_without_the_score_of_an_objective(study):
    journal = study.path / JOURNAL
    journal.write_text(journal.read_text(encoding="utf-8").replace("kl_divergence", "something_else"), encoding="utf-8")
    assert "lacks a score" in summarize(Run(study.path)).problem


WILD = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    ).map(lambda value: (json.dumps(value) + "\n").encode()),
)


@settings(max_examples=60)
@given(st.sampled_from([PROFILE, JOURNAL]), WILD, st.booleans(), st.integers(0, 10_000))
def test_whatever_a_file_holds_a_summary_comes_back(finished_run, name, content, whole, place):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(finished_run, Path(folder) / "run"))
        old = (path / name).read_bytes()
        (path / name).write_bytes(content if whole else old[:place] + content + old[place:])
        found = summarize(Run(path))
        assert isinstance(found, RunSummary)
        assert found.problem is None or found.problem
