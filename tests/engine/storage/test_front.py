import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.storage.front import hypervolume, pareto_front
from heretic_tui.engine.storage.studies import ForeignObjective

OBJECTIVES = [ForeignObjective("a", "A", "minimize"), ForeignObjective("b", "B", "minimize")]


def records(points):
    return [
        TrialRecord(trial, AblationParameters(None, {}), {"a": Score(x), "b": Score(y)}, 1.0)
        for trial, (x, y) in enumerate(points, start=1)
    ]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(1.0, 1.0)], 4.0),
        ([(0.0, 0.0)], 9.0),
        ([(1.0, 2.0), (2.0, 1.0)], 3.0),
        ([(1.0, 2.0), (2.0, 1.0), (2.0, 2.0), (1.0, 2.0)], 3.0),
        ([(3.0, 0.0), (0.0, 3.0), (5.0, -9.0)], 0.0),
        ([(math.nan, 0.0), (0.0, math.nan), (-math.inf, 1.0), (1.0, 1.0), (math.inf, 0.0)], 4.0),
    ],
)
def test_the_hypervolume_is_the_area_up_to_the_reference(points, area):
    assert hypervolume(records(points), OBJECTIVES, (3.0, 3.0)) == area


def test_what_is_maximized_is_turned_round():
    turned = [OBJECTIVES[0], ForeignObjective("b", "B", "maximize")]
    assert hypervolume(records([(1.0, 2.0)]), turned, (3.0, 0.0)) == 4.0


@pytest.mark.parametrize("count", [1, 3])
def test_other_than_two_objectives_are_refused_in_words(count):
    with pytest.raises(ValueError, match="only that of two"):
        hypervolume([], (OBJECTIVES * 2)[:count], (1.0, 1.0))


POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12)


@given(POINTS)
def test_the_hypervolume_is_the_number_of_unit_squares_that_some_trial_dominates(points):
    squares = sum(any(x <= i and y <= j for x, y in points) for i in range(10) for j in range(10))
    assert hypervolume(records(points), OBJECTIVES, (10, 10)) == squares


@given(POINTS)
def test_only_the_front_counts(points):
    found = records(points)
    front = pareto_front(found, OBJECTIVES)
    assert hypervolume(front, OBJECTIVES, (10, 10)) == hypervolume(found, OBJECTIVES, (10, 10))
