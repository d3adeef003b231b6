"""`heretic-tui worker`, and the workers that `heretic-tui run --workers` starts beside itself."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from heretic_tui.commands.options import DebugOption, JsonOption, RunsDirOption, runs_dir_of
from heretic_tui.engine.background import Job
from heretic_tui.engine.events import Note, RunOpened

T = TypeVar("T")
LEAVING = 30.0
"""Seconds that workers are given to end by themselves."""

WorkersOption = Annotated[
    str | None,
    typer.Option("--workers", metavar="N|auto", help="How many processes work on it; auto is one for each GPU."),
]


def worker(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A run's name or folder, or a study of --storage.")],
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="The Optuna storage that the study is in.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="Where the model goes, such as cuda:1.")
    ] = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Work on a study beside others: any number, at any time, on any machine that reaches it."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.loading.loader import load
    from heretic_tui.engine.runs.listing import open_run
    from heretic_tui.engine.study.crew import on_device, run_of_study

    folder = runs_dir_of(runs_dir)
    run = open_run(folder, study) if storage is None else run_of_study(storage, study, folder)
    show_job(pipeline.join_study(run, storage, load=on_device(device, load)), as_json=json)


def devices_of(workers: str | None) -> list[str | None]:
    """The device of each worker that was asked for, one for each GPU as long as there are some.

    None leaves the device to the profile: that of a single worker, and of all where there is no GPU.
    """
    if workers is None or workers == "1":
        return [None]
    if workers != "auto" and not (workers.isdecimal() and int(workers) > 0):
        raise typer.BadParameter(f"--workers takes a number or auto, not {workers}.")
    import torch

    gpus = torch.cuda.device_count()
    count = max(1, gpus) if workers == "auto" else int(workers)
    if count == 1:
        return [None]
    return [f"cuda:{index % gpus}" if gpus else None for index in range(count)]


def with_workers(job: Job[T], devices: Sequence[str | None]) -> Job[T]:
    """A study's job, with more workers that begin as soon as its run is there and end with it."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as stop:
                for one in started:
                    with suppress(subprocess.TimeoutExpired):
                        one.wait(LEAVING)
                return stop.value  # type: ignore[no-any-return]
            yield event
            if isinstance(event, RunOpened) and not started:
                for number, device in enumerate(devices, 2):
                    log = event.path / f"worker-{number}.txt"
                    started.append(_start(event.path, device, log))
                    yield Note(f"Worker {number} is process {started[-1].pid}; what it says goes to {log}.")
    finally:
        job.close()
        _end(started)


def _start(run: Path, device: str | None, log: Path) -> "subprocess.Popen[bytes]":
    place = [] if device is None else ["--device", device]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "heretic_tui", "worker", str(run), *place, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # what the terminal sends is for the first; it tells the others
        )


def _end(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Stop workers that still run as Ctrl+C would, so that each gives its trial back."""
    running = [one for one in started if one.poll() is None]
    for one in running:
        one.terminate() if sys.platform == "win32" else one.send_signal(signal.SIGINT)
    for one in running:
        try:
            one.wait(LEAVING)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
