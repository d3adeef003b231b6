"""The list widget: a cursor, columns that fit, and cells that are data."""

import asyncio

import pytest
from fakes import NASTY, text_of
from rich.cells import cell_len
from textual.app import App

from heretic_tui.widgets.rows import Column, Row, Rows


class Shown(App):
    def __init__(self, *columns, empty=""):
        super().__init__()
        self.columns, self.empty, self.said = columns, empty, []

    def compose(self):
        yield Rows(*self.columns, empty=self.empty)

    def on_rows_moved(self, event):
        self.said.append(("moved", event.key))

    def on_rows_chosen(self, event):
        self.said.append(("chosen", event.key))


def numbered(count):
    return [Row(n, (str(n), f"row {n}")) for n in range(count)]


def drive(app, steps, size=(40, 10)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await steps(app.query_one(Rows), pilot)

    asyncio.run(run())


def test_the_cursor_moves_by_keys_and_stays_inside():
    app = Shown(Column("n", 4), Column("text"))

    async def steps(rows, pilot):
        rows.show(numbered(30))
        await pilot.press("down", "down", "up", "end", "down", "enter")
        assert rows.key == 29
        assert "row 29" in text_of(app)
        await pilot.press("home")
        assert rows.key == 0
        assert ("chosen", 29) in app.said

    drive(app, steps)


def test_the_cursor_stays_on_its_row_when_others_come_and_go():
    app = Shown(Column("n", 4), Column("text"))

    async def steps(rows, pilot):
        rows.show(numbered(5))
        rows.select(3)
        rows.show([Row(9, ("9", "new")), *numbered(5)])
        assert rows.key == 3
        rows.show(numbered(2))
        assert rows.key == 1
        rows.show([])
        assert rows.key is None

    drive(app, steps)


def test_a_click_selects_and_a_double_click_chooses():
    app = Shown(Column("n", 4), Column("text"))

    async def steps(rows, pilot):
        rows.show(numbered(5))
        await pilot.click(Rows, offset=(3, 3))
        assert rows.key == 2
        await pilot.click(Rows, offset=(3, 3), times=2)
        assert ("chosen", 2) in app.said

    drive(app, steps)


@pytest.mark.parametrize("nasty", NASTY)
def test_cells_are_data_and_columns_stay_straight(nasty):
    app = Shown(Column("a", 12), Column("b", 6, "right"), Column("c"))

    async def steps(rows, pilot):
        rows.show([Row(1, (nasty, "12", nasty)), Row(2, ("plain", "12", "plain"))])
        await pilot.pause()
        lines = [strip.text for strip in (rows.render_line(1), rows.render_line(2))]
        assert all(cell_len(line) == cell_len(lines[1]) for line in lines)
        assert not any(letter in lines[0] for letter in "\x1b\x00\x07\x9b\u202e\n\r\t")
        for line in lines:  # the second column ends at the same cell
            before = line[: line.index("12") + 2] if "12" in line else ""
            assert cell_len(before) == 12 + 1 + 6

    drive(app, steps)


def test_long_text_is_cut_with_a_sign():
    app = Shown(Column("text"))

    async def steps(rows, pilot):
        rows.show([Row(1, ("x" * 100,))])
        assert rows.render_line(1).text.rstrip().endswith("…")

    drive(app, steps)


def test_columns_that_matter_least_go_first_where_room_is_short():
    app = Shown(Column("one", 10), Column("two", 10, drop=1), Column("three", 10, drop=2))

    async def steps(rows, pilot):
        rows.show([Row(1, ("a", "b", "c"))])
        assert rows.render_line(0).text.split() == ["one", "two"]

    drive(app, steps, size=(24, 5))


def test_an_empty_list_says_what_to_do():
    app = Shown(Column("text"), empty="Nothing yet.\n\nPress d for the demo.")

    async def steps(rows, pilot):
        assert "Press d for the demo." in text_of(app)

    drive(app, steps)


def test_ten_thousand_rows_draw_no_more_lines_than_are_seen():
    app = Shown(Column("n", 6), Column("text"))

    async def steps(rows, pilot):
        drawn = []
        original = rows._line
        rows._line = lambda cells, widths: drawn.append(1) or original(cells, widths)
        rows.show(numbered(10_000))
        await pilot.pause()
        assert 0 < len(drawn) <= 2 * 10

    drive(app, steps)
