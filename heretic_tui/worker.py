"""The hatch between screen and engine: one daemon thread runs the jobs, a mailbox carries what they tell."""

import logging
import os
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from heretic_tui.engine.checkpoints.permissions import NotAllowed, What
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, Tick
from heretic_tui.engine.memory import out_of_memory, ran_out
from heretic_tui.masking import masked

if TYPE_CHECKING:
    from heretic_tui.engine.loading.session import Session

logger = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0005
"""Seconds between two thread switches: beside a busy engine thread the screen then waits under 1 ms instead of 5."""

NICENESS = 10
"""Of the engine's threads: they lose nothing while the screen has nothing to draw."""

Make = Callable[["Session"], Generator[Event, None, Any]]
"""What makes a job once the engine is free; it runs on the engine's thread, so it may import what it likes."""
Outcome = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: for people, and in `details` for whoever mends it."""

    cause: str
    remedy: str
    details: str
    asks: tuple[str, "What"] | None = None
    """The model that needs a yes, and to what, where that is all that is missing."""


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A job has left the queue."""

    title: str


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """A job is over; the engine is free for the next one."""

    title: str
    outcome: Outcome
    failure: Failure | None = None


class Mailbox:
    """Events on their way to the screen, in order; a replaceable one takes the place of its unread predecessor."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def put(self, event: Event) -> None:
        """Add an event; takes about a microsecond, from any thread."""
        if isinstance(event, Tick):
            return
        with self._lock:
            if self._closed:
                return
            if event.replaceable and self._events and type(self._events[-1]) is type(event):
                self._events[-1] = event
            else:
                self._events.append(event)

    def close(self) -> None:
        """Let everything fall that is put in from now on: nobody reads it any more."""
        with self._lock:
            self._closed = True
            self._events.clear()

    def take(self) -> list[Event]:
        """All unread events."""
        if not self._events:
            return []
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events


@dataclass(frozen=True, slots=True)
class _Request:
    title: str
    make: Make


class EngineWorker:
    """Runs jobs one at a time, in the order they were asked for, on a daemon thread that holds the loaded model."""

    def __init__(self, make_session: "Callable[[], Session] | None" = None) -> None:
        self.mailbox = Mailbox()
        self._make_session = make_session or _session
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = False
        self._turn = threading.Lock()
        """Held while a job comes or goes, so that nobody sees one without the other: what is told, and who is busy."""
        self._current: str | None = None
        self._last: type[Event] | None = None
        self._thread = self._start()

    @property
    def current(self) -> str | None:
        """The title of the job that runs, if one does."""
        return self._current

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return not self._idle.is_set()

    def submit(self, title: str, make: Make) -> None:
        """Queue a job."""
        with self._turn:
            self._idle.clear()
            self._requests.put(_Request(title, make))

    def stop(self) -> None:
        """Stop the job that runs at its next event; its `finally` blocks put everything in order."""
        if self._current is not None:
            self._stop.set()

    def close(self, timeout: float) -> bool:
        """Stop all work; returns whether the engine came to rest within `timeout` seconds."""
        self._closing = True
        self._requests.put(None)
        self._stop.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits, at most `timeout` seconds; returns whether that came true."""
        if not self._idle.wait(timeout):
            return False
        with self._turn:  # what the last job told is in the mailbox then
            return True

    def stop_at(self, kind: type[Event]) -> None:
        """Stop the job that runs as soon as it has told an event of this kind."""
        self._last = kind

    def revive(self) -> bool:
        """Start a new thread where the old one has died; returns whether it had. The loaded model is lost then."""
        if self._thread.is_alive():
            return False
        title = self._current
        self._current = None
        self._thread = self._start()
        if title is not None:
            failure = Failure("The engine's thread died.", "Load the model again; finished trials are saved.", "")
            self.mailbox.put(JobEnded(title, "failed", failure))
        return True

    def _start(self) -> threading.Thread:
        sys.setswitchinterval(SWITCH_INTERVAL)
        thread = threading.Thread(target=self._run, name="engine", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        _give_way()
        session: Session | None = None
        while (request := self._requests.get()) is not None:
            if self._closing:
                return
            self._current = request.title
            self._stop.clear()
            self.mailbox.put(JobStarted(request.title))
            outcome: Outcome = "done"
            failure = None
            try:
                session = session or self._make_session()
                outcome = self._perform(request.make(session))
            except BaseException as error:
                logger.exception("%s failed", request.title)
                outcome, failure = "failed", failure_of(error)
            with self._turn:
                self._current = None
                if self._requests.empty():
                    self._idle.set()
                self.mailbox.put(JobEnded(request.title, outcome, failure))

    def _perform(self, job: Generator[Event, None, Any]) -> Outcome:
        try:
            for event in job:
                self.mailbox.put(event)
                if self._stop.is_set() or self._closing or (self._last is not None and isinstance(event, self._last)):
                    return "stopped"
        finally:
            job.close()
        return "done"


def _give_way() -> None:
    """Let the screen's thread go first where both want a core.

    On Linux a thread has a niceness of its own, and the threads that it starts inherit it: torch's, too.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _session() -> "Session":
    from heretic_tui.engine.loading.session import Session

    return Session()


def failure_of(error: BaseException) -> Failure:
    """An exception as a failure: the engine's own errors speak for themselves, any other is a bug."""
    details = masked("".join(traceback.format_exception(error)))
    if isinstance(error, NotAllowed):
        return Failure(error.cause, error.remedy, details, (error.model, error.what))
    if isinstance(error, EngineError):
        return Failure(error.cause, error.remedy, details)
    if out_of_memory(error):
        told = ran_out(error)
        return Failure(told.cause, told.remedy, details)
    reason = masked(f"{type(error).__name__}: {error}").removesuffix(": ")
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "A file"
        return Failure(f"{where} could not be read or written: {error.strerror}.", "Check that it is there.", details)
    if type(error).__name__ == "ProfileError":
        return Failure(str(error), "Mend the profile and try again.", details)
    return Failure(f"Something unforeseen happened: {reason}.", "This is a bug; the log has its traceback.", details)
