"""The dialog that steers: a direction, what is done with it, how much and where; and taking one to the chat."""

import asyncio

import numpy as np
import pytest
from fakes import NASTY, fake_app, study, text_of, until
from measured import measured_run, planted
from safetensors.numpy import save_file
from textual.widgets import Input

from heretic_tui import paths
from heretic_tui.candidates import directions
from heretic_tui.engine.chat.conversation import Original
from heretic_tui.engine.chat.steering import OfLayer, Saved, Steered
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.runs.run import DIRECTIONS
from heretic_tui.screens.chat.steering_dialog import NO_DIRECTION, SteeringDialog
from heretic_tui.screens.dialogs import Pick

SIZES = [(80, 24), (120, 40)]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Everything that the person has lies below the test's own folder."""
    for name in ("DATA", "CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


@pytest.fixture
def run(tmp_path):
    """The folder of a run of 12 layers with directions."""
    folder = tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)
    good, bad = (rng.standard_normal((13, 8)).astype(np.float32) for _ in range(2))
    vectors = (bad - good) / np.linalg.norm(bad - good, axis=1, keepdims=True)
    save_file({"good": good, "bad": bad, "vectors": vectors}, folder / "directions.safetensors")
    return folder


@pytest.fixture
def app(tmp_path, run):
    app = fake_app(tmp_path)
    app.control.show(study(run))
    return app


def drive(app, steps, size=(80, 24)):
    async def go():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("chat")
            await until(pilot, lambda: app.screen.query("MessageBox"))
            await pilot.pause()
            await steps(pilot)

    asyncio.run(go())


def save(name, **known):
    DirectionLibrary(paths.directions_dir()).save(direction(name, np.ones(8)), name, **known)


def chat(app):
    return app.screen_stack[0]


async def open_dialog(app, pilot, operation="removed", column=0):
    chat(app)._chosen(column, operation)
    await until(pilot, lambda: isinstance(app.screen, SteeringDialog) and app.screen._sources is not None)
    await pilot.pause()


def typed(app, key, text):
    app.screen.query_one(f"#field-{key}", Input).value = text


@pytest.mark.parametrize("size", SIZES)
def test_a_direction_is_removed_everywhere_unless_something_else_is_typed(app, size):
    async def steps(pilot):
        await open_dialog(app, pilot)
        text = text_of(app)
        assert "= layer 7 removed x1 everywhere" in text
        assert "1 = the whole component" in text
        assert "Towards" not in text
        await pilot.press("ctrl+s")
        assert chat(app).talk.columns[0].candidate == Steered("removed", OfLayer(7))
        assert "layer 7 removed x1 everywhere" in text_of(app)

    drive(app, steps, size)


def test_an_addition_begins_at_the_direction_s_own_layer_and_says_its_unit(app):
    async def steps(pilot):
        await open_dialog(app, pilot, "added")
        assert "= layer 7 added x1 at 7" in text_of(app)
        assert "two centres' distance" in text_of(app)
        typed(app, "amount", "-2.5")
        typed(app, "layers", "3, 8-10")
        await until(pilot, lambda: "= layer 7 added x-2.5 at 3, 8-10" in text_of(app))
        await pilot.press("ctrl+s")
        assert chat(app).talk.columns[0].candidate == Steered("added", OfLayer(7), -2.5, (3, 8, 9, 10))

    drive(app, steps)


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_asks_for_a_second_direction_and_offers_the_good_centre(app, size):
    async def steps(pilot):
        await open_dialog(app, pilot, "rotated")
        text = text_of(app)
        assert "Towards" in text
        assert "Angle" in text
        assert "= layer 7 rotated 30° to good centre 7 everywhere" in text
        await pilot.press("ctrl+s")
        candidate = chat(app).talk.columns[0].candidate
        assert candidate == Steered("rotated", OfLayer(7), 30.0, None, OfLayer(7, good=True))

    drive(app, steps, size)


