"""Who works on a study, as the study screen tells it."""

import asyncio
import time
from dataclasses import replace

import pytest
from fakes import fake_app, record, study, text_of

from heretic_tui.engine.runs.live import Live, Worker
from heretic_tui.engine.runs.ownership import Claim, Owner, this_process
from heretic_tui.screens.study import crew, trials

NOW = time.time()
HERE = this_process()
FAR = Owner("gpu-2", "boot", 4711, "99", NOW)
DEAD = Owner("gpu-2", "boot", 12, "7", NOW)


def shared(path, count=8):
    """A study by three workers in turn, one of them dead by now."""
    view = study(path, count, wanted=40)
    names = [owner.name for owner in (HERE, FAR, DEAD)]
    for number, found in view.records.items():
        view.records[number] = replace(found, worker=names[number % 3], device=f"cuda:{number % 3}")
    view.crew = (worker(HERE, 1, "cuda:0"), worker(FAR, 3, "cuda:1"), worker(DEAD, 5000))
    return view


def worker(owner, ago, device=None):
    """A worker that was heard of so many seconds ago."""
    return Worker(Claim(owner, NOW - ago, float(ago)), device and Live(device), NOW - ago)


def test_every_worker_has_a_line_with_its_device_trials_speed_and_last_sign_of_life(tmp_path):
    heading, here, far, dead = crew.lines(shared(tmp_path), NOW)
    assert heading.split()[0] == "process"
    assert here.split()[0] == str(HERE.process)
    assert "cuda:0" in here
    assert here.split()[2] == "2"
    assert "● 1 s ago" in here
    assert far.startswith("4711 on gpu-2  ")
    assert far.split()[4:7] == ["3", "1.5", "s"]
    assert "died, 1 h 23 min ago" in dead


def test_who_shares_no_folder_is_there_as_long_as_the_study_has_a_trial_of_theirs(tmp_path):
    view = shared(tmp_path)
    together = view.seconds_left()
    view.crew = view.crew[:1]
    assert [line.endswith("has left") for line in crew.lines(view, NOW)] == [False, False, True, True]
    view.under_way = {FAR.name: 17, HERE.name: 16}
    assert crew.lines(view, NOW)[2].endswith("● at #17")
    assert crew.lines(view, NOW)[1].endswith("● 1 s ago")
    assert view.seconds_left() == together
    view.under_way = {"new-1-1": 3}
    assert crew.lines(view, NOW)[2].split() == ["1", "on", "new", "0", "●", "at", "#3"]


def test_what_is_left_takes_the_less_time_the_more_work_on_it(tmp_path):
    view = shared(tmp_path)
    together = view.seconds_left()
    view.crew = ()
    assert together == view.seconds_left() / 2


def test_a_run_that_was_only_resumed_is_nobody_s_but_its_own(tmp_path):
    view = study(tmp_path, 8)
    for number, found in view.records.items():
        view.records[number] = replace(found, worker=f"box-{1 + number // 4}-1")
    assert crew.lines(view, NOW) == []
    assert "by" not in [column.title for column in trials.columns(view)]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_screen_lists_the_workers_where_there_is_room_or_when_asked(tmp_path, size):
    app = fake_app(tmp_path)

    async def run():
        async with app.run_test(size=size) as pilot:
            app.switch_mode("study")
            await pilot.pause()
            app.control.show(shared(tmp_path / "run"))
            app.screen_stack[0].engine_changed(())
            await pilot.pause()
            roomy = size[1] >= 30
            assert ("4711 on gpu-2" in text_of(app)) is roomy
            await pilot.press("w")
            await pilot.pause()
            assert ("4711 on gpu-2" in text_of(app)) is not roomy

    asyncio.run(run())


def test_a_worker_s_name_is_data(tmp_path):
    app = fake_app(tmp_path)
    view = shared(tmp_path / "run")
    nasty = "[bold]\x1b[31mhost-1-2"
    view.records[1] = record(1, 3, 0.1, worker=nasty)

    async def run():
        async with app.run_test(size=(120, 40)) as pilot:
            app.switch_mode("study")
            await pilot.pause()
            app.control.show(view)
            app.screen_stack[0].engine_changed(())
            await pilot.pause()
            assert "[bold]\\x1b[31mhost" in text_of(app)

    asyncio.run(run())


def test_a_pause_of_the_run_in_this_process_reaches_the_other_workers(tmp_path):
    from fakes import FACTS, run_job, until

    from heretic_tui.engine import events

    app = fake_app(tmp_path)
    asked = []
    app.control.ask = lambda *what: asked.append(what) or 1
    path = tmp_path / "run"

    async def run():
        async with app.run_test(size=(120, 40)) as pilot:
            app.switch_mode("study")
            await pilot.pause()
            app.control.state.studies[path] = shared(path)
            run_job(app, events.ModelLoaded(FACTS), events.RunOpened("run", path, True, 8, 40), forever=True)
            await until(pilot, lambda: app.screen_stack[0].live)
            await pilot.press("p")
            await until(pilot, lambda: asked == [(path, "pause", None)] and not app.control.worker.busy)

    asyncio.run(run())
