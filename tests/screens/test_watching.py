"""A run that other processes work on, as the screens show it: who they are, how far they are, what they answer."""

import asyncio
import time

import pytest
from fakes import NASTY, fake_app, study, text_of, until

from heretic_tui.engine.events import PhaseFinished, RunOpened
from heretic_tui.engine.memory import MemoryReading
from heretic_tui.engine.runs.live import Live, Worker
from heretic_tui.engine.runs.ownership import Claim, Owner
from heretic_tui.engine.runs.requests import Asked, Request
from heretic_tui.engine.runs.run_log import Logged
from heretic_tui.following import Followed, News, Waiting, take
from heretic_tui.library import Known, RunReader
from heretic_tui.screens.models import shelf as model_shelf
from heretic_tui.state import LogLine

MEMORY = (MemoryReading("cuda:3", "Card", 6, 8), MemoryReading("host", "", 1, 8))


def made_worker(process=4711, host="gpu-box", live=None, ago=0.0) -> Worker:
    owner = Owner(host, "boot", process, "1", time.time() - 3700)
    now = time.time() - ago
    told = Live("cuda:3", 8, "trial 8", "decoding", "prompts", 30, 40, 2.0, MEMORY)
    return Worker(Claim(owner, now), live or told, now)


def watched(path, *workers, **fields):
    view = study(path, 7, wanted=40)
    take(News(workers, (), [], None), view)
    for name, value in fields.items():
        setattr(view, name, value)
    return view


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("study")
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


def shown(app, view):
    app.control.show(view)
    app.screen_stack[0].engine_changed(())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_who_works_on_it_how_far_and_when_heard_of(tmp_path, size):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", made_worker()))
        await until(pilot, lambda: "process 4711 on gpu-box works on it" in text_of(app))
        text = text_of(app)
        for words in ("cuda:3", "heard of ", "7/40 trials", "trial 8/40", "75%", "trial 8 decoding"):
            assert words in text, text
        if size[0] > 100:
            assert "(1 h " in text

    drive(app, steps, size)


