"""What all screens have in common: keys, help, palette, themes, the status line, leaving."""

import asyncio

import pytest
from fakes import FACTS, NASTY, fake_app, run_job, study, text_of, until

from heretic_tui.app import HereticApp
from heretic_tui.control import Control
from heretic_tui.engine import events
from heretic_tui.engine.memory import MemoryReading
from heretic_tui.preferences import Preferences, read_preferences
from heretic_tui.widgets.status_line import Status, StatusLine
from heretic_tui.worker import EngineWorker


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


def app_with(tmp_path, **preferences) -> HereticApp:
    worker = EngineWorker(make_session=object)
    return HereticApp(Control(worker, Preferences(**preferences), tmp_path / "runs"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_every_screen_is_a_key_away_and_opens(tmp_path, size):
    app = fake_app(tmp_path)

    async def steps(pilot):
        for key, mode in zip("23456", ("profile", "study", "inspector", "chat", "export"), strict=True):
            await pilot.press(f"f{key}")
            await until(pilot, lambda mode=mode: app.current_mode == mode and app.screen.query(StatusLine))
            await until(pilot, lambda mode=mode: mode.capitalize() in text_of(app).splitlines()[0])

    drive(app, steps, size)


def test_the_engine_is_not_imported_to_look_around():
    import subprocess
    import sys

    code = """
import asyncio, sys
from pathlib import Path
from heretic_tui.app import make_app
from heretic_tui.preferences import Preferences
async def look():
    app = make_app(Path("runs"), Preferences())
    async with app.run_test() as pilot:
        for key in "23456":
            await pilot.press(f"f{key}")
            await pilot.pause()
asyncio.run(look())
print([name for name in ("torch", "transformers", "optuna", "peft") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_help_tells_the_keys_with_their_ids(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        await pilot.press("f3", "question_mark")
        await pilot.pause()
        text = app.screen.text
        assert "study.pause" in text
        assert "Pareto front" in text
        await pilot.press("escape")
        assert app.current_mode == "study"

    drive(app, steps)


def test_a_keymap_remaps_an_action_by_its_id(tmp_path):
    app = app_with(tmp_path, keys={"study.front": "w"})

    async def steps(pilot):
        app.control.show(study(tmp_path / "run"))
        await pilot.press("f3")
        await pilot.pause()
        await pilot.press("w")
        assert app.screen.front_only
        await pilot.press("f")
        assert app.screen.front_only

    drive(app, steps)


def test_the_palette_offers_actions_and_trials_by_name(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        app.control.show(study(tmp_path / "run"))
        await pilot.press("f3")
        await pilot.pause()
        await pilot.press("ctrl+p")
        await pilot.press(*"trial 11")
        await until(pilot, lambda: "Trial 11" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.control.trial == 11)
        await pilot.press("ctrl+p", *"front alone")
        await until(pilot, lambda: "Show the Pareto front alone" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.front_only)

    drive(app, steps, (120, 40))


def test_the_palette_finds_models_profiles_and_runs_by_name(tmp_path):
    from heretic_tui.demo import MODEL_DIR

    run = tmp_path / "runs" / "made-up--style--1"
    run.mkdir(parents=True)
    (run / "profile.toml").write_text('model = "made/up"\n', encoding="utf-8")
    app = fake_app(tmp_path)

    async def steps(pilot):
        await pilot.pause(0.3)
        for typed, found in (("made-up", "Run made-up--style--1"), ("heretic-1", "Profile heretic-1.4"),
                             ("demo-llama", f"Model {MODEL_DIR}")):  # fmt: skip
            await pilot.press("ctrl+p", *typed)
            await until(pilot, lambda found=found: found[:60] in text_of(app))
            await pilot.press("escape")
            await pilot.pause(0.2)

    drive(app, steps, (120, 40))


@pytest.mark.parametrize("theme", ["ember", "paper", "sixteen"])
def test_our_themes_colour_every_widget(tmp_path, theme):
    app = app_with(tmp_path, theme=theme)

    async def steps(pilot):
        assert app.theme == theme
        app.control.show(study(tmp_path / "run"))
        await pilot.press("f3")
        await until(pilot, lambda: "★" in text_of(app))

    drive(app, steps)


def test_a_theme_that_is_chosen_is_kept(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        await until(pilot, lambda: "paper" in app.available_themes)
        app.theme = "paper"
        await until(pilot, lambda: read_preferences().theme == "paper")

    drive(app, steps)


def test_a_theme_that_is_not_there_is_told_and_not_fatal(tmp_path):
    app = app_with(tmp_path, theme="nowhere")

    async def steps(pilot):
        assert app.theme == "ember"
        await until(pilot, lambda: any("nowhere" in line.text for line in app.control.state.log))

    drive(app, steps)


def test_leaving_asks_only_while_a_job_runs(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        run_job(app, forever=True)
        await until(pilot, lambda: app.control.worker.current is not None)
        await pilot.press("q")
        await until(pilot, lambda: "Stop the study and quit?" in text_of(app))
        await pilot.press("n")
        await until(pilot, lambda: app.is_running)
        app.control.stop()
        await until(pilot, lambda: not app.control.worker.busy)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)

    drive(app, steps)


def test_the_status_line_shows_model_engine_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("heretic_tui.engine.memory.read_memory", lambda: (MemoryReading("cuda:0", "x", 61, 100),))
    app = fake_app(tmp_path)

    async def steps(pilot):
        run_job(app, events.ModelLoaded(FACTS), forever=True)
        await until(pilot, lambda: "waiting 50%" in text_of(app) and "61%" in text_of(app))
        assert "up-7B · bf16 · cpu" in text_of(app)
        app.control.stop()

    drive(app, steps, (120, 24))


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("width", [20, 60, 140])
def test_the_status_line_shows_names_as_data_and_keeps_its_width(nasty, width, tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        line = app.screen.query_one(StatusLine)
        line.status = Status("study", nasty, nasty, nasty, "busy", 0.5, nasty)
        await pilot.pause()
        content = line.render()
        assert not any(letter in content.plain for letter in "\x1b\x00\x07\x9b\u202e\r\t\n")

    drive(app, steps, (width, 24))


@pytest.mark.parametrize("nasty", NASTY)
def test_notices_are_data(nasty, tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        app.warn(nasty)
        await until(pilot, lambda: any(toast.is_attached and toast.size for toast in app.screen.query("Toast")))
        await pilot.pause(0.2)
        assert not any(letter in text_of(app) for letter in "\x1b\x00\x07\x9b\u202e\r\t")
        if nasty.startswith("["):
            assert nasty in text_of(app)

    drive(app, steps, (120, 24))


def test_resizing_at_any_moment_loses_nothing(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        app.control.show(study(tmp_path / "run", 40))
        await pilot.press("f3")
        for size in ((30, 8), (200, 60), (10, 3), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await until(pilot, lambda: "40/40 trials" in text_of(app))

    drive(app, steps)
