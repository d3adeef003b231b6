"""The inspector's projection: empty, computing, flowing, compared, written to files."""

import asyncio
import time

import numpy as np
import pytest
from fakes import fake_app, study, text_of, until
from measured import ROWS, ablated, measured_run, planted
from textual.widgets import Input

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress, Tick
from heretic_tui.engine.inspection import projection as projections
from heretic_tui.engine.inspection.projection import Projection, projection_path, save_projection
from heretic_tui.engine.runs.run import Run
from heretic_tui.screens.inspector.projection import COMPUTING, ProjectionPart
from heretic_tui.widgets.projection_plot import BAD, BOTH, GOOD, NONE, ProjectionPlot, sorted_cells

PROMPTS = 20
LAYERS = ROWS - 1


def points(shift, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((LAYERS, PROMPTS, 2)) + np.array([shift, 0])).astype(np.float32)


ALONE = Projection(points(-5), points(5, 1))
BOTH_STATES = Projection(points(-5), points(5, 1), points(-5, 2), points(-4, 3))


def keep(path, projection, trial=0):
    run = Run(path)
    save_projection(projection_path(run, trial), projection, projections._marks(run, trial))


def drive(app, path, steps, size=(80, 24), trial=None):
    """Open the view of a run, and take some steps."""

    async def going():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.control.show(study(path))
            app.control.trial = trial
            app.switch_mode("inspector")
            await until(pilot, lambda: app.control.state.inspection is not None)
            app.screen.action_view("projection")
            await until(pilot, lambda: app.screen.part is not None and app.screen.part.ready)
            await until(pilot, lambda: app.screen.part._known)
            await pilot.pause()
            await steps(pilot, app.screen.part)

    asyncio.run(going())


@pytest.fixture
def app(tmp_path):
    return fake_app(tmp_path)


@pytest.fixture
def run(tmp_path):
    return measured_run(tmp_path / "run", planted())


def test_without_points_it_says_what_to_press_and_computes(app, run, monkeypatch):
    monkeypatch.setattr(projections, "project", lambda *_: (yield from [Progress("p", 1, 2, "layers")]) or ALONE)

    async def steps(pilot, part):
        assert "enter  compute it (about" in text_of(pilot.app)
        await pilot.press("enter")
        await until(pilot, lambda: part.projection is not None)
        await until(pilot, lambda: "20 good" in text_of(pilot.app))
        assert "PaCMAP" in text_of(pilot.app)
        assert isinstance(pilot.app.focused, ProjectionPart)
        assert projection_path(Run(run)).is_file()

    drive(app, run, steps)


def test_escape_stops_the_computation(app, run, monkeypatch):
    closed = []

    def endless(*_):
        try:
            while True:
                yield Progress("p", 1, 12, "layers")
                time.sleep(0.02)
        finally:
            closed.append(True)

    monkeypatch.setattr(projections, "project", endless)

    async def steps(pilot, part):
        await pilot.press("enter")
        await until(pilot, lambda: "esc  stops it" in text_of(pilot.app))
        part.action_stop()
        await until(pilot, lambda: closed)
        await pilot.pause()
        assert COMPUTING not in pilot.app.control.state.beside
        assert "enter  compute it" in text_of(pilot.app)
        assert not projection_path(Run(run)).is_file()

    drive(app, run, steps)


def test_a_failure_is_said_and_can_be_tried_again(app, run, monkeypatch):
    def failing(*_):
        yield Tick()
        raise EngineError("The [bold]disk[/] is full.", "Free some space.")

    monkeypatch.setattr(projections, "project", failing)

    async def steps(pilot, part):
        await pilot.press("enter")
        await until(pilot, lambda: "[bold]disk[/]" in " ".join(one.message for one in pilot.app._notifications))
        assert "enter  compute it" in text_of(pilot.app)

    drive(app, run, steps)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_both_sets_are_seen_in_shapes_of_their_own(app, run, size):
    keep(run, ALONE)

    async def steps(pilot, part):
        lines = str(pilot.app.screen.query_one(ProjectionPlot)._lines)
        assert any(glyph in lines for glyph in "◦○●")
        assert any(glyph in lines for glyph in "▵△▲")
        plot = pilot.app.screen.query_one(ProjectionPlot)
        half = plot.size.width // 2
        good = [line.text[:half] for line in plot._lines]
        bad = [line.text[half:] for line in plot._lines]
        assert not set("".join(good)) & set("▵△▲")
        assert not set("".join(bad)) & set("◦○●")

    drive(app, run, steps, size)


