"""`heretic-tui inspect`, as it is typed."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
from tiny_models import result
from typer.testing import CliRunner

from heretic_tui.cli import app
from heretic_tui.engine.inspection.measuring import measure_run
from heretic_tui.engine.runs.run import Run


@pytest.fixture(scope="module")
def measured_study(tmp_path_factory, finished_run):
    """A study with the vectors of its original model and of its trial 2; do not change it, copy it."""
    run = Run(shutil.copytree(finished_run, tmp_path_factory.mktemp("inspected") / finished_run.name))
    result(measure_run(run))
    result(measure_run(run, 2))
    return run.path


@pytest.fixture
def inspected(measured_study, tmp_path):
    return Run(shutil.copytree(measured_study, tmp_path / "run" / measured_study.name))


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_the_table_the_picks_and_the_verdict_are_printed(inspected):
    found = inspect(inspected.path)
    assert found.exit_code == 0, found.output
    for words in ("S(g,b)", "the rule picks layer", "directions: too few layers", "every column"):
        assert words in found.output
    table = [line for line in found.output.splitlines() if line.strip().startswith(("in ", "0 ", "*0 "))]
    assert max(len(line.rstrip()) for line in table) <= 80


def test_files_are_written_where_they_are_asked_for(inspected, tmp_path):
    to = tmp_path / "there"
    assert inspect(inspected.path, "--to", to).exit_code == 0
    names = {"geometry.csv", "geometry.json", "curves.csv", "similarity.csv", "similarity.json"}
    assert {path.name for path in to.iterdir()} == names
    rows = list(csv.DictReader(io.StringIO((to / "geometry.csv").read_text())))
    assert [row["layer"] for row in rows] == ["in", "0", "1", "2"] and float(rows[1]["silhouette"]) <= 1
    curves = list(csv.DictReader(io.StringIO((to / "curves.csv").read_text())))
    assert {"after", "mid"} == {row["place"] for row in curves}
    assert json.loads((to / "similarity.json").read_text())["verdict"].startswith("too few layers")


def test_a_trial_is_shown_beside_the_original_model(inspected):
    found = inspect(inspected.path, "--trial", 2)
    assert found.exit_code == 0, found.output
    assert "trial 2" in found.output and "before and after" in found.output
    assert "change: the direction" in found.output
    assert (inspected.path / "inspection" / "tables" / "geometry-0002.csv").is_file()
    told = json.loads(inspect(inspected.path, "--trial", 2, "--json").output.splitlines()[-1])
    assert len(told["change"]["rows"]) == 4 and told["trial"] == 2


def test_json_is_one_object_a_line_with_everything_in_it(inspected):
    found = inspect(inspected.path, "--json")
    lines = [json.loads(line) for line in found.output.splitlines()]
    last = lines[-1]
    assert (last["event"], last["trial"]) == ("inspected", 0)
    assert last["geometry"]["rows"][1]["cos_g_b"] is not None
    assert last["picks"]["rule"] and last["similarity"]["evidence"] == []


def test_a_run_without_vectors_says_what_to_do(study):
    found = inspect(study.path)
    assert found.exit_code != 0 and "--measure" in str(found.exception)


def test_a_run_without_vectors_is_measured_when_asked(study):
    found = inspect(study.path, "--measure")
    assert found.exit_code == 0, found.output
    assert "measured" in found.output and "S(g,b)" in found.output


def test_a_model_is_measured_in_a_new_run(tiny_folder, short_profile, tmp_path):
    from heretic_tui.profile import store

    profile = tmp_path / "short.toml"
    profile.write_text(store.dump(short_profile), encoding="utf-8")
    found = inspect(tiny_folder, "--profile", profile, "--runs-dir", tmp_path / "runs")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "runs" / "tiny--short--1" / "residuals.safetensors").is_file()


def test_a_name_that_is_neither_a_run_nor_a_model_is_told(tmp_path):
    found = inspect("nothing", "--runs-dir", tmp_path)
    assert found.exit_code != 0 and "no run nothing" in str(found.exception)


def test_a_run_keeps_its_own_settings(inspected):
    assert "keeps its own settings" in inspect(inspected.path, "--profile", "demo").output


def test_reading_a_run_loads_no_torch(inspected):
    code = (
        "import sys; from heretic_tui.cli import app; "
        f"sys.argv = ['heretic-tui', 'inspect', {str(inspected.path)!r}]; app(standalone_mode=False); "
        "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    inspect(inspected.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "optuna", "textual"} & set(done.stderr.split())


def test_what_reads_a_run_s_folder_imports_no_torch():
    names = ("geometry", "similarity", "layer_rule", "leak", "residual_sets")
    modules = ", ".join(f"heretic_tui.engine.inspection.{name}" for name in names)
    code = f"import sys, {modules}; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "matplotlib", "pacmap"} & set(done.stderr.split())
