import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heretic_tui.engine.parameters import AblationParameters, Kernel

numbers = st.floats(-100, 100)
kernels = st.builds(Kernel, numbers, numbers, numbers, st.floats(1, 100))
parameters = st.builds(
    AblationParameters, st.none() | st.floats(0, 100), st.dictionaries(st.text(min_size=1), kernels, max_size=3)
)


def test_the_weight_is_largest_at_the_peak():
    assert Kernel(1.2, 5.0, 0.2, 4.0).weight(5) == 1.2


@pytest.mark.parametrize("layer", [1, 9])
def test_the_weight_reaches_its_minimum_at_the_distance_on_both_sides(layer):
    assert Kernel(1.2, 5.0, 0.2, 4.0).weight(layer) == pytest.approx(0.2)


@pytest.mark.parametrize("layer", [0, 10])
def test_there_is_nothing_beyond_the_distance(layer):
    assert Kernel(1.2, 5.0, 0.2, 4.0).weight(layer) == 0.0


def test_a_peak_between_two_layers_is_reached_by_neither():
    kernel = Kernel(1.0, 4.5, 0.0, 2.0)
    assert (kernel.weight(4), kernel.weight(5)) == (pytest.approx(0.75), pytest.approx(0.75))


@given(st.floats(0, 2), st.floats(0, 30), st.floats(0, 1), st.floats(1, 20), st.integers(0, 30))
def test_the_weight_falls_linearly(peak, position, fraction, distance, layer):
    bounds = [position - distance, position, position + distance]
    expected = np.interp(layer, bounds, [fraction * peak, peak, fraction * peak])
    inside = abs(layer - position) <= distance
    assert Kernel(peak, position, fraction * peak, distance).weight(layer) == pytest.approx(
        expected if inside else 0.0, abs=1e-9
    )


@given(parameters)
def test_parameters_survive_json(tried):
    text = json.dumps(tried.as_json())
    assert AblationParameters.from_json(tried.direction_index, json.loads(text)) == tried


def test_json_has_the_journal_s_names():
    tried = AblationParameters(3.5, {"attn.o_proj": Kernel(1.0, 2.0, 0.5, 4.0)})
    assert tried.as_json() == {
        "attn.o_proj": {
            "max_weight": 1.0,
            "max_weight_position": 2.0,
            "min_weight": 0.5,
            "min_weight_distance": 4.0,
        }
    }
