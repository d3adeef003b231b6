"""Every column against a plain computation in float64, written out here."""

import csv
import io
import json
import math

import numpy as np
import pytest
from tiny_models import result, run

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.inspection.geometry import (
    COLUMNS,
    LayerGeometry,
    as_csv,
    as_json,
    geometric_median,
    geometry_of,
    geometry_path,
    kept_geometry,
    measure_geometry,
    quick_geometry,
    silhouette,
)
from heretic_tui.engine.inspection.leak import Leak, leak_path, save_leak
from heretic_tui.engine.inspection.residual_sets import ResidualSets, residuals_path, save_residual_sets
from heretic_tui.engine.runs.run import Run


def some_sets(prompts=(9, 7), rows=4, width=20, seed=0, mid=True):
    draws = np.random.default_rng(seed)
    shapes = [(prompts[0], rows, width), (prompts[1], rows, width)]
    shapes += [(prompts[0], rows - 1, width), (prompts[1], rows - 1, width)] if mid else []
    vectors = [draws.normal(loc=index % 2, scale=1 + index, size=shape) for index, shape in enumerate(shapes)]
    return ResidualSets(*(found.astype(np.float32) for found in vectors))


def plain_cosine(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True)) / math.sqrt(
        sum(a * a for a in first) * sum(b * b for b in second)
    )


def plain_length(vector):
    return math.sqrt(sum(value * value for value in vector))


def plain_mean(points):
    return [sum(float(point[feature]) for point in points) / len(points) for feature in range(len(points[0]))]


def plain_variances(points):
    means = plain_mean(points)
    return [
        sum((float(point[feature]) - mean) ** 2 for point in points) / (len(points) - 1)
        for feature, mean in enumerate(means)
    ]


def plain_median(points):
    """Gradient descent on the sum of distances, by Weiszfeld's step, until it stands still."""
    points = np.asarray(points, dtype=np.float64)
    place = points.mean(axis=0)
    for _ in range(1000):
        weights = 1 / np.sqrt(((points - place) ** 2).sum(axis=1))
        place = (weights[:, None] * points).sum(axis=0) / weights.sum()
    return place


def plain_silhouette(first, second):
    points, labels = [*first, *second], [0] * len(first) + [1] * len(second)
    points = [np.asarray(point, dtype=np.float64) for point in points]
    values = []
    for index, point in enumerate(points):
        distances = {0: [], 1: []}
        for other, place in enumerate(points):
            if other != index:
                distances[labels[other]].append(plain_length(point - place))
        inside, outside = np.mean(distances[labels[index]]), np.mean(distances[1 - labels[index]])
        values.append((outside - inside) / max(inside, outside))
    return np.mean(values)


@pytest.fixture(scope="module")
def measured():
    sets = some_sets()
    return sets, result(measure_geometry(sets))


@pytest.mark.parametrize("row", range(4))
def test_cosines_and_lengths_of_the_means(measured, row):
    sets, geometry = measured
    found = geometry.rows[row]
    g, b = plain_mean(sets.good[:, row]), plain_mean(sets.bad[:, row])
    r = [after - before for before, after in zip(g, b, strict=True)]
    expected = {"cos_g_b": plain_cosine(g, b), "cos_g_r": plain_cosine(g, r), "cos_b_r": plain_cosine(b, r)}
    expected |= {"norm_g": plain_length(g), "norm_b": plain_length(b), "norm_r": plain_length(r)}
    for key, value in expected.items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-9), key


@pytest.mark.parametrize("row", range(4))
def test_cosines_and_lengths_of_the_medians(measured, row):
    sets, geometry = measured
    found = geometry.rows[row]
    g, b = plain_median(sets.good[:, row]), plain_median(sets.bad[:, row])
    r = b - g
    expected = {"cos_gm_bm": plain_cosine(g, b), "cos_gm_rm": plain_cosine(g, r), "cos_bm_rm": plain_cosine(b, r)}
    expected |= {"norm_gm": plain_length(g), "norm_bm": plain_length(b), "norm_rm": plain_length(r)}
    for key, value in expected.items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-6, abs=1e-8), key


