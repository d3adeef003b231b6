"""The inspector over runs whose vectors are made up."""

import asyncio
import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fakes import NASTY, fake_app, run_job, study, text_of, until
from measured import ROWS, ablated, measured_run, planted
from textual.widgets import Input

from heretic_tui.control import MEASURE, STUDY
from heretic_tui.engine import events
from heretic_tui.engine.inspection.geometry import COLUMNS
from heretic_tui.engine.inspection.leak import Leak, save_leak
from heretic_tui.engine.inspection.residual_sets import ResidualSets, save_residual_sets
from heretic_tui.engine.inspection.sensitivity import Sensitivity, Variant
from heretic_tui.formats import one_line
from heretic_tui.inspections import read_inspection
from heretic_tui.screens.dialogs import Ask, Confirm, Pick, Text
from heretic_tui.screens.inspector import sensitivity as inspector_sensitivity
from heretic_tui.widgets.curves import Curves
from heretic_tui.widgets.heatmap import Heatmap
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.wide_rows import WideRows

SIZES = [(80, 24), (120, 40), (200, 60)]
VIEWS = {"c": "curves", "s": "similarity", "d": "difference", "v": "sensitivity"}


@pytest.fixture(autouse=True)
def true_colour(monkeypatch):
    """Widgets look the same whatever terminal the tests run in."""
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def drive(app, steps, size=(80, 24), run=None, trial=None):
    """Open the inspector, on a run if one is given, and take some steps."""

    async def going():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            if run is not None:
                app.control.show(study(run))
                app.control.trial = trial
            app.switch_mode("inspector")
            await pilot.pause()
            if run is not None:
                await until(pilot, lambda: app.control.state.inspection is not None or screen(app).problem is not None)
                await pilot.pause()
            await steps(pilot)

    asyncio.run(going())


def screen(app):
    return app.screen_stack[0]


def inspection(app):
    return app.control.state.inspection


def notices(app):
    return " ".join(notice.message for notice in app._notifications)


def front(app):
    """The words in the view's panel, as one line."""
    area = screen(app).query_one("#front").content_region
    lines = text_of(app).split("\n")[area.y : area.bottom]
    return " ".join(" ".join(line[area.x : area.right] for line in lines).split())


async def finished(pilot):
    """Wait until nothing is computed beside the engine."""
    await until(pilot, lambda: not pilot.app.control.state.beside)
    await pilot.pause()