def test_left_and_right_change_the_operation_and_what_nobody_touched_follows(app):
    async def steps(pilot):
        await open_dialog(app, pilot)
        await pilot.press("up")
        await pilot.press("right")
        assert "= layer 7 added x1 at 7" in text_of(app)
        typed(app, "amount", "3")
        await pilot.press("left")
        assert "= layer 7 removed x3 everywhere" in text_of(app), "a strength that was typed stays"

    drive(app, steps)


def test_left_and_right_go_through_the_directions_and_the_second_one_goes_along(app):
    async def steps(pilot):
        await open_dialog(app, pilot, "rotated")
        await pilot.press("right")
        assert "= layer 8 rotated 30° to good centre 8 everywhere" in text_of(app)
        await pilot.press("down", "left")
        assert "= layer 8 rotated 30° to good centre 7 everywhere" in text_of(app)
        await pilot.press("up", "right")
        assert "= layer 9 rotated 30° to good centre 7 everywhere" in text_of(app), "what was chosen stays"

    drive(app, steps)


def test_the_list_of_directions_is_filtered_by_typing(app):
    save("politeness", note="from a pair of prompts")

    async def steps(pilot):
        await open_dialog(app, pilot, "added")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Pick))
        assert "cosine of the two means" in text_of(app)
        app.screen.query_one(Input).value = "polite"
        await until(pilot, lambda: "from a pair of prompts" in text_of(app))
        assert "layer 3" not in text_of(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SteeringDialog))
        await until(pilot, lambda: "= politeness added x0.2 at 7" in text_of(app))
        assert "1 = the stream's own length" in text_of(app)
        await pilot.press("ctrl+s")
        assert chat(app).talk.columns[0].candidate == Steered("added", Saved("politeness"), 0.2, (7,))

    drive(app, steps)


def test_what_is_wrong_stands_beside_the_line_and_nothing_is_taken(app):
    async def steps(pilot):
        await open_dialog(app, pilot)
        typed(app, "amount", "much")
        typed(app, "layers", "3-99")
        await pilot.pause()
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, SteeringDialog)
        assert "✗ A number" in text_of(app)
        assert "✗ The layers are numbered 0 to 11" in text_of(app)
        typed(app, "amount", "nan")
        typed(app, "layers", "all")
        await until(pilot, lambda: "✗ Give a finite number" in text_of(app))
        await pilot.press("escape")
        assert not isinstance(app.screen, SteeringDialog)
        assert not isinstance(chat(app).talk.columns[0].candidate, Steered)

    drive(app, steps)


def test_the_same_direction_twice_spans_no_plane(app):
    async def steps(pilot):
        await open_dialog(app, pilot, "rotated")
        app.screen._set("towards", OfLayer(7))
        await until(pilot, lambda: "✗ The same direction" in text_of(app))

    drive(app, steps)


def test_the_dialog_begins_with_what_the_column_has(app):
    async def steps(pilot):
        given = Steered("added", OfLayer(2), 0.75, (1, 2))
        chat(app)._let_answer(1, given)
        await open_dialog(app, pilot, "added", column=1)
        assert "= layer 2 added x0.75 at 1-2" in text_of(app)
        await pilot.press("escape")
        await open_dialog(app, pilot, "removed", column=1)
        assert "= layer 2 removed x1 everywhere" in text_of(app)

    drive(app, steps)


def test_a_model_without_a_run_is_steered_with_saved_directions(tmp_path):
    app = fake_app(tmp_path)
    app.control.model_name, app.control._loaded_since = "made/up-7B", True
    save("kind")

    async def steps(pilot):
        await open_dialog(app, pilot)
        assert "= kind removed x1 everywhere" in text_of(app)

    drive(app, steps)


def test_without_any_direction_it_says_where_they_come_from(tmp_path):
    app = fake_app(tmp_path)
    app.control.model_name, app.control._loaded_since = "made/up-7B", True

    async def steps(pilot):
        await open_dialog(app, pilot)
        assert NO_DIRECTION[:30] in text_of(app)
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, SteeringDialog)

    drive(app, steps, (120, 40))


def test_damaged_directions_are_told_and_harm_nothing(app, run):
    (run / "directions.safetensors").write_bytes(b"no tensors")

    async def steps(pilot):
        await open_dialog(app, pilot)
        assert "= layer 7 removed x1 everywhere" in text_of(app)
        assert any("directions.safetensors" in one.message for one in app._notifications)

    drive(app, steps)


