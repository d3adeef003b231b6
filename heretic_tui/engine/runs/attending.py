"""A job of a run under the eyes of others: it gives signs of life, keeps a log, tells what it is at, hears requests."""

from typing import TypeVar

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, ModelLoaded, Note, TrialFinished
from heretic_tui.engine.runs.live import Announcer
from heretic_tui.engine.runs.ownership import Pulse, this_process
from heretic_tui.engine.runs.requests import Listener
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.stopping import why
from heretic_tui.formats import json_line

T = TypeVar("T")


def attended(run: Run, job: Job[T], device: str = "") -> Job[T]:
    """Pass a job's events on as signs of life, keep those that last in the run's log, and hear requests to pause."""
    pulse, announcer, listener = Pulse(run.path), Announcer(run.path, device), Listener(run.path)
    name = this_process().name

    def kept(event: Event) -> Event:
        # A trial stands once in the log, as the worker tells it that ran it.
        others = isinstance(event, TrialFinished) and event.record.worker not in {"", name}
        # What the model is stands in the run's folder.
        if not event.replaceable and not others and not isinstance(event, ModelLoaded):
            run.log(json_line(event.as_json()).rstrip())
        return event

    try:
        while True:
            pulse.beat()
            for request in listener.requests():
                yield kept(Note(request.told))
                if request.kind == "pause":
                    raise EngineError("The run was paused from another process.", f"Go on with: --resume {run.name}")
            try:
                event = kept(next(job))
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except Exception as error:
                told = why(run, error)
                if told is error:
                    raise
                raise told from error
            announcer.tell(event)
            yield event
    finally:
        job.close()
        announcer.end()
