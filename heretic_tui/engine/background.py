"""Blocking calls as generators of events, so that a job stays interruptible while one runs."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from heretic_tui.engine.events import Event, Tick

T = TypeVar("T")

Job = Generator[Event, None, T]
"""A job: a generator of events that ends with a result."""

Report = Callable[[Event], None]
HEARTBEAT = 0.2
"""Seconds between two yields of a call that reports nothing."""
GRACE = 1.0
"""Seconds that closing a job waits for its call to notice and to clean up after itself."""


class Abandoned(BaseException):
    """Raised inside a background call, at its next report, when the job that started it was closed."""


def in_background(call: Callable[[Report], T], pulse: Callable[[], Event] = Tick, grace: float = GRACE) -> Job[T]:
    """Run `call` on a daemon thread, yield the events it reports (and a `pulse` now and then) and return its result.

    Closing the generator abandons the call: its next report raises `Abandoned` inside it. A call that is long in
    reporting outlives the job, so it must own what it writes to; `grace` is how long closing waits for it.
    """
    reports: queue.SimpleQueue[Event] = queue.SimpleQueue()
    abandoned = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def report(event: Event) -> None:
        if abandoned.is_set():
            raise Abandoned
        reports.put(event)

    def work() -> None:
        try:
            results.append(call(report))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            failures.append(error)
        finally:
            reports.put(Tick())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive() or not reports.empty():
            try:
                yield reports.get(timeout=HEARTBEAT)
            except queue.Empty:
                yield pulse()
    finally:
        abandoned.set()
        thread.join(grace)
    if failures:
        raise failures[0]
    return results[0]