def test_without_a_run_it_says_what_to_press(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        assert "No run is open" in text_of(app)
        assert "m  measure the model" in text_of(app)
        await pilot.press("m")
        await until(pilot, lambda: "No model is loaded" in notices(app))
        assert not app.control.worker.busy

    drive(app, steps)


def test_a_loaded_model_without_a_run_is_measured(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    asked = []
    monkeypatch.setattr(app.control, "measure", lambda *what: asked.append(what))
    app.control.model_name = "made/up"

    async def steps(pilot):
        await pilot.press("m")
        assert asked == [(None, 0)]

    drive(app, steps)


def test_a_measured_model_is_opened_as_a_run(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "runs" / "made-up--demo--1", planted())

    async def steps(pilot):
        event = events.Measured(path.name, path, 0, (20, 20), ROWS, 32, 9)
        run_job(app, event, title=MEASURE)
        await until(pilot, lambda: inspection(app) is not None)
        await until(pilot, lambda: app.control.state.shown == path)
        await until(pilot, lambda: "S(g,b)" in text_of(app))

    drive(app, steps)


def test_a_run_without_vectors_offers_to_measure_them(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run")
    asked = []
    monkeypatch.setattr(app.control, "measure", lambda *what: asked.append(what))

    async def steps(pilot):
        text = text_of(app)
        assert "keeps no residual vectors" in text
        assert "m in the inspector" in " ".join(text.split())
        await pilot.press("m")
        assert asked == [(path, 0)]
        save_residual_sets(path / "residuals.safetensors", planted())
        event = events.Measured(path.name, path, 0, (20, 20), ROWS, 32, 9)
        run_job(app, event, title=MEASURE)
        await until(pilot, lambda: inspection(app).original is not None)
        await until(pilot, lambda: "cosine of the means" in text_of(app))

    drive(app, steps, run=path)


@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_every_size(tmp_path, size):
    app = fake_app(tmp_path)
    sets = planted()
    path = measured_run(tmp_path / "run", sets, trial_7=ablated(sets))

    async def steps(pilot):
        await finished(pilot)
        for key, name in VIEWS.items():
            await pilot.press(key)
            await until(pilot, lambda name=name: f"─ {name}" in text_of(app))
        await pilot.press("g")
        await until(pilot, lambda: "S(g*,b*)" in text_of(app))
        await pilot.press("escape", "c")
        await pilot.pause()
        text = text_of(app)
        assert "★" in text
        assert "best first" in text
        assert "S(g,b)" in text

    drive(app, steps, size, run=path, trial=7)


def test_the_layer_is_one_selection_in_list_table_and_view(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        table, row = screen(app).query_one("#table", Rows), inspection(app).row
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.focused, Heatmap))
        heatmap = app.focused
        assert heatmap.column == table.key == row
        await pilot.press("left")
        assert heatmap.column == table.key == inspection(app).row == row - 1
        await pilot.press("right_square_bracket")
        assert table.key == row
        await pilot.press("up")
        assert (heatmap.row, heatmap.column) == (row - 1, row)
        await pilot.press("escape", "up")
        assert heatmap.column == table.key == row - 1
        await pilot.press("g")
        await pilot.pause()
        full = screen(app).query_one(WideRows)
        assert app.focused is full
        assert full.key == row - 1
        await pilot.press("down", "enter")
        assert inspection(app).row == row
        assert not screen(app).whole

    drive(app, steps, run=path)


def test_the_whole_table_scrolls_sorts_and_keeps_the_layer_column(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        await finished(pilot)
        await pilot.press("g")
        await pilot.pause()
        full = screen(app).query_one(WideRows)
        assert full.hidden[0] == 0
        assert full.hidden[1] > 0
        for _ in COLUMNS:
            full.action_column(1)
        await pilot.pause()
        text = text_of(app)
        assert full.hidden[1] == 0
        assert "layer" in text
        assert "leak" in text
        assert "a weight was missed" not in text.split("\n")[-1]
        full.column = 1 + [column.key for column in COLUMNS].index("norm_r")
        await pilot.press("o")
        await pilot.pause()
        lengths = [row.norm_r for row in inspection(app).shown.geometry.rows]
        assert [row.key for row in full.rows] == list(np.argsort(lengths)[::-1])
        assert "▼|r|" in full.columns[full.column].title
        await pilot.press("o")
        await until(pilot, lambda: [row.key for row in full.rows] == list(np.argsort(lengths)))
        await pilot.press("o")
        await until(pilot, lambda: [row.key for row in full.rows] == list(range(ROWS)))

    drive(app, steps, run=path)


def test_the_legend_says_what_columns_marks_and_rows_are(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, Text))
        for column in COLUMNS:
            assert column.meaning in app.screen.text
        assert "counted from 0" in app.screen.text
        assert "count 4 : 2 : 1" in app.screen.text

    drive(app, steps, run=path)


def test_medians_and_silhouettes_come_later_and_are_kept(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        await finished(pilot)
        assert inspection(app).shown.geometry.whole
        assert "…" not in "".join(screen(app).query_one("#table", Rows).rows[5].cells)

    drive(app, steps, run=path)
    kept = json.loads((path / "inspection" / "geometry-0000.json").read_text(encoding="utf-8"))
    assert kept["whole"]
    assert read_inspection(path).readings[0].geometry.whole


def test_what_is_computed_can_be_stopped_and_does_not_begin_again(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    def forever(*_):
        while True:
            yield events.Progress("geometry", 1, ROWS, "layers")

    monkeypatch.setattr("heretic_tui.screens.inspector.desk.whole_geometry", forever)

    async def steps(pilot):
        await until(pilot, lambda: "● geometry" in text_of(app))
        await pilot.press("x")
        await finished(pilot)
        screen(app).engine_changed(())
        await pilot.pause(0.4)
        assert not app.control.state.beside
        assert "● geometry" not in text_of(app)
        assert not inspection(app).shown.geometry.whole

    drive(app, steps, run=path)


def test_before_and_after_changes_with_a_key_and_the_difference_is_said(tmp_path):
    app = fake_app(tmp_path)
    sets = planted()
    path = measured_run(tmp_path / "run", sets, trial_7=ablated(sets))

    async def steps(pilot):
        await finished(pilot)
        before = inspection(app).shown.geometry.rows[10].norm_r
        assert "original model" in text_of(app)
        await pilot.press("b")
        await until(pilot, lambda: inspection(app).number == 7)
        assert inspection(app).shown.geometry.rows[10].norm_r < before / 10
        assert "Trial 7" in text_of(app)
        assert "′ original model" in text_of(app)
        await pilot.press("d")
        await until(pilot, lambda: "the direction is gone in layers 5 to 11" in front(app))
        await pilot.press("b")
        await until(pilot, lambda: inspection(app).number == 0)

    drive(app, steps, (120, 40), run=path, trial=7)


def test_a_trial_is_chosen_from_the_front_and_measured(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    asked = []
    monkeypatch.setattr(app.control, "measure", lambda *what: asked.append(what))

    async def steps(pilot):
        await pilot.press("T")
        await until(pilot, lambda: isinstance(app.screen, Pick))
        trial = app.screen.query_one(Rows).key
        assert trial in app.control.state.study.on_front
        await pilot.press("enter")
        await until(pilot, lambda: inspection(app).trial == trial)
        await until(pilot, lambda: f"trial {trial} were not measured yet" in front(app))
        await pilot.press("m")
        assert asked == [(path, trial)]

    drive(app, steps, (120, 40), run=path)


def test_measuring_again_asks_first(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    asked = []
    monkeypatch.setattr(app.control, "measure", lambda *what: asked.append(what))

    async def steps(pilot):
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        assert not asked
        await pilot.press("m")
        await pilot.pause()
        await pilot.press("y")
        assert asked == [(path, 0)]

    drive(app, steps, run=path)


def test_while_a_study_runs_looking_works_and_measuring_is_refused_in_words(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    asked = []
    monkeypatch.setattr(app.control, "measure", lambda *what: asked.append(what))

    async def steps(pilot):
        run_job(app, title=STUDY, forever=True)
        await until(pilot, lambda: app.control.worker.current == STUDY)
        await until(pilot, lambda: inspection(app).shown.geometry.whole)
        app.control.model_name = "made/up"
        await pilot.press("M")
        await until(pilot, lambda: "Pause it first: 3, then p" in notices(app))
        assert not asked
        app.control.stop()

    drive(app, steps, (120, 40), run=path)


def test_vectors_that_are_no_numbers_are_named_by_their_place(tmp_path):
    app = fake_app(tmp_path)
    sets = planted()
    sets.bad[4, 6, 3] = np.nan
    path = measured_run(tmp_path / "run", sets)

    async def steps(pilot):
        for key in ("c", "s", "d"):
            await pilot.press(key)
            await pilot.pause()
            text = front(app)
            assert "first at layer 5, bad prompt 5" in text
            assert "bfloat16" in text
        await pilot.press("g", "e", "b", "left", "x")
        await pilot.pause()

    drive(app, steps, (120, 40), run=path)


def test_identical_sets_show_everywhere_that_there_is_no_direction(tmp_path):
    app = fake_app(tmp_path)
    sets = planted()
    path = measured_run(tmp_path / "run", ResidualSets(sets.good, sets.good.copy()), trial_7=planted(seed=1))

    async def steps(pilot):
        await finished(pilot)
        await until(pilot, lambda: "No layer is picked" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "no direction" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "there was no direction to begin with" in text_of(app))
        await pilot.press("l")
        await until(pilot, lambda: "there is no direction between them" in app.screen.text)

    drive(app, steps, (120, 40), run=path, trial=7)


def test_one_prompt_a_set_is_enough_to_look_at(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted(prompts=1))

    async def steps(pilot):
        await finished(pilot)
        charts = screen(app).query_one(Curves).charts
        assert charts[1].empty == "needs two prompts of each set"
        for key in ("s", "d", "v", "g"):
            await pilot.press(key)
        await until(pilot, lambda: "S(g*,b*)" in text_of(app))

    drive(app, steps, run=path)


def test_a_trial_of_another_width_is_refused_with_both_widths(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted(), trial_7=planted(width=48))

    async def steps(pilot):
        await pilot.press("b")
        await pilot.pause()
        text = front(app)
        assert "12 layers of width 48 against 12 of width 32" in text

    drive(app, steps, (120, 40), run=path, trial=7)


def test_a_damaged_file_is_said_and_the_screen_goes_on(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    (path / "residuals.safetensors").write_bytes(b"nonsense")

    async def steps(pilot):
        assert "is damaged" in front(app)

    drive(app, steps, (120, 40), run=path)


def test_the_geometry_is_written_where_it_is_wanted_and_nothing_is_replaced_unasked(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    target = tmp_path / "out"

    async def export(pilot, folder):
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        app.screen.query_one(Input).value = str(folder)
        await pilot.press("enter")

    async def steps(pilot):
        await finished(pilot)
        await pilot.press("g")
        await export(pilot, target)
        await until(pilot, (target / "geometry.json").is_file)
        rows = list(csv.DictReader((target / "geometry.csv").open(encoding="utf-8")))
        assert [row["layer"] for row in rows] == ["in", *map(str, range(ROWS - 1))]
        (target / "geometry.csv").write_text("mine", encoding="utf-8")
        await export(pilot, target)
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        assert (target / "geometry.csv").read_text(encoding="utf-8") == "mine"
        (tmp_path / "file").write_text("", encoding="utf-8")
        await export(pilot, tmp_path / "file")
        await until(pilot, lambda: "Could not" in notices(app) or "cannot be used" in notices(app))

    drive(app, steps, (120, 40), run=path)


def test_each_view_has_files_of_its_own(tmp_path):
    app = fake_app(tmp_path)
    sets = planted()
    path = measured_run(tmp_path / "run", sets, trial_7=ablated(sets))

    async def steps(pilot):
        await finished(pilot)
        names = set()
        for key in VIEWS:
            await pilot.press(key)
            await until(pilot, lambda: screen(app).part is not None and screen(app).part.ready)
            await pilot.pause()
            for file in screen(app).part.files():
                names.add(file.name)
                assert file.text()
        assert {"geometry.csv", "geometry-trial-0007.json", "similarity.csv", "difference-trial-0007.csv"} <= names

    drive(app, steps, run=path, trial=7)


def test_sensitivity_is_read_shown_and_measured_by_its_own_job(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    ways = [Variant(name, "meant so", tuple([1.0] * ROWS)) for name in ("as measured", f"position -2 {NASTY[0]!r}")]
    found = [None, Sensitivity(tuple(ways), 64)]
    monkeypatch.setattr(inspector_sensitivity, "read_sensitivity", lambda _: found.pop(0))
    asked = []
    monkeypatch.setattr(app.control, "inspect", lambda title, run, job: asked.append((title, run)))

    async def steps(pilot):
        await pilot.press("v")
        await until(pilot, lambda: "This was not measured for this run yet" in front(app))
        await pilot.press("m")
        assert asked == [("sensitivity", path)]
        run_job(app, title="sensitivity")
        await until(pilot, lambda: "64 prompts of each set" in text_of(app) and "as measured: meant" in text_of(app))
        assert "[bold red]" in text_of(app)
        curves = screen(app).query_one("#ways-curves", Curves)
        curves.focus()
        await pilot.press("down")
        assert "other positions" in curves.chart.title

    drive(app, steps, (120, 40), run=path)


def test_what_leaks_stands_in_the_table(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())
    save_leak(path / "inspection" / "leak-0000.json", Leak((0.5,) * (ROWS - 1), (0.125,) * (ROWS - 1)))

    async def steps(pilot):
        assert "0.125" in text_of(app)

    drive(app, steps, (120, 40), run=path)


@pytest.mark.parametrize("nasty", NASTY[:5])
def test_foreign_names_show_as_typed(tmp_path, nasty):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / one_line(nasty).replace("/", "|"))

    async def steps(pilot):
        assert "keeps no residual vectors" in front(app)
        assert "\x1b" not in text_of(app)

    drive(app, steps, (200, 60), run=path)


def test_another_run_takes_the_place_of_the_first_one(tmp_path):
    app = fake_app(tmp_path)
    first = measured_run(tmp_path / "first", planted())
    second = measured_run(tmp_path / "second", planted(rows=7))

    async def steps(pilot):
        assert inspection(app).rows == ROWS
        app.control.show(study(second))
        screen(app).engine_changed(())
        await until(pilot, lambda: inspection(app).path == second)
        await until(pilot, lambda: len(screen(app).query_one("#table", Rows).rows) == 7)

    drive(app, steps, run=first)


def test_a_click_in_the_curves_and_the_heatmap_chooses_the_layer(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        await finished(pilot)
        curves = screen(app).query_one(Curves)
        _, columns = curves._columns[0]
        await pilot.click(Curves, offset=(columns[2], 3))
        await until(pilot, lambda: inspection(app).row == 2)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.focused, Heatmap))
        _, wide, _ = app.focused._measures()
        await pilot.click("#own", offset=(app.focused._left + 9 * wide, 1))
        await until(pilot, lambda: inspection(app).row == 9)

    drive(app, steps, run=path)


def test_few_colours_leave_the_heatmap_readable(tmp_path, monkeypatch):
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm")
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.focused, Heatmap))
        await pilot.pause()
        text = text_of(app)
        assert "██" in text
        assert "◆" in text
        assert "▀" not in text

    drive(app, steps, run=path)


def test_a_reading_needs_neither_torch_nor_a_screen(tmp_path):
    path = measured_run(tmp_path / "run", planted())
    code = (
        "import sys; from pathlib import Path; from heretic_tui.inspections import read_inspection; "
        f"found = read_inspection(Path({str(path)!r})); assert found.original is not None; "
        "assert not {'torch', 'textual', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_stays_selected_when_the_run_is_read_again(tmp_path):
    app = fake_app(tmp_path)
    path = measured_run(tmp_path / "run", planted())

    async def steps(pilot):
        screen(app).go(2)
        again = replace(inspection(app), row=9)
        screen(app)._opened(again)
        assert inspection(app).row == 2

    drive(app, steps, run=path)