def test_points_flow_to_the_layer_that_is_chosen_and_then_rest(app, run):
    keep(run, ALONE)

    async def steps(pilot, part):
        plot = pilot.app.screen.query_one(ProjectionPlot)
        row = part.inspection.row
        assert plot.index == row - 1
        assert not plot.moving
        pilot.app.screen.action_layer(-1)
        assert plot.moving
        assert plot.index == row - 2
        await until(pilot, lambda: not plot.moving)
        assert np.array_equal(plot._now[0], ALONE.good[row - 2])

    drive(app, run, steps)


def test_space_plays_round_and_stops(app, run):
    keep(run, ALONE)

    async def steps(pilot, part):
        pilot.app.screen.go(ROWS - 1)
        for _ in range(4):
            part.action_speed(1)
        seen = set()
        await pilot.press("space")
        assert "playing 4x" in part.title
        await until(pilot, lambda: seen.add(part.inspection.row) or {1, 2} <= seen)
        part.action_stop()
        row = part.inspection.row
        await pilot.pause(0.6)
        assert part.inspection.row == row
        assert "playing" not in part.title

    drive(app, run, steps)


def test_nothing_moves_that_is_not_seen(app, run):
    keep(run, ALONE)

    async def steps(pilot, part):
        plot = pilot.app.screen.query_one(ProjectionPlot)
        part.action_play()
        await until(pilot, lambda: plot.moving)
        pilot.app.switch_mode("study")
        await until(pilot, lambda: not plot.moving and not part.playing)

    drive(app, run, steps)


def test_the_stream_into_the_model_has_no_points_of_its_own(app, run):
    keep(run, ALONE)

    async def steps(pilot, part):
        pilot.app.screen.go(0)
        await until(pilot, lambda: "shown: layer 0" in text_of(pilot.app))

    drive(app, run, steps, (120, 40))


@pytest.mark.parametrize(("size", "seen"), [((80, 24), 1), ((120, 40), 2)])
def test_two_states_stand_side_by_side_where_there_is_room(app, tmp_path, size, seen):
    sets = planted()
    path = measured_run(tmp_path / "run", sets, trial_7=ablated(sets))
    keep(path, BOTH_STATES, 7)

    async def steps(pilot, part):
        plots = list(pilot.app.screen.query(ProjectionPlot))
        assert [plot.size.width > 0 for plot in plots].count(True) == seen
        if seen == 2:
            assert np.array_equal(plots[0].flow.corners, plots[1].flow.corners)
            assert "trial 7" in text_of(pilot.app)
        else:
            pilot.app.screen.action_side()
            await until(pilot, lambda: [plot.size.width > 0 for plot in plots] == [False, True])

    drive(app, path, steps, size, trial=7)


def test_export_asks_where_and_says_where(app, run, tmp_path, monkeypatch):
    keep(run, ALONE)
    asked = []

    def drawing(projection, look, folder):
        asked.append((projection.layers, folder))
        yield Tick()
        return (folder / "layer_001.png", folder / "animation.gif")

    monkeypatch.setattr("heretic_tui.engine.inspection.pictures.draw", drawing)

    async def steps(pilot, part):
        await pilot.press("e")
        await until(pilot, lambda: list(pilot.app.screen.query(Input)))
        assert "plots" in pilot.app.screen.query_one(Input).value
        pilot.app.screen.query_one(Input).value = str(tmp_path / "[bold]there[/]")
        await pilot.press("enter")
        await until(pilot, lambda: "[bold]there[/]" in " ".join(one.message for one in pilot.app._notifications))
        assert asked == [(LAYERS, tmp_path / "[bold]there[/]")]

    drive(app, run, steps)


def test_a_cell_belongs_to_whom_most_of_its_points_do():
    good, bad = np.array([[0, 1, 3, 9, 0, 6]]), np.array([[0, 0, 2, 1, 2, 1]])
    kinds, levels = sorted_cells(good, bad)
    assert kinds.tolist() == [[NONE, GOOD, BOTH, GOOD, BAD, GOOD]]
    assert levels.tolist() == [[0, 0, 2, 2, 1, 2]]
