"""Jobs on the command line: progress bars and lines on a terminal, or one JSON object a line."""

import errno
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from heretic_tui.commands.failures import Interrupted
from heretic_tui.commands.inspect_tables import geometry_table
from heretic_tui.commands.tables import front_table
from heretic_tui.engine import events
from heretic_tui.engine.background import Job
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.geometry import kept_geometry
from heretic_tui.engine.inspection.layer_rule import pick_layers
from heretic_tui.engine.records import ModelFacts, Score, TrialRecord
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.timing import in_words
from heretic_tui.exports import measured
from heretic_tui.formats import duration, heading, json_line, plain, size
from heretic_tui.logs import has_terminal, let_go_of_terminal
from heretic_tui.preferences import read_preferences

T = TypeVar("T")
JSON_PROGRESS_EVERY = 1.0
"""Seconds between two progress objects."""
WIDE = 110
"""Columns from which a trial's line shows all its scores."""


def show_job(job: Job[T], *, as_json: bool) -> T:
    """Run a job to its end, showing what it tells; Ctrl+C stops it cleanly and raises `Interrupted`."""
    if as_json:
        return drive(job, json_lines())
    with _bars() as progress:
        return drive(job, Terminal(progress).show)


def drive(job: Job[T], show: Callable[[Event], None]) -> T:
    """Iterate a job. The first Ctrl+C (or a termination signal) closes it at its next event; a second is a hammer.

    Where the terminal is lost the job goes on without it, or ends after the trial under way, as the settings say.
    """
    asked = False
    last: type[Event] | None = None
    run: events.RunOpened | None = None

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def hang_up(*_: object) -> None:
        nonlocal last
        let_go_of_terminal()
        if read_preferences().on_hang_up == "stop":
            last = events.TrialFinished

    previous = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    terminal = has_terminal() and hasattr(signal, "SIGHUP")
    if terminal and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        while not asked:
            try:
                event = next(job)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            run = event if isinstance(event, events.RunOpened) else run
            try:
                show(event)
            except OSError as error:  # it can be seen before the signal comes
                if not (terminal and error.errno == errno.EIO):
                    raise
                hang_up()
            asked = asked or (last is not None and isinstance(event, last))
        job.close()
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
    raise Interrupted(_how_to_resume(run))


def _how_to_resume(run: events.RunOpened | None) -> str:
    if run is None:
        return "Interrupted; nothing was changed."
    folder = f" --runs-dir {run.path.parent}" if run.path.parent != _usual_runs_dir() else ""
    return f"Interrupted. All finished trials are saved. Go on with:\n  heretic-tui run --resume {run.run}{folder}"


def _usual_runs_dir() -> Path:
    from heretic_tui import paths

    return paths.runs_dir()


def json_lines() -> Callable[[Event], None]:
    """A listener that prints one JSON object a line, progress at most once a second."""
    shown = 0.0

    def show(event: Event) -> None:
        nonlocal shown
        if isinstance(event, events.Tick):
            return
        if isinstance(event, events.Progress):
            if time.monotonic() - shown < JSON_PROGRESS_EVERY:
                return
            shown = time.monotonic()
        sys.stdout.write(json_line(event.as_json()))
        sys.stdout.flush()

    return show


