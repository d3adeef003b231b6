"""Jobs that need no model, run beside the engine."""

import asyncio
import threading
import time

import pytest
from fakes import fake_app, text_of, until

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.screens.inspector.part import Beside


def drive(app, steps):
    async def going():
        async with app.run_test() as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(going())


def test_its_result_arrives_on_the_screens_thread_and_its_progress_in_the_status_line(tmp_path):
    app = fake_app(tmp_path)
    found, threads, go = [], [], threading.Event()

    def job():
        threads.append(threading.current_thread())
        yield Progress("counting", 1, 4, "sheep")
        go.wait(10)
        yield PhaseFinished("counting", 1.0)
        return 42

    def done(result):
        found.append((result, threading.current_thread()))

    async def steps(pilot):
        told = []
        beside = Beside(app.screen, "count", job, done, told=told.append)
        await until(pilot, lambda: beside.activity.fraction == 0.25)
        await until(pilot, lambda: "counting" in text_of(app))
        go.set()
        await until(pilot, lambda: found)
        assert found == [(42, threading.current_thread())]
        assert threads[0] is not threading.current_thread()
        assert any(isinstance(event, PhaseFinished) for event in told)
        assert not app.control.state.beside

    drive(app, steps)


def test_stopping_closes_the_job_and_nothing_more_is_heard(tmp_path):
    app = fake_app(tmp_path)
    closed, done, failed = [], [], []

    def job():
        try:
            while True:
                yield Progress("forever", 1, None)
                time.sleep(0.01)
        finally:
            closed.append(True)

    async def steps(pilot):
        beside = Beside(app.screen, "forever", job, done.append, failed.append)
        await pilot.pause(0.1)
        beside.stop()
        await until(pilot, lambda: closed)
        await pilot.pause(0.1)
        assert not done
        assert not failed
        assert not app.control.state.beside

    drive(app, steps)


@pytest.mark.parametrize(
    ("error", "words"),
    [(EngineError("The disk is full.", "Free some space."), "disk is full"), (ValueError("[bold]x"), "bug")],
)
def test_a_failure_is_said_in_words_and_takes_nothing_down(tmp_path, error, words):
    app = fake_app(tmp_path)
    failed = []

    def job():
        yield Progress("failing", 1, 2)
        raise error

    async def steps(pilot):
        Beside(app.screen, "fail", job, lambda _: None, failed.append)
        await until(pilot, lambda: failed)
        assert words in str(failed[0])
        assert app.is_running

    drive(app, steps)


def test_a_second_job_of_the_same_title_leaves_the_firsts_progress_alone(tmp_path):
    app = fake_app(tmp_path)
    go = threading.Event()

    def job(result):
        yield Progress(f"number {result}", 1, 2)
        go.wait(10)
        return result

    async def steps(pilot):
        found = []
        first = Beside(app.screen, "same", lambda: job(1), found.append)
        await pilot.pause(0.05)
        first.stop()
        Beside(app.screen, "same", lambda: job(2), found.append)
        await pilot.pause(0.05)
        go.set()
        await until(pilot, lambda: found)
        assert found == [2]

    drive(app, steps)