def test_several_processes_and_a_silent_one(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", made_worker(ago=3000), made_worker(4712, "other", ago=4000)))
        await until(pilot, lambda: "2 processes work on it" in text_of(app))
        assert "heard of 50 min ago" in text_of(app)

    drive(app, steps, (120, 40))


def test_a_run_whose_process_died_says_so_and_how_to_go_on(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", died=(made_worker(),)))
        await until(pilot, lambda: "process 4711 on gpu-box died" in text_of(app))
        assert "dead: p resumes" in text_of(app)
        app.control.state.study.died = ()
        app.screen.engine_changed(())
        await until(pilot, lambda: "paused: p resumes" in text_of(app))
        assert "died" not in text_of(app)

    drive(app, steps)


@pytest.mark.parametrize(
    ("keys", "asked"),
    [(["p"], ("pause", None)), (["plus", "enter"], ("trials", 60)), (["e", "y"], ("end", 8))],
)
def test_keys_ask_the_process_that_works_on_it(tmp_path, monkeypatch, keys, asked):
    app = fake_app(tmp_path)
    calls = []
    monkeypatch.setattr(app.control, "ask", lambda path, *what: calls.append(what) or 1)

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", made_worker()))
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, lambda: calls)
        assert calls == [asked]
        assert not app.control.worker.busy

    drive(app, steps)


def test_that_nobody_works_on_it_any_more_is_told(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    monkeypatch.setattr(app.control, "ask", lambda path, *what: 0)

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", made_worker()))
        await pilot.press("p")
        await until(pilot, lambda: "Nobody works on this run any more." in [one.text for one in app.control.state.log])

    drive(app, steps)


def test_a_request_that_is_on_its_way_is_seen(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        worker = made_worker()
        app.control.state.waiting.append(Waiting(Asked(worker, Request("pause"), tmp_path / "x.pause")))
        shown(app, watched(tmp_path / "run", worker))
        await until(pilot, lambda: "asked to pause …" in text_of(app))

    drive(app, steps)


def test_its_log_is_that_of_the_run(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = watched(tmp_path / "run", made_worker())
        view.followed.log.append(LogLine(time.time(), "info", "told by the other process"))
        shown(app, view)
        await pilot.press("g")
        await until(pilot, lambda: "told by the other process" in text_of(app))

    drive(app, steps)


@pytest.mark.parametrize("nasty", NASTY)
def test_what_a_process_tells_is_data(tmp_path, nasty):
    app = fake_app(tmp_path)
    told = Live(nasty, 8, nasty, nasty, nasty, 1, 2, 2.0, (MemoryReading(nasty, nasty, 1, 2),))

    async def steps(pilot):
        shown(app, watched(tmp_path / "run", made_worker(host=nasty, live=told)))
        await until(pilot, lambda: "works on it" in text_of(app))
        assert not any(letter in text_of(app) for letter in "\x1b\x00\x07\x9b\u202e\r\t")
        if nasty.startswith("["):
            assert nasty in text_of(app)

    drive(app, steps, (120, 40))


def test_phases_before_the_first_trial_are_seen(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 0, wanted=40)
        view.followed = Followed()
        take(
            News((made_worker(live=Live("cpu", None, "residuals of good prompts", "", "", 1, 4)),), (), [], None), view
        )
        shown(app, view)
        await until(pilot, lambda: "… residuals of good prompts" in text_of(app))

    drive(app, steps)


def test_who_comes_to_help_does_not_wipe_away_what_the_first_one_has_done(tmp_path):
    view, path = study(tmp_path / "run", 0, wanted=40), tmp_path / "run"
    first, second = made_worker(), made_worker(process=4712)
    opened, loaded = RunOpened("run", path, False, 0, 40), PhaseFinished("model", 9.0, "30 layers")
    told = [Logged(1.0, event) for event in (opened, loaded, PhaseFinished("residuals", 5.0, "100 prompts"))]
    take(News((first,), (), told, None), view)
    take(News((first, second), (), [Logged(2.0, event) for event in (opened, loaded)], None), view)
    assert [(one.phase, one.seconds) for one in view.phases] == [("model", 9.0), ("residuals", 5.0)]
    take(News((second,), (), [Logged(3.0, opened)], None), view)
    assert view.phases == []


# What is running, offered


@pytest.fixture
def running(monkeypatch, tmp_path):
    """Runs that other processes work on; what is put in is found by the app."""
    found = {}
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "profile.toml").write_text("model = 'made/up-7B'\n")
    monkeypatch.setattr(RunReader, "running", lambda self, runs: dict(found))
    monkeypatch.setattr(model_shelf, "WATCH", 0.05)
    monkeypatch.setattr(model_shelf, "known_models", lambda: Known((), (), frozenset()))
    monkeypatch.setattr(model_shelf, "searched_models", lambda folders: iter(()))
    return found


def open_app(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_what_is_running_is_offered_and_is_a_key_away(tmp_path, running, monkeypatch, size):
    app = fake_app(tmp_path)
    opened = []
    monkeypatch.setattr(app, "open_run", opened.append)
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))

    async def steps(pilot):
        await until(pilot, lambda: "Runs 2" in text_of(app))
        assert "is running" not in text_of(app)
        running[one] = (made_worker(),)
        await until(pilot, lambda: "one is running · a: watch it · 0/200 trials · since" in text_of(app))
        await pilot.press("a")
        await until(pilot, lambda: opened == [one])

        running[two] = (made_worker(4712),)
        await until(pilot, lambda: "2 studies are running · a: watch one · one, two" in text_of(app))
        await pilot.press("a")
        await until(pilot, lambda: "Which run is to be watched?" in text_of(app))
        assert "process 4712 on gpu-box" in text_of(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: opened == [one, two])

        running.clear()
        await until(pilot, lambda: "running" not in text_of(app))
        await pilot.press("a")
        assert opened == [one, two]

    open_app(app, steps, size)


def test_beside_a_run_stands_who_works_on_it(tmp_path, running):
    app = fake_app(tmp_path)
    running[tmp_path / "runs" / "one"] = (made_worker(ago=3000),)

    async def steps(pilot):
        await until(pilot, lambda: "one is running" in text_of(app))
        app.screen.query_one("#runs").focus()
        app.screen.query_one("#runs").select(tmp_path / "runs" / "one")
        await until(pilot, lambda: "heard of 50 min ago" in text_of(app))
        for words in ("run by", "process 4711 on gpu-box, cuda:3", "(1 h ", "running, 0 of 200 trials"):
            assert words in text_of(app)

    open_app(app, steps, (120, 40))


def test_the_app_that_is_opened_for_a_run_begins_there(tmp_path):
    path = tmp_path / "runs" / "one"
    path.mkdir(parents=True)
    (path / "profile.toml").write_text("model = 'made/up-7B'\n")
    app = fake_app(tmp_path, {path: ()})

    async def steps(pilot):
        assert app.current_mode == "study"
        await until(pilot, lambda: "0/200 trials" in text_of(app))
        assert app.opening is None

    open_app(app, steps)


def test_a_run_that_cannot_be_opened_says_why(tmp_path):
    app = fake_app(tmp_path, {tmp_path / "gone": ()})

    async def steps(pilot):
        await until(pilot, lambda: any("gone" in line.text for line in app.control.state.log))
        assert "No run is open." in text_of(app)

    open_app(app, steps)


def test_the_app_that_is_opened_for_several_runs_asks_which(tmp_path):
    runs = {tmp_path / "runs" / name: (made_worker(),) for name in ("one", "two")}
    app = fake_app(tmp_path, runs)

    async def steps(pilot):
        await until(pilot, lambda: "Which run is to be watched?" in text_of(app))
        assert "one" in text_of(app)
        assert "two" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.current_mode == "models" and "Which" not in text_of(app))

    open_app(app, steps)
