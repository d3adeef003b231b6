"""A run's folder that a crash has left behind: put in order, with a word about everything that was found."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from heretic_tui.atomic import left_behind
from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import write_text
from heretic_tui.engine.runs.run import BASELINE, BASELINE_TENSORS, CHATS, DIRECTIONS, LOG, MODEL, RESIDUALS, Run
from heretic_tui.engine.storage.journal import repair_journal

DAMAGED = ".damaged"
"""What is put behind the name of a file that cannot be read."""
AGAIN = "what it held is measured again"


def mend(run: Run) -> list[str]:
    """Make a run's folder whole enough to go on with; call it only while nobody else works on the run.

    Gives what was found and done, in words. Nothing is thrown away but what was never finished: a file that cannot be
    read is kept under another name. Raises `EngineError` where the folder cannot be written to.
    """
    try:
        _end_line(run.path / LOG)
        return [*repair_journal(run.journal), *_unfinished(run), *_unreadable(run), *_responses(run)]
    except OSError as error:
        raise write_failure(run.path, error) from error


def _end_line(log: Path) -> None:
    """Let the next entry of the log begin on a line of its own."""
    if log.is_file() and log.stat().st_size:
        with log.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")


def _unfinished(run: Run) -> Iterator[str]:
    for folder in (run.path, run.path / "responses", run.path / "inspection", run.path / CHATS):
        for path, name in left_behind(folder):
            path.unlink(missing_ok=True)
            yield f"{name} was being written when a process was killed; the part that was written is removed."


def _unreadable(run: Run) -> Iterator[str]:
    """What the start of a study keeps, and can find again."""
    readers: dict[str, Callable[[], object]] = {
        MODEL: run.model,
        DIRECTIONS: lambda: load_directions(run.path / DIRECTIONS),
        RESIDUALS: lambda: _check_tensors(run.path / RESIDUALS),
        BASELINE: run.base_scores,
        BASELINE_TENSORS: lambda: _check_tensors(run.path / BASELINE_TENSORS),
    }
    for name, read in readers.items():
        path = run.path / name
        if not path.is_file():
            continue
        try:
            read()
        except EngineError as error:
            what = AGAIN if name != RESIDUALS else "the inspector measures it again when it is asked to"
            yield f"{error.cause} It is kept as {_set_aside(path)}; {what}."


def _check_tensors(path: Path) -> None:
    """Raise `EngineError` where a safetensors file is not as long as it says; the numbers in it are not looked at."""
    from safetensors import SafetensorError, safe_open

    from heretic_tui.engine.errors import damaged

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except SafetensorError as error:
        raise damaged(path, error) from error


def _responses(run: Run) -> Iterator[str]:
    for path in sorted((run.path / "responses").glob("trial-*.json*")):
        trial = path.stem.removesuffix(".labels").removeprefix("trial-")
        if not trial.isdigit() or path.suffix not in {".json", ".jsonl"}:
            continue
        labels = path.suffix == ".json"
        try:
            run.overruled(int(trial)) if labels else run.responses(int(trial))
        except EngineError as error:
            yield f"{error.cause} {_mended(run, path, int(trial), labels=labels)}"


def _mended(run: Run, path: Path, trial: int, *, labels: bool) -> str:
    kept = path.read_bytes()
    aside = _set_aside(path)
    if labels:
        return f"It is kept as {aside}; the labels that were found by themselves stand."
    if trial == 0:
        # The scores alone would do, but the responses are shown, and tell which prompts to ask first.
        (run.path / BASELINE).unlink(missing_ok=True)
        return f"It is kept as {aside}; the original model is measured again."
    whole = kept.rpartition(b"\n")[0]
    if whole and kept[len(whole) + 1 :]:
        write_text(path, whole.decode("utf-8", "replace") + "\n", inside=run.path)
        try:
            count = len(run.responses(trial))
        except EngineError:
            path.unlink()
        else:
            return f"Its {count} whole responses are kept, and the file as it was is {aside}."
    return f"It is kept as {aside}; the trial's scores stand in the journal, unharmed."


def _set_aside(path: Path) -> str:
    """Give a file another name that is free; gives that name."""
    number = 1
    while (to := path.with_name(f"{path.name}{DAMAGED}{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    path.rename(to)
    return to.name
