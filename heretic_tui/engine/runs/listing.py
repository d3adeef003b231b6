"""The runs below a folder: a new one is made, one is found by its name, all are listed."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import write_text
from heretic_tui.engine.runs.run import PROFILE, Run
from heretic_tui.names import file_name
from heretic_tui.private import FOLDER, make_folder
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile


def create_run(runs_dir: Path, model_name: str, profile_name: str, profile: Profile) -> Run:
    """Make the folder of a new run with a free number, and freeze the profile in it."""
    model = model_name
    with suppress(OSError, ValueError):  # no name that a file can have
        model = Path(model_name).name if Path(model_name).exists() else model_name
    stem = f"{file_name(model, 'model')}--{file_name(profile_name, 'profile')}"
    try:
        make_folder(runs_dir)
        number = 1 + max((_number(path.name, stem) for path in runs_dir.iterdir()), default=0)
        while True:
            path = runs_dir / f"{stem}--{number}"
            try:
                path.mkdir(mode=FOLDER)
                break
            except FileExistsError:
                number += 1
    except OSError as error:
        raise write_failure(runs_dir, error) from error
    run = Run(path)
    try:
        write_text(path / PROFILE, store.dump(profile))
    except EngineError:
        path.rmdir()
        raise
    return run


def open_run(runs_dir: Path, name: str) -> Run:
    """Find a run by its folder or, below `runs_dir`, by its name. Raises `EngineError`."""
    with suppress(OSError, RuntimeError, ValueError):  # no name that a file can have
        for path in (Path(name).expanduser(), runs_dir / name):
            if (path / PROFILE).is_file():
                run = Run(path.resolve())
                run.check_links()
                return run
    known = [run.name for run in list_runs(runs_dir)]
    close = f" Did you mean {near}?" if (near := _nearest(name, known)) else ""
    raise EngineError(f"There is no run {name} in {runs_dir}.{close}", "List the runs with: heretic-tui runs")


def list_runs(runs_dir: Path) -> list[Run]:
    """All runs below a folder, newest first; none of them is read. Raises `OSError` for a folder that may not be."""
    if not runs_dir.is_dir():
        return []
    found = []
    for path in runs_dir.iterdir():
        with suppress(OSError):  # no run, or removed a moment ago
            found.append(((path / PROFILE).stat().st_mtime, path))
    return [Run(path) for _, path in sorted(found, reverse=True)]


def _nearest(name: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1)), None)


def _number(name: str, stem: str) -> int:
    rest = name.removeprefix(f"{stem}--")
    return int(rest) if rest != name and rest.isdigit() else 0
