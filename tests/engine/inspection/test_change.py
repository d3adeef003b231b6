"""What a trial has changed, against sets whose change is known."""

import numpy as np
import pytest

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.change import measure_change, spans
from heretic_tui.engine.inspection.residual_sets import ResidualSets

ROWS, WIDTH, PROMPTS = 9, 16, 12
AXES = np.eye(WIDTH, dtype=np.float32)


def sets(*distances: float, other: float = 0.0) -> ResidualSets:
    """Sets whose means lie so far apart along the first axis, row by row, and `other` along the second one."""
    random = np.random.default_rng(0)
    good = random.normal(size=(PROMPTS, len(distances), WIDTH)).astype(np.float32)
    bad = good.copy()
    for row, distance in enumerate(distances):
        bad[:, row] += distance * AXES[0] + other * AXES[1]
    return ResidualSets(good, bad)


def test_what_is_left_along_the_old_direction_is_a_share_of_what_there_was():
    change = measure_change(sets(4, 4, 4, 4), sets(4, 2, 0.2, -1))
    assert [one.left for one in change.rows] == pytest.approx([1, 0.5, 0.05, -0.25], abs=1e-6)
    assert [one.length for one in change.rows] == pytest.approx([1, 0.5, 0.05, 0.25], abs=1e-6)
    assert [one.cosine for one in change.rows] == pytest.approx([1, 1, 1, -1], abs=1e-6)
    assert [one.other for one in change.rows] == pytest.approx([0, 0, 0, 0], abs=1e-3)


def test_what_came_along_other_directions_is_told_apart():
    change = measure_change(sets(4, 4, 4), sets(0, 0, 0, other=6))
    assert [one.left for one in change.rows] == pytest.approx([0, 0, 0], abs=1e-6)
    assert [one.other for one in change.rows] == pytest.approx([1.5, 1.5, 1.5], abs=1e-5)
    assert change.verdict == "the direction is gone from every layer"
    assert any("further apart than before along other directions in layers 0 to 1" in one for one in change.evidence)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ((4, 0, 0, 0), "the direction is gone from every layer"),
        ((4, 4, 0, 0), "the direction is gone in layers 1 to 2, and left elsewhere"),
        ((4, 4, 1, 4), "the direction is weakened in layer 1, and gone from no layer"),
        ((4, 4, 4, 4), "the direction is still there"),
    ],
)
def test_the_verdict_is_in_words(after, verdict):
    assert measure_change(sets(4, 4, 4, 4), sets(*after)).verdict == verdict


def test_where_there_was_no_direction_nothing_can_go():
    change = measure_change(sets(0, 0, 0), sets(1, 1, 1))
    assert change.verdict == "there was no direction to begin with"
    assert all(one.left is None and one.other is None for one in change.rows)


def test_sets_of_another_width_or_depth_are_refused_with_both():
    with pytest.raises(EngineError, match="3 layers of width 16 against 2 of width 16"):
        measure_change(sets(1, 1, 1), sets(1, 1, 1, 1))


def test_layers_are_named_in_spans():
    assert spans([3]) == "in layer 3"
    assert spans([3, 4, 5, 9]) == "in layers 3 to 5, 9"
