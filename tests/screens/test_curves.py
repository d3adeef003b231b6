"""Curves and heatmaps as drawings: what stands where, without a screen."""

import asyncio

import numpy as np
import pytest
from textual.app import App

from heretic_tui.widgets.curves import PICKED, Chart, Curves, Line
from heretic_tui.widgets.heatmap import Heatmap, _blocks
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.widgets.shades import shade
from heretic_tui.widgets.wide_rows import WideRows

NAMES = ("in", *(str(layer) for layer in range(9)))


def curves(*charts: Chart, width=60, height=16, picked=(), chosen=0):
    widget = Curves()
    widget.charts, widget.names, widget.picked, widget.chosen = charts, NAMES, frozenset(picked), chosen
    return widget, str(widget._drawn(width, height)).split("\n")


def line(name="one", values=None, **options):
    return Line(name, tuple(range(10)) if values is None else values, **options)


def test_a_rising_line_goes_up_and_its_name_stands_at_its_end():
    _, lines = curves(Chart("rises", (line(),)))
    assert lines[0].startswith("rises")
    first = next(number for number, text in enumerate(lines) if "one" in text)
    assert first == 1
    assert "⠤" not in lines[1][:30]
    assert lines[-1].split() == ["0", "2", "4", "6", "8"] or "0" in lines[-1]


def test_lines_that_end_together_keep_their_names():
    values = tuple([1.0] * 10)
    _, lines = curves(Chart("same", (line("good", values), line("bad", values), line("third", values))))
    text = "\n".join(lines)
    assert all(name in text for name in ("good", "bad", "third"))


def test_marks_tell_lines_apart_where_they_meet():
    values = tuple([1.0] * 10)
    chart = Chart("same", (line("good", values, glyph="○"), line("bad", values, glyph="▲")))
    _, lines = curves(chart)
    text = "\n".join(lines)
    assert "○" in text
    assert "▲" in text


def test_picked_rows_have_a_star_under_the_axis_at_their_place():
    widget, lines = curves(Chart("one", (line(),)), picked=(4,))
    _, columns = widget._columns[0]
    assert lines[-2][columns[4]] == PICKED


def test_without_figures_a_chart_says_why():
    _, lines = curves(Chart("silhouette", (), empty="being computed …"))
    assert any("being computed" in text for text in lines)


def test_missing_and_endless_figures_are_gaps():
    values = (None, float("nan"), float("inf"), 1.0, None, 2.0, 3.0, -float("inf"), 4.0, None)
    _, lines = curves(Chart("gaps", (line("gap", values),)))
    assert any("gap" in text for text in lines)


def test_figures_that_spread_far_have_a_logarithmic_scale():
    values = tuple(10.0**power for power in range(10))
    assert Chart("wide", (line("w", values),), logarithmic=True).scale().logarithmic
    assert not Chart("zero", (line("z", (0.0, *values)),), logarithmic=True).scale().logarithmic
    assert not Chart("narrow", (line("n", (1.0, 2.0)),), logarithmic=True).scale().logarithmic


@pytest.mark.parametrize(("size", "count"), [((60, 16), 1), ((60, 40), 3), ((130, 50), 6), ((3, 2), 0)])
def test_as_many_charts_as_there_is_room_for(size, count):
    charts = [Chart(f"chart {number}", (line(),)) for number in range(6)]
    widget, _ = curves(*charts, width=size[0], height=size[1])
    assert len(widget._columns) == count


def test_the_chosen_chart_is_always_in_sight():
    charts = [Chart(f"chart {number}", (line(),)) for number in range(6)]
    _, lines = curves(*charts, chosen=4)
    assert "▸ chart 4" in lines[0]