@pytest.mark.parametrize("name", NASTY[:4] + NASTY[6:])
def test_a_direction_s_name_is_shown_as_typed(app, name):
    save(name.replace("\n", " ") + "!")

    async def steps(pilot):
        await open_dialog(app, pilot)
        app.screen._set("direction", Saved(name))
        await pilot.pause()
        assert "\x1b" not in text_of(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Pick))
        assert "\x1b" not in text_of(app)

    drive(app, steps)


def test_the_directions_of_a_run_and_the_saved_ones_stand_in_one_list(run):
    save("kind", note="a note")
    found = directions(run)
    assert [choice.key for choice in found[:2]] == [OfLayer(0), OfLayer(1)]
    assert found[12].key == OfLayer(0, good=True)
    assert found[-1].key == Saved("kind")
    assert found[-1].cells == ("kind", "a note")
    assert [choice.key for choice in directions(None)] == [Saved("kind")]
    assert directions(run.parent)[0].key == Saved("kind")


# From elsewhere to the chat


@pytest.mark.parametrize("size", SIZES)
def test_a_direction_taken_to_the_chat_answers_beside_the_original(app, size):
    async def steps(pilot):
        app.switch_mode("study")
        await pilot.pause()
        app.control.steer(Steered("removed", OfLayer(3)))
        app.switch_mode("chat")
        await pilot.pause(0.3)
        talk = chat(app).talk
        assert talk.two
        assert [one.candidate for one in talk.columns] == [Steered("removed", OfLayer(3)), Original()]
        assert "layer 3 removed x1" in text_of(app)

    drive(app, steps, size)


def test_a_direction_can_be_taken_to_a_chat_that_was_never_opened(app):
    app.control.steer(Steered("added", OfLayer(3), 2.0, (3,)))

    async def steps(pilot):
        talk = chat(app).talk
        assert talk.two
        assert talk.columns[0].candidate == Steered("added", OfLayer(3), 2.0, (3,))
        assert talk.columns[1].candidate == Original()

    drive(app, steps)


# In the inspector


@pytest.fixture
def measured(tmp_path):
    """The app over a run whose residual vectors were measured."""
    folder = measured_run(tmp_path / "measured", sets := planted())
    good, bad = sets.good.mean(axis=0), sets.bad.mean(axis=0)
    save_file({"good": good, "bad": bad, "vectors": sets.directions.astype(np.float32)}, folder / DIRECTIONS)
    app = fake_app(tmp_path)
    app.control.show(study(folder))
    return app


def inspect(app, steps, size):
    async def go():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("inspector")
            await until(pilot, lambda: app.control.state.inspection is not None and not app.control.state.beside)
            await until(pilot, lambda: app.screen.ready and app.screen.part is not None and app.screen.part.ready)
            await steps(pilot)

    asyncio.run(go())


@pytest.mark.parametrize("size", SIZES)
def test_the_layer_that_is_looked_at_is_taken_to_the_chat(measured, size):
    app = measured

    async def steps(pilot):
        app.control.state.inspection.go(9)
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, SteeringDialog) and app.screen._sources is not None)
        await until(pilot, lambda: "= layer 8 removed x1 everywhere" in text_of(app))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: getattr(app.screen, "MODE", "") == "chat")
        await until(pilot, lambda: chat(app).talk is not None and chat(app).talk.two)
        assert [one.candidate for one in chat(app).talk.columns] == [Steered("removed", OfLayer(8)), Original()]

    inspect(app, steps, size)


def test_the_direction_that_a_view_shows_goes_before_the_layer_s(measured):
    app = measured

    async def steps(pilot):
        part = app.screen.part
        type(part).source = property(lambda self: Saved("kind"))
        try:
            await pilot.press("S")
            await until(pilot, lambda: isinstance(app.screen, SteeringDialog))
            await until(pilot, lambda: "= kind removed x1 everywhere" in text_of(app))
            await pilot.press("escape")
            assert app.control.state.steering is None
        finally:
            del type(part).source

    inspect(app, steps, (120, 40))