@pytest.mark.parametrize("row", range(4))
def test_variances_and_silhouette(measured, row):
    sets, geometry = measured
    found = geometry.rows[row]
    for name, vectors in (("good", sets.good), ("bad", sets.bad)):
        variances = plain_variances(vectors[:, row])
        assert getattr(found, f"{name}_mean_variance") == pytest.approx(sum(variances) / len(variances), rel=1e-9)
        assert getattr(found, f"{name}_max_variance") == pytest.approx(max(variances), rel=1e-9)
    assert found.silhouette == pytest.approx(plain_silhouette(sets.good[:, row], sets.bad[:, row]), rel=1e-6)


@pytest.mark.parametrize("row", range(1, 4))
def test_figures_between_attention_and_mlp_stand_in_their_layer_s_row(measured, row):
    sets, geometry = measured
    found = geometry.rows[row]
    good, bad = sets.good_mid[:, row - 1], sets.bad_mid[:, row - 1]
    assert found.mid_cos_g_b == pytest.approx(plain_cosine(plain_mean(good), plain_mean(bad)), rel=1e-9)
    for name, vectors in (("good", good), ("bad", bad)):
        variances = plain_variances(vectors)
        assert getattr(found, f"mid_{name}_mean_variance") == pytest.approx(np.mean(variances), rel=1e-9)
        assert getattr(found, f"mid_{name}_max_variance") == pytest.approx(max(variances), rel=1e-9)
    assert geometry.rows[0].mid_cos_g_b is None


def test_a_median_resists_an_outlier_as_the_mean_does_not():
    points = np.random.default_rng(0).normal(size=(21, 8)).astype(np.float32)
    points[0] = 1e4
    assert np.linalg.norm(geometric_median(points)) < 2


def test_the_silhouette_does_not_care_where_the_points_lie():
    sets = some_sets(rows=1, mid=False)
    near = silhouette(sets.good[:, 0], sets.bad[:, 0])
    far = silhouette(sets.good[:, 0].astype(np.float64) + 1e7, sets.bad[:, 0].astype(np.float64) + 1e7)
    assert far == pytest.approx(near, abs=1e-6)


def test_what_is_known_at_once_is_the_same_as_in_the_whole_table(measured):
    sets, geometry = measured
    slow = {"cos_gm_bm", "cos_gm_rm", "cos_bm_rm", "norm_gm", "norm_bm", "norm_rm", "silhouette"}
    for quick, whole in zip(quick_geometry(sets).rows, geometry.rows, strict=True):
        for column in COLUMNS:
            expected = None if column.key in slow else getattr(whole, column.key)
            assert getattr(quick, column.key) == expected


def test_progress_counts_every_place_in_the_stream():
    events, _ = run(measure_geometry(some_sets()))
    progress = [event.done for event in events if isinstance(event, Progress)]
    assert progress == [0, 1, 2, 3, 4]
    assert any(isinstance(event, PhaseFinished) for event in events)


def test_a_column_has_a_field_and_a_field_has_a_column():
    assert tuple(LayerGeometry.__dataclass_fields__) == ("row", *(column.key for column in COLUMNS))
    assert len({column.symbol for column in COLUMNS}) == len(COLUMNS)


# What cannot be measured


def test_one_prompt_has_no_variance_and_no_silhouette_and_that_is_said():
    geometry = result(measure_geometry(some_sets(prompts=(1, 6))))
    row = geometry.rows[2]
    assert row.good_mean_variance is None and row.silhouette is None
    assert row.bad_mean_variance is not None and row.cos_gm_bm is not None
    assert any("one good prompt" in note for note in geometry.notes)


def test_one_prompt_on_each_side_still_has_means_and_medians():
    row = result(measure_geometry(some_sets(prompts=(1, 1)))).rows[1]
    assert row.cos_g_b == pytest.approx(row.cos_gm_bm)
    assert row.norm_r == pytest.approx(row.norm_rm)


def test_two_identical_sets_have_no_direction_and_that_is_said():
    good = some_sets().good
    geometry = result(measure_geometry(ResidualSets(good, good.copy())))
    for row in geometry.rows:
        assert row.norm_r == 0 and row.norm_rm == 0
        assert row.cos_g_r is None and row.cos_bm_rm is None
        assert row.cos_g_b == pytest.approx(1)
    assert any("no direction" in note for note in geometry.notes)


