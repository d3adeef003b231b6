import numpy as np
import pytest
from planted import stream_sets

from heretic_tui.engine.inspection.geometry import Geometry, LayerGeometry, quick_geometry
from heretic_tui.engine.inspection.layer_rule import pick_layers
from heretic_tui.engine.inspection.residual_sets import ResidualSets


def row(number, cosine, mean=1.0, largest=1.0):
    return LayerGeometry(
        number,
        cos_g_b=cosine,
        norm_r=1.0,
        good_mean_variance=mean,
        bad_mean_variance=mean,
        good_max_variance=largest,
        bad_max_variance=largest,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("planted_at", [4, 9, 12])
@pytest.mark.parametrize("strength", [8.0, 30.0])
def test_the_layer_of_a_planted_direction_is_picked_first(planted_at, seed, strength):
    # Later layers have it too, but their prompts lie further apart.
    sets, _ = stream_sets(layers=16, planted_at=planted_at, strength=strength, seed=seed)
    assert pick_layers(quick_geometry(sets)).layers[0] == planted_at


def test_a_low_cosine_outweighs_both_variances():
    rows = [row(0, 0.0), row(1, 0.9, 1.0, 1.0), row(2, 0.2, 50.0, 900.0), row(3, 0.9, 2.0, 3.0), row(4, 0.8, 3.0, 3.0)]
    assert pick_layers(Geometry(tuple(rows))).layers == (1,)


def test_of_two_layers_with_the_same_cosine_the_one_with_less_mean_variance_is_picked():
    rows = [row(0, 0.0), row(1, 0.2, 10.0, 1.0), row(2, 0.2, 1.0, 10.0), row(3, 0.9, 10.0, 10.0), row(4, 0.9)]
    assert pick_layers(Geometry(tuple(rows))).layers == (1,)


def test_of_two_layers_alike_in_both_the_one_without_outlying_features_is_picked():
    rows = [row(0, 0.0), row(1, 0.2, 2.0, 90.0), row(2, 0.2, 2.0, 3.0), row(3, 0.9, 2.0, 3.0), row(4, 0.9, 1.0, 1.0)]
    assert pick_layers(Geometry(tuple(rows))).layers == (1,)


def test_growth_from_layer_to_layer_counts_by_factors_not_by_sizes():
    # On a plain scale the last layer's huge variance would make all others look alike.
    rows = [row(0, 0.0), *(row(n, 0.5, 10.0**n, 10.0**n) for n in range(1, 8)), row(8, 0.9)]
    scores = pick_layers(Geometry(tuple(rows))).scores
    steps = np.diff(scores[1:8])
    np.testing.assert_allclose(steps, steps[0])


def test_the_embeddings_are_never_picked_and_a_small_model_gets_fewer():
    sets, _ = stream_sets(layers=8, planted_at=3)
    picks = pick_layers(quick_geometry(sets))
    assert len(picks.rows) == 2 and 0 not in picks.rows
    assert picks.scores[0] is None
    assert len(pick_layers(quick_geometry(stream_sets(layers=24, planted_at=9)[0])).rows) == 3


def test_the_rule_is_told_with_the_picks():
    picks = pick_layers(quick_geometry(stream_sets()[0]))
    assert "cosine" in picks.rule and "4 : 2 : 1" in picks.rule and picks.reason == ""


def test_with_one_prompt_only_the_cosine_counts_and_that_is_said():
    sets, _ = stream_sets(prompts=1, planted_at=9, strength=40.0)
    picks = pick_layers(quick_geometry(sets))
    assert "single prompt" in picks.rule
    lowest = min(quick_geometry(sets).rows[1:], key=lambda found: found.cos_g_b)
    assert picks.rows[0] == lowest.row


def test_two_identical_sets_pick_nothing_and_that_is_said():
    good = stream_sets()[0].good
    picks = pick_layers(quick_geometry(ResidualSets(good, good.copy())))
    assert picks.layers == () and "do not differ" in picks.reason


def test_cosines_that_are_all_alike_pick_nothing():
    rows = [row(n, 0.99 + n * 1e-4, 2.0**n, 2.0**n) for n in range(9)]
    assert "none is better" in pick_layers(Geometry(tuple(rows))).reason
