"""The engine's thread and its mailbox."""

import sys
import threading
import time
import tracemalloc

import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Progress, Tick
from heretic_tui.worker import EngineWorker, JobEnded, JobStarted, Mailbox


@pytest.fixture
def worker():
    worker = EngineWorker(make_session=object)
    yield worker
    worker.close(5)


def said(worker):
    assert worker.wait(10)
    return worker.mailbox.take()


def test_a_job_is_announced_heard_and_ended(worker):
    worker.submit("talk", lambda session: iter_of(Note("one"), Note("two")))
    assert said(worker) == [JobStarted("talk"), Note("one"), Note("two"), JobEnded("talk", "done")]


def test_jobs_run_one_after_the_other(worker):
    for name in ("a", "b", "c"):
        worker.submit(name, lambda session, name=name: iter_of(Note(name)))
    assert [event.text for event in said(worker) if isinstance(event, Note)] == ["a", "b", "c"]


def test_all_jobs_share_one_session():
    made = []

    def make():
        made.append(object())
        return made[-1]

    worker = EngineWorker(make_session=make)
    seen = []
    for _ in range(3):
        worker.submit("look", lambda session: iter_of(seen.append(session) or Note("")))
    said(worker)
    worker.close(5)
    assert len(made) == 1
    assert len(set(map(id, seen))) == 1


def test_a_stopped_job_runs_its_finally_and_the_next_one_follows(worker):
    tidied = threading.Event()

    def endless(session):
        try:
            while True:
                yield Progress("on and on", 1, None)
                time.sleep(0.001)
        finally:
            tidied.set()

    worker.submit("endless", endless)
    until(lambda: worker.current == "endless")
    worker.stop()
    worker.submit("next", lambda session: iter_of(Note("here")))
    events = said(worker)
    assert tidied.is_set()
    assert JobEnded("endless", "stopped") in events
    assert Note("here") in events


def test_stopping_when_nothing_runs_does_not_stop_the_next_job(worker):
    worker.stop()
    worker.submit("talk", lambda session: iter_of(Note("one"), Note("two")))
    assert said(worker)[-1] == JobEnded("talk", "done")


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (EngineError("The disk is full.", "Free some space."), "The disk is full.", "Free some space."),
        (ValueError("odd"), "Something unforeseen happened: ValueError: odd.", "This is a bug"),
        (KeyboardInterrupt(), "Something unforeseen happened: KeyboardInterrupt.", "This is a bug"),
        (SystemExit(3), "Something unforeseen happened: SystemExit: 3.", "This is a bug"),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), "x.txt could not be read", "Check"),
    ],
)
def test_a_job_that_fails_says_why_and_leaves_the_engine_usable(worker, error, cause, remedy):
    def fails(session):
        yield Note("begun")
        raise error

    worker.submit("fails", fails)
    worker.submit("next", lambda session: iter_of(Note("here")))
    events = said(worker)
    failure = next(event.failure for event in events if isinstance(event, JobEnded) and event.outcome == "failed")
    assert failure.cause.startswith(cause)
    assert failure.remedy.startswith(remedy)
    assert "Traceback" in failure.details
    assert events[-1] == JobEnded("next", "done")


def test_a_job_that_cannot_even_be_made_fails_like_any_other(worker):
    worker.submit("unmade", lambda session: 1 / 0)
    assert said(worker)[-1].outcome == "failed"


def test_a_dead_thread_is_noticed_and_replaced():
    worker = EngineWorker(make_session=object)
    worker._requests.put(0)  # what no job can do: kill the loop itself
    until(lambda: not worker._thread.is_alive())
    assert worker.revive()
    assert not worker.revive()
    worker.submit("talk", lambda session: iter_of(Note("alive")))
    assert Note("alive") in said(worker)
    worker.close(5)


def test_closing_stops_what_runs_and_drops_what_waits():
    worker = EngineWorker(make_session=object)
    ran = []

    def endless(session):
        while True:
            yield Progress("on", 1, None)

    worker.submit("endless", endless)
    worker.submit("waiting", lambda session: iter_of(ran.append(1) or Note("")))
    until(lambda: worker.current == "endless")
    assert worker.close(5)
    assert not ran


def test_unread_progress_is_replaced_by_newer_progress_and_nothing_else_is_lost():
    box = Mailbox()
    for event in [Progress("a", 1, 3), Progress("a", 2, 3), Tick(), Note("kept"), Progress("a", 3, 3), Tick()]:
        box.put(event)
    assert box.take() == [Progress("a", 2, 3), Note("kept"), Progress("a", 3, 3)]
    assert box.take() == []


def test_a_flood_of_progress_takes_no_memory():
    box = Mailbox()
    tracemalloc.start()
    for number in range(20_000):
        box.put(Progress("flood", number, None))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 100_000
    assert len(box.take()) == 1


def test_the_engine_gives_way_to_the_screen(worker):
    assert sys.getswitchinterval() < 0.001


def iter_of(*events):
    yield from events


def until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
