"""Pictures and animation, read back."""

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tiny_models import result, run

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress
from heretic_tui.engine.inspection.pictures import FRAMES, Look, draw, look_of, plots_folder
from heretic_tui.engine.inspection.projection import Projection
from heretic_tui.profile.schema import Profile, PromptSet

LAYERS = 3
NASTY = '$\\frac{1}{0}$ [bold]x[/] \x1b[31m \u202e 漢字 e\u0301 %s {0} "'


def points(shift, layers=LAYERS, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((layers, 30, 2)) + np.array([shift, 0])).astype(np.float32)


PROJECTION = Projection(points(-4), points(4, seed=1))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Events, paths and folder of one export."""
    folder = tmp_path_factory.mktemp("plots") / "deep" / "model"
    events, files = run(draw(PROJECTION, Look("A title", "some/model"), folder))
    return events, files, folder


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def places(image, more, less):
    """Columns of the pixels with much more of one primary color than of another, where there are points."""
    inside = image[120:540, 20:780]
    return np.argwhere(inside[..., more] - inside[..., less] > 50)[:, 1]


def test_there_is_a_picture_a_layer_and_an_animation(drawn):
    _, files, folder = drawn
    names = ["layer_001.png", "layer_002.png", "layer_003.png", "animation.gif"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for path in files:
        assert Image.open(path).size == (800, 600)


def test_the_animation_has_the_reference_form(drawn):
    image = Image.open(drawn[1][-1])
    assert image.info["loop"] == 0
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert durations == [1000, *([50] * FRAMES), 1000, *([50] * FRAMES), 1000]


def test_a_frame_of_the_animation_looks_like_its_picture(drawn):
    _, files, _ = drawn
    image = Image.open(files[-1])
    image.seek(FRAMES + 1)
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels(files[1]))
    assert difference.mean() < 1
    assert np.percentile(difference, 99.9) < 60


def test_good_points_lie_left_in_their_color_and_bad_ones_right(drawn):
    image = pixels(drawn[1][0])
    good, bad = places(image, 2, 0), places(image, 0, 2)
    assert len(good) > 20
    assert len(bad) > 20
    assert good.mean() < 380 < bad.mean()


def test_only_the_foot_and_the_points_differ_between_layers(drawn):
    first, second = pixels(drawn[1][0]), pixels(drawn[1][1])
    assert np.array_equal(first[:40], second[:40])  # the title
    assert np.array_equal(first[560:, :400], second[560:, :400])  # the model's name
    assert not np.array_equal(first[560:, 650:], second[560:, 650:])  # the layer's number


def test_progress_reaches_its_end(drawn):
    told = [event for event in drawn[0] if isinstance(event, Progress)]
    assert told[-1].done == told[-1].total == LAYERS + (LAYERS - 1) * FRAMES


@pytest.mark.parametrize("steps", [1, 6, 12])
def test_a_closed_job_leaves_nothing(tmp_path, steps):
    folder = tmp_path / "plots" / "model"
    job = draw(PROJECTION, Look("t", "m"), folder)
    for _ in range(steps):
        next(job)
    job.close()
    assert not folder.exists()


def test_a_closed_job_leaves_the_pictures_that_were_there(tmp_path):
    (tmp_path / "layer_001.png").write_bytes(b"old")
    job = draw(PROJECTION, Look("t", "m"), tmp_path)
    next(event for event in job if isinstance(event, Progress) and event.detail == "animation.gif")
    job.close()
    assert [path.name for path in tmp_path.iterdir()] == ["layer_001.png"]
    assert (tmp_path / "layer_001.png").read_bytes() == b"old"


def test_two_states_stand_side_by_side(tmp_path):
    both = Projection(*(points(shift, layers=1) for shift in (-4, 4, -4, -3)))
    files = result(draw(both, Look("t", "m"), tmp_path))
    assert Image.open(files[0]).size == (1600, 600)
    assert [path.name for path in files] == ["layer_001.png", "animation.gif"]


def test_texts_are_shown_as_they_stand(tmp_path, recwarn):
    good = PromptSet(dataset="a", residual_plot_label=f"_{NASTY}")
    profile = Profile(residual_plot_title=NASTY * 9, good_prompts=good)
    files = result(draw(Projection(points(0, 1), points(1, 1)), look_of(profile, NASTY * 9), tmp_path))
    assert len(files) == 2
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_the_look_is_the_profiles():
    bad = PromptSet(dataset="b", residual_plot_label="Loud", residual_plot_color="red")
    look = look_of(Profile(residual_plot_title="T", residual_plot_style="ggplot", bad_prompts=bad), "m")
    assert look == Look("T", "m", "ggplot", ("Good prompts", "Loud"), ("royalblue", "red"), look.states)


def test_an_unknown_style_or_color_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(EngineError, match=r"no style 'gloomy'.*dark_background, .*ggplot"):
        result(draw(PROJECTION, Look("t", "m", "gloomy"), tmp_path / "a"))
    with pytest.raises(EngineError, match="no color 'mud'"):
        result(draw(PROJECTION, Look("t", "m", colors=("mud", "red")), tmp_path / "a"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("style", ["default", "classic", "Solarize_Light2", "seaborn-v0_8-whitegrid", "fast"])
def test_other_styles_work(tmp_path, style):
    files = result(draw(Projection(points(0, 1), points(1, 1)), Look("t", "m", style), tmp_path))
    assert pixels(files[0])[300, 5].min() > 180  # light


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("org/model", "org_model"),
        ("../../etc", "_.._etc"),
        ("/home/me/model", "_home_me_model"),
        ("..", "model"),
        ("", "model"),
        ("a\0b\nc", "a_b_c"),
        ("C:\\x", "C__x"),
    ],
)
def test_a_models_name_becomes_the_name_of_one_folder(tmp_path, model, name):
    assert plots_folder(tmp_path, model) == tmp_path / name
    assert plots_folder(tmp_path, model, 7) == tmp_path / f"{name}--trial-7"


def test_a_very_long_name_still_fits(tmp_path):
    plots_folder(tmp_path, "é" * 500).mkdir()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="Could not write"):
        result(draw(PROJECTION, Look("t", "m"), tmp_path / "file" / "plots"))


def test_the_command_says_where_the_pictures_are(tmp_path, monkeypatch, capsys):
    from heretic_tui import cli
    from heretic_tui.engine.inspection import projection as projections
    from heretic_tui.engine.inspection.residual_sets import ResidualSets, save_residual_sets

    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "profile.toml").write_text('model = "org/model"\nresidual_plot_style = "ggplot"\n')
    vectors = np.random.default_rng(0).standard_normal((4, 3, 8)).astype(np.float32)
    save_residual_sets(folder / "residuals.safetensors", ResidualSets(vectors, vectors + 1))
    assert projections.FEWEST > 8  # so that nothing has to be compiled
    cli.app(
        ["inspect", "one", "--plots", "--runs-dir", str(folder.parent), "--to", str(tmp_path / "out")],
        standalone_mode=False,
    )
    assert "2 pictures" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out" / "org_model").iterdir()}
    assert names == {"layer_001.png", "layer_002.png", "animation.gif"}


def test_a_run_goes_on_without_plots_that_fail(tmp_path):
    from heretic_tui.engine.events import Note
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.engine.study.start import plot

    events, _ = run(plot(Run(tmp_path)))
    assert [event.level for event in events if isinstance(event, Note)] == ["warning"]
