"""Pictures of every screen, in three sizes and in each of our themes.

A picture that differs fails its test, and `snapshot_report.html` shows both. Look at them, and only then take the new
ones with `pytest tests/screens/test_snapshots.py --snapshot-update`.
"""

from pathlib import Path

import numpy as np
import pytest
from fakes import BASE, FACTS, fake_app, study, until
from made_up_tokens import Engine
from measured import ROWS, ablated, measured_run, planted
from textual.widgets import Input, TextArea

from heretic_tui.engine.inspection.projection import Projection, projection_path, save_projection
from heretic_tui.engine.inspection.residual_sets import fingerprint, residuals_path
from heretic_tui.engine.memory import MemoryReading
from heretic_tui.engine.records import Label, Response
from heretic_tui.engine.runs.run import Run
from heretic_tui.exports import Place
from heretic_tui.screens.inspector.projection import ProjectionPart
from heretic_tui.screens.inspector.tokens import TokensPart
from heretic_tui.screens.study.responses import Pages, ResponsesScreen
from heretic_tui.widgets.projection_plot import ProjectionPlot
from heretic_tui.widgets.token_text import TokenText

SIZES = [(80, 24), (120, 40), (200, 60)]
THEMES = ["paper", "sixteen"]
INSPECTOR = {
    "inspector": "c",
    "inspector-similarity": "s",
    "inspector-projection": "p",
    "inspector-tokens": "t",
    "inspector-difference": "d",
    "inspector-table": "g",
}
"""The inspector's views, and the key of each."""
SCREENS = ["models", "profile", "study", "responses", *INSPECTOR, "chat", "export"]
READINGS = (MemoryReading("cuda:0", "Card 9000", 14_200_000_000, 24_000_000_000), MemoryReading("host", "", 9, 64))
RESPONSES = [
    Response("made-up set", "Capital of the moon?", "I'm sorry, I cannot say.", "eos", Label.REFUSAL, "sorry"),
    Response("made-up set", "Name a river.", "The Danube, which flows into the Black Sea.", "length", Label.ANSWER),
    Response("made-up set", "数一数 three lakes", "la la la la la la", "eos", Label.DEGENERATE),
]
CLOUD = np.random.default_rng(0).standard_normal((4, ROWS - 1, 20, 2)).astype(np.float32)
CLOUD[:, :, :, 0] += np.array([-4, 4, -4, -3], np.float32)[:, None, None]
POINTS = Projection(*CLOUD)


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The app with a run of forty trials, fixed memory readings, and nothing else that changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("heretic_tui.engine.memory.read_memory", lambda: READINGS)
    pages = Pages(7, RESPONSES, RESPONSES, {1: Label.REFUSAL}, BASE, BASE)
    monkeypatch.setattr("heretic_tui.screens.study.responses.read_pages", lambda study, trial: pages)
    place = Place(Path("/models/made-up"), "A new folder.", free=80_000_000_000)
    monkeypatch.setattr("heretic_tui.screens.export.screen.look_at", lambda text, source: place)
    monkeypatch.setattr("heretic_tui.app.GAUGE", 1000)  # one reading: the history must not grow with the time it takes
    monkeypatch.setattr(Input, "cursor_blink", False)
    monkeypatch.setattr(TextArea, "cursor_blink", False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    app = fake_app(tmp_path)
    app.control.state.model = FACTS
    app.control.show(study(tmp_path / "made-up-7B--style--1", 40, wanted=60))
    return app


def open_screen(app, name):
    async def run(pilot):
        if name in INSPECTOR:
            await open_inspector(app, pilot, INSPECTOR[name])
            return
        await pilot.pause()
        app.switch_mode("study" if name == "responses" else name)
        await pilot.pause(0.4)
        if name == "responses":
            app.push_screen(ResponsesScreen(app.control.state.study, 7))
            await pilot.pause(0.2)
        await app.workers.wait_for_complete()
        await pilot.pause(0.3)

    return run


async def open_inspector(app, pilot, key):
    """One of the inspector's views of a run, with a trial beside the original model."""
    sets = planted()
    run = Run(measured_run(app.control.state.shown, sets, trial_7=ablated(sets)))
    marks = [fingerprint(residuals_path(run, state)) for state in (0, 7)]
    save_projection(projection_path(run, 7), POINTS, marks)
    Engine(app, sets.width)
    app.control.trial = 7
    app.switch_mode("inspector")
    state = app.control.state
    await until(pilot, lambda: state.inspection is not None and state.inspection.change is not None)
    await until(pilot, lambda: all(one.geometry.whole for one in state.inspection.readings.values()))
    await pilot.press(key)
    screen = app.screen_stack[0]
    await until(pilot, lambda: screen.whole or (screen.part is not None and screen.part.inspection is not None))
    if isinstance(screen.part, TokensPart) and not screen.whole:
        screen.part.read_prompt("a prompt")
        await until(pilot, lambda: screen.part.query_one(TokenText).tokens)
    if isinstance(screen.part, ProjectionPart) and not screen.whole:
        await until(pilot, lambda: screen.part.projection is not None)
        await until(pilot, lambda: not any(plot.moving for plot in screen.part.query(ProjectionPlot)))
    await pilot.pause(0.5)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
def test_every_screen_in_every_size(snap_compare, app, name, size):
    assert snap_compare(app, terminal_size=size, run_before=open_screen(app, name))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", SCREENS)
def test_every_screen_in_every_theme(snap_compare, app, name, theme):
    app._wear(theme)
    assert snap_compare(app, terminal_size=(120, 40), run_before=open_screen(app, name))
