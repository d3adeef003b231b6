"""Drawing: axes with round ticks, points where they belong, the front as a staircase."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heretic_tui.widgets.axes import label, scale_for
from heretic_tui.widgets.canvas import Canvas
from heretic_tui.widgets.layer_weights import levels
from heretic_tui.widgets.scatter import Cloud, Point, Scatter
from heretic_tui.widgets.status_line import bar

numbers = st.floats(-1e6, 1e6)


def drawn(points, width=50, height=14, selected=None, **options):
    scatter = Scatter()
    scatter.cloud, scatter.selected = Cloud(tuple(points), "KL, nats", "refusals", **options), selected
    return str(scatter._drawn(width, height)), scatter._places


def test_less_is_lower_and_further_left():
    _, places = drawn([Point(1, 0.1, 90), Point(2, 0.2, 10), Point(3, 0.05, 50)])
    assert places[3][0] < places[1][0] < places[2][0]
    assert places[1][1] < places[3][1] < places[2][1]


def test_front_selection_early_and_original_look_different_without_colour():
    points = [Point(1, 0.1, 90), Point(2, 0.2, 10, "front"), Point(3, 0.3, 50, "early"), Point(0, 0.0, 99, "original")]
    text, _ = drawn([*points, Point(4, 0.05, 20, "front")], selected=4)
    assert all(sign in text for sign in "·★▵○◆")


def test_axes_carry_their_titles_and_round_ticks():
    text, _ = drawn([Point(1, 0.1, 90), Point(2, 0.42, 10)])
    assert "refusals" in text
    assert "KL, nats" in text
    assert "50" in text.replace("\n", " ").split() or "50┤" in text


def test_values_over_many_sizes_are_drawn_by_their_logarithm():
    text, places = drawn([Point(1, 0.0001, 1), Point(2, 0.01, 2), Point(3, 1.0, 3)])
    assert math.isclose(places[2][0] - places[1][0], places[3][0] - places[2][0], abs_tol=1)
    assert "0.01" in text


@example([(0.0, 5e-324)], 12, 9)
@given(st.lists(st.tuples(st.floats(allow_nan=True, allow_infinity=True), numbers), max_size=30), st.integers(1, 90),
       st.integers(1, 40))  # fmt: skip
def test_no_set_of_points_breaks_the_picture(points, width, height):
    text, places = drawn([Point(n, x, y) for n, (x, y) in enumerate(points, 1) if x == x], width, height)
    assert len(text.splitlines()) <= height
    assert all(0 <= x < width and 0 <= y < height for x, y in places.values())


@example([5e-324], 2, True)
@example([-5e-324, 1e-310], 2, False)
@example([9804.0, 1e-05], 2, False)
@given(st.lists(numbers, min_size=1, max_size=20), st.integers(2, 12), st.booleans())
def test_ticks_lie_on_the_scale_and_are_not_too_many(values, most, logarithmic):
    scale = scale_for(values, logarithmic=logarithmic)
    ticks = scale.ticks(most)
    assert len(ticks) <= most + 2
    slack = 1e-6 + 1e-8 * (scale.high - scale.low)  # a rounding of the step is nothing that can be seen
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    assert all(0 <= scale.share(value) <= 1 for value in values)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.05, "0.05"), (20, "20"), (1e-4, "1e-4"), (0.001, "0.001"), (1e6, "1e6")]
)
def test_ticks_are_written_short(value, text):
    assert label(value) == text


def test_a_line_is_drawn_in_braille_dots_and_a_character_covers_it():
    canvas = Canvas(4, 1)
    canvas.line(0, 0, 4, 0, "line")
    canvas.put(1, 0, "x", "mark")
    assert str(canvas) == "⠉x⠉⠉"


@given(st.lists(st.floats(0, 1.5), min_size=1, max_size=200), st.integers(1, 80))
def test_layers_that_share_a_bar_show_the_largest(weights, width):
    shown = levels(weights, width)
    assert len(shown) == min(width, len(weights))
    assert max(shown) == max(weights)


@given(st.floats(-1, 2), st.integers(1, 20))
def test_a_bar_has_always_its_width(fraction, width):
    assert len(bar(fraction, width)) == width