def heatmap(values, *, size=(50, 20), environment=None):
    """A heatmap on a screen of its own; gives the widget and its lines."""

    class Host(App):
        def compose(self):
            yield Heatmap("nothing", id="map")

    async def going():
        app = Host()
        async with app.run_test(size=size) as pilot:
            widget = app.query_one(Heatmap)
            widget.show(values, tuple(str(number) for number in range(len(values))), 2)
            await pilot.pause()
            await pilot.press("tab", "down")
            await pilot.pause()
            lines = ["".join(segment.text for segment in widget.render_line(y)) for y in range(widget.size.height)]
            return widget, lines, [widget.render_line(y) for y in range(widget.size.height)]

    return asyncio.run(going())


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_cursor_has_the_value_of_its_cell(colours):
    values = np.arange(36, dtype=float).reshape(6, 6) / 36
    widget, lines, _ = heatmap(values)
    assert (widget.row, widget.column) == (1, 2)
    assert widget.value == pytest.approx(8 / 36)
    assert any("1▸" in text for text in lines)
    assert any("▴2" in text for text in lines)
    assert any("◆" in text for text in lines)


def test_equal_values_have_equal_colours_and_opposite_ones_different(colours):
    values = np.array([[1.0, -1.0, 0.0]] * 3)
    _, _, strips = heatmap(values, size=(8, 6))
    cells = [segment.style.color for segment in strips[0]._segments if "▀" in segment.text]
    assert len(set(cells)) >= 3


def test_more_layers_than_lines_are_drawn_as_blocks(colours):
    values = np.eye(90)
    widget, lines, _ = heatmap(values, size=(60, 20))
    assert sum("▀" in text for text in lines) == 15  # 90 layers by three, in half lines
    assert len(lines) <= 20
    assert widget.value == 0.0


def test_blocks_leave_out_what_is_no_number():
    values = np.array([[1.0, np.nan], [0.5, 0.0]])
    assert _blocks(values, 2)[0, 0] == pytest.approx(0.5)
    assert np.isnan(_blocks(np.full((2, 2), np.nan), 2)[0, 0])


def test_few_colours_make_characters(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM", raising=False)
    values = np.array([[1.0, -1.0, 0.0], [0.5, -0.5, 0.2], [np.nan, 0.9, 0.9]])
    _, lines, _ = heatmap(values)
    assert "█" in lines[0]
    assert "#" in lines[0]
    assert "▀" not in "".join(lines)


def test_no_colours_make_characters(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, lines, _ = heatmap(np.eye(4))
    assert "▀" not in "".join(lines)


def test_nothing_to_draw_is_said(colours):
    _, lines, _ = heatmap(np.zeros((0, 0)))
    assert lines[0].startswith("nothing")


def test_the_shade_tells_size_and_sign():
    assert [shade(value) for value in (0.0, 0.2, 0.4, 0.6, 1.0)] == [" ", "░", "▒", "▓", "█"]
    assert [shade(value) for value in (-0.2, -0.4, -0.6, -1.0)] == ["-", "=", "≡", "#"]
    assert shade(float("nan")) == " "


def test_the_first_columns_stay_and_the_chosen_one_comes_in_sight():
    columns = [Column("layer", 5), *(Column(f"c{number}", 8) for number in range(12))]

    class Host(App):
        def compose(self):
            yield WideRows(*columns)

    async def going():
        app = Host()
        async with app.run_test(size=(40, 10)) as pilot:
            rows = app.query_one(WideRows)
            rows.show([Row(0, ("in", *(str(number) for number in range(12))))])
            await pilot.pause()
            for _ in range(11):
                rows.action_column(1)
            head = "".join(segment.text for segment in rows.render_line(0))
            body = "".join(segment.text for segment in rows.render_line(1))
            assert head.split()[0] == "layer"
            assert head.split()[-1] == "c11"
            assert body.split()[0] == "in"
            assert body.split()[-1] == "11"
            left, right = rows.hidden
            assert left > 0
            assert right == 0
            for _ in range(20):
                rows.action_column(-1)
            assert rows.column == 1
            assert rows.hidden[0] == 0

    asyncio.run(going())
