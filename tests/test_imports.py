"""What importing a part of the program must not drag in; each in a process of its own."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "optuna", "transformers", "textual", "datasets", "peft"}


def imported_by(program: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after running `program`."""
    guarded = f"try:\n    exec({program!r})\nexcept SystemExit:\n    pass\n"
    code = f"import sys\n{guarded}sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option):
    loaded = imported_by(f"sys.argv = ['heretic-tui', '{option}']; from heretic_tui.__main__ import main; main()")
    assert not loaded & HEAVY


def test_the_engine_knows_no_screen():
    loaded = imported_by(
        "import heretic_tui.engine.pipeline, heretic_tui.engine.study.search, heretic_tui.engine.export.merged"
    )
    assert "torch" in loaded
    assert not loaded & {"textual", "typer", "rich"}


def test_profiles_and_runs_are_read_without_torch():
    loaded = imported_by("import heretic_tui.profile.store, heretic_tui.engine.runs.run, heretic_tui.engine.events")
    assert not loaded & HEAVY
