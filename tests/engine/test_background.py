import threading
import time
from contextlib import suppress

import pytest
from tiny_models import run

from heretic_tui.engine.background import in_background
from heretic_tui.engine.events import Note, Progress, Tick


def worth_telling(events):
    return [event for event in events if not isinstance(event, Tick)]


def test_the_result_of_the_call_comes_back():
    assert run(in_background(lambda _: 42))[1] == 42


def test_a_call_that_returns_nothing_ends_too():
    assert run(in_background(lambda _: None))[1] is None


def test_what_the_call_reports_comes_through_in_order():
    def call(report):
        for done in range(100):
            report(Progress("load", done, 100))

    events, _ = run(in_background(call))
    assert worth_telling(events) == [Progress("load", done, 100) for done in range(100)]


def test_an_error_in_the_call_is_raised_by_the_job():
    def call(_):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        run(in_background(call))


def test_what_was_reported_before_an_error_is_not_lost():
    def call(report):
        report(Note("one"))
        raise ValueError("boom")

    job, events = in_background(call), []
    with pytest.raises(ValueError, match="boom"):
        events.extend(iter(lambda: next(job), None))
    job = in_background(call)
    assert worth_telling([next(job)]) == [Note("one")]
    job.close()


def test_a_silent_call_yields_ticks_so_that_the_job_can_be_stopped():
    release = threading.Event()
    job = in_background(lambda _: release.wait(30))
    assert next(job) == Tick()
    release.set()
    run(job)


def test_the_call_runs_on_a_daemon_thread():
    found = []
    run(in_background(lambda _: found.append(threading.current_thread())))
    assert found[0].daemon
    assert found[0] is not threading.current_thread()


def test_closing_the_job_abandons_the_call_at_its_next_report():
    ended = threading.Event()
    reports = []

    def call(report):
        try:
            while True:
                reports.append(None)
                report(Tick())
                time.sleep(0.001)
        finally:
            ended.set()

    job = in_background(call)
    next(job)
    job.close()
    assert ended.wait(10)
    count = len(reports)
    time.sleep(0.05)
    assert len(reports) == count


def test_a_call_cannot_swallow_being_abandoned_as_an_ordinary_error():
    ended = threading.Event()

    def call(report):
        try:
            while True:
                with suppress(Exception):  # as libraries do
                    report(Tick())
                time.sleep(0.001)
        finally:
            ended.set()

    job = in_background(call)
    next(job)
    job.close()
    assert ended.wait(10)


def test_closing_does_not_wait_for_the_call():
    release, ended = threading.Event(), threading.Event()

    def call(_):
        release.wait(60)
        ended.set()

    job = in_background(call)
    next(job)
    job.close()
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