def test_the_same_vector_for_every_prompt_is_no_direction_however_many_prompts_there_are():
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    sets = ResidualSets(np.tile(vector, (7, 1, 1)), np.tile(vector, (11, 1, 1)))
    row = result(measure_geometry(sets)).rows[0]
    assert row.norm_r == 0 and row.cos_g_r is None and row.silhouette is None
    assert not sets.directions.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_vectors_are_refused_with_their_place(value):
    sets = some_sets()
    sets.bad[4, 2, 7] = value
    with pytest.raises(EngineError, match="layer 1, bad prompt 5"):
        quick_geometry(sets)
    with pytest.raises(EngineError, match="layer 1, bad prompt 5"):
        result(measure_geometry(sets))


def test_broken_vectors_between_attention_and_mlp_are_refused_with_their_layer():
    sets = some_sets()
    sets.good_mid[0, 2, 0] = np.nan
    with pytest.raises(EngineError, match="layer 2, good prompt 1"):
        quick_geometry(sets)


def test_sets_of_different_widths_are_refused_with_both():
    with pytest.raises(EngineError, match=r"\(4, 20\) and \(4, 21\)"):
        quick_geometry(ResidualSets(some_sets().good, some_sets(width=21).bad))


def test_without_the_stream_between_attention_and_mlp_the_rest_is_there():
    geometry = quick_geometry(some_sets(mid=False))
    assert geometry.rows[1].mid_cos_g_b is None and geometry.rows[1].cos_g_b is not None


# Files


def test_csv_holds_every_column_and_every_figure_to_the_last_digit(measured):
    _, geometry = measured
    rows = list(csv.DictReader(io.StringIO(as_csv(geometry))))
    assert [row["layer"] for row in rows] == ["in", "0", "1", "2"]
    for row, known in zip(rows, geometry.rows, strict=True):
        for column in COLUMNS:
            figure = getattr(known, column.key)
            assert row[column.key] == "" if figure is None else float(row[column.key]) == figure


def test_json_explains_its_columns(measured):
    content = json.loads(json.dumps(as_json(measured[1])))
    assert {"key", "symbol", "meaning"} <= content["columns"][0].keys()
    assert len(content["rows"]) == 4


@pytest.fixture
def kept(tmp_path):
    """A run's folder with residual vectors and nothing else."""
    run = Run(tmp_path / "run")
    save_residual_sets(residuals_path(run), some_sets())
    return run


def test_what_was_measured_is_kept_and_read_again(kept):
    first = result(geometry_of(kept))
    events, second = run(geometry_of(kept))
    assert first == second and events == []
    assert kept_geometry(kept) == first


def test_a_table_of_other_vectors_is_measured_again(kept):
    first = result(geometry_of(kept))
    save_residual_sets(residuals_path(kept), some_sets(seed=1))
    assert kept_geometry(kept) is None
    assert result(geometry_of(kept)) != first


def test_a_table_in_a_form_of_another_time_is_measured_again(kept):
    result(geometry_of(kept))
    path = geometry_path(kept)
    path.write_text(path.read_text().replace('"form": 1', '"form": 0'))
    assert kept_geometry(kept) is None


def test_a_damaged_table_is_told(kept):
    path = geometry_path(kept)
    path.parent.mkdir()
    path.write_text("{nonsense")
    with pytest.raises(EngineError, match="is damaged"):
        kept_geometry(kept)


def test_what_leaks_stands_in_its_layer_s_row(kept):
    save_leak(leak_path(kept), Leak((0.1, 0.2, 0.3), (0.0, 0.01, 0.02)))
    rows = result(geometry_of(kept)).rows
    assert [row.write for row in rows] == [None, 0.1, 0.2, 0.3]
    assert [row.leak for row in rows] == [None, 0.0, 0.01, 0.02]


def test_without_residual_vectors_it_says_what_to_do(tmp_path):
    with pytest.raises(EngineError, match="inspect nothing --measure"):
        result(geometry_of(Run(tmp_path / "nothing")))
    with pytest.raises(EngineError, match=r"trial 12.*--trial 12 --measure"):
        result(geometry_of(Run(tmp_path / "nothing"), 12))