class _Rate(ProgressColumn):
    """Units a second of the phase."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        if not speed or not unit:
            return Text("")
        return Text(f"{size(speed)}/s" if unit == "B" else f"{speed:.3g} {unit}/s", style="cyan")


class _Amount(ProgressColumn):
    """How much of how much."""

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "B":
            return Text(size(task.completed) if task.total is None else f"{size(task.completed)}/{size(task.total)}")
        total = "" if task.total is None else f"/{task.total:.0f}"
        return Text(f"{task.completed:.0f}{total}")


@contextmanager
def _bars() -> Iterator[Progress]:
    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        _Amount(),
        _Rate(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal) as progress:
        yield progress


class Terminal:
    """Shows events for people: a bar for the phase, one for the study, and a line for what lasts."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.console = progress.console
        self.phase = progress.add_task("starting", total=None, unit="")
        self.study: TaskID | None = None
        self.run: Run | None = None
        self.facts: ModelFacts | None = None
        self.done = 0
        """Trials that are finished, by whichever worker."""

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case events.Progress():
                self._advance(event)
            case events.PhaseFinished():
                self._line(f"{event.phase:<18} {event.result}  ({duration(event.seconds)})")
            case events.Note():
                self._line(f"{event.level}: {event.text}", "yellow" if event.level == "warning" else "dim")
            case events.ModelLoaded():
                self._model(event)
            case events.RunOpened():
                self.run, self.done = Run(event.path), event.finished
                done = f", {event.finished} of {event.trials} trials done" if event.resumed else ""
                self._line(f"{'run':<18} {event.path}{done}")
            case events.BaselineMeasured():
                self._line(f"{'original model':<18} {_scores(event.scores)}")
            case events.TrialStarted():
                self._trial(event)
            case events.TrialFinished():
                self._finished_trial(event)
            case events.StudyFinished():
                self._finished_study(event)
            case events.GeometryMeasured() | events.Measured():
                self._measured(event)
            case events.Verified() | events.Exported() | events.Evaluated():
                self._written(event)
            case _:
                pass

    def _measured(self, event: events.GeometryMeasured | events.Measured) -> None:
        if isinstance(event, events.Measured):
            self._line(f"{'measured':<18} {event.prompts[0]} + {event.prompts[1]} prompts, kept in {event.path}")
            return
        geometry = kept_geometry(Run(event.path))
        if geometry is not None:
            self.console.print(geometry_table("residual vectors", geometry, pick_layers(geometry), self.console.width))

    def _line(self, text: str, style: str = "", *, whole: bool = False) -> None:
        """Print one line, broken between words on a terminal; a `whole` one, to be copied, is left to the terminal."""
        whole = whole or not self.console.is_terminal
        self.console.print(Text(plain(text), style=style), soft_wrap=whole)

    def _advance(self, event: events.Progress) -> None:
        phase = self.progress.tasks[self.progress.task_ids.index(self.phase)]
        name = plain(f"{event.phase} {event.detail}".strip())
        if phase.fields.get("name") != event.phase:
            self.progress.reset(self.phase, name=event.phase, unit=event.unit)
        self.progress.update(
            self.phase, description=name, completed=event.done, total=event.total, unit=event.unit, visible=True
        )

    def _model(self, event: events.ModelLoaded) -> None:
        facts = self.facts = event.facts
        self._line(f"{'model':<18} {facts.name}")
        self._line(
            f"{'':<18} {facts.architecture}, {facts.parameters / 1e6:.4g} M parameters, "
            f"{_loaded_as(facts)} on {facts.device}"
        )
        self._line(f"{'':<18} {facts.layers} layers of width {facts.width}")
        self._line(f"{'':<18} {facts.coverage}", "yellow" if facts.leaking else "")

    def _trial(self, event: events.TrialStarted) -> None:
        if self.study is None:
            self.study = self.progress.add_task("study", total=event.trials, completed=self.done, unit="trials")
        self.progress.update(self.study, completed=self.done, total=event.trials)

    def _finished_trial(self, event: events.TrialFinished) -> None:
        record = event.record
        self.done += 1
        mark = "  *" if event.on_front else "  early" if record.ended_early else ""
        self._line(
            f"trial {record.trial:>4}  {self._shown(record.scores)}  {_scope(record)}  "
            f"{duration(record.seconds):>6}{mark}",
            "bold" if event.on_front else "dim" if record.ended_early else "",
        )
        if self.study is not None:
            self.progress.update(self.study, completed=self.done)
        if self.run is not None and any(spec.print_responses for spec in self.run.profile.scorer_specs()):
            for response in self.run.responses(record.trial):
                self._line(f"  prompt:   {response.prompt}", "dim")
                self._line(f"  {response.label + ':':<9} {response.response}", "dim")

    def _shown(self, scores: Mapping[str, Score]) -> str:
        """The scores of one line: on a narrow terminal only those that the search optimizes."""
        if self.run is None or self.console.width >= WIDE:
            return _scores(scores)
        return _scores({spec.name: scores[spec.name] for spec in self.run.profile.objectives})

    def _finished_study(self, event: events.StudyFinished) -> None:
        self.progress.update(self.phase, visible=False)
        if self.study is not None:
            self.progress.update(self.study, visible=False)
        run = Run(event.path)
        self.console.print()
        self.console.print(front_table(run.records(), run.profile.objectives, run.base_scores() or {}))
        name = run.name if run.path.parent == _usual_runs_dir() else str(run.path)
        first = event.front[0] if event.front else 1
        self._line(f"{event.trials} trials in {duration(event.seconds)}. The run is kept in {event.path}")
        if event.timing:
            self._line(f"Where time went: {in_words(event.timing)}")
        self._line(f"Export a model:     heretic-tui export {name} --trial {first} --to DIR", whole=True)
        self._line(f"Export an adapter:  heretic-tui export {name} --trial {first} --to DIR --adapter", whole=True)
        self._line(f"Add more trials:    heretic-tui run --resume {name} --trials {event.trials + 50}", whole=True)

    def _written(self, event: events.Verified | events.Exported | events.Evaluated) -> None:
        match event:
            case events.Verified():
                self._verified(event)
            case events.Exported():
                self._exported(event)
            case events.Evaluated():
                self._line(f"{'base model':<18} {_scores(event.base_scores)}")
                self._line(f"{'evaluated model':<18} {_scores(event.scores)}")
                if event.trial_scores:
                    again = measured(event, event.trial_scores)
                    self._line(f"{'':<18} {again}")

    def _verified(self, event: events.Verified) -> None:
        self._line(
            f"{'verified':<18} {event.tensors} tensors: {event.changed} edited as computed, "
            f"{event.identical} bit for bit those of the model"
            + (f", {event.kept} of which the loaded class does not know" if event.kept else "")
        )
        if event.tied:
            self._line(f"{'':<18} {len(event.tied)} of the source's tensors are stored under the name that they share")
        if event.unknown:
            names = ", ".join(event.unknown[:3]) + (", ..." if len(event.unknown) > 3 else "")
            self._line(
                f"{'':<18} {len(event.unknown)} of the source's tensors are not in it, being unknown to "
                f"{self.facts.architecture if self.facts else 'the library'}: {names}",
                "yellow",
            )

    def _exported(self, event: events.Exported) -> None:
        self.progress.update(self.phase, visible=False)
        exact = "" if event.rank is None else f", rank {event.rank}, relative error {event.error:.2g}"
        what = "adapter" if event.form == "adapter" else "model"
        self._line(f"The {what} of trial {event.trial} is in {event.to} ({size(event.size)}{exact})")


def _loaded_as(facts: ModelFacts) -> str:
    return f"{facts.quantization} and {facts.dtype}" if facts.quantization else facts.dtype


def _scores(scores: Mapping[str, Score]) -> str:
    return "  ".join(f"{heading(name)} {score.text:>6}" for name, score in scores.items())


def _scope(record: TrialRecord) -> str:
    index, more = record.parameters.direction_index, record.parameters.subspace_dimensions - 1
    return f"{'per layer' if index is None else f'layer {index:4.1f}'}{f' +{more}' if more else ''}"
