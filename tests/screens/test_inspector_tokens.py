"""The view of tokens: shading, directions, the mixer, the library, and what a direction is about."""

import asyncio
import time

import numpy as np
import pytest
from fakes import NASTY, fake_app, study, text_of, until
from made_up_tokens import Engine, reading
from measured import ROWS, measured_run, planted
from rich.cells import cell_len
from textual.app import App
from textual.widgets import Input, Label, TextArea

from heretic_tui import paths
from heretic_tui.app import HereticApp
from heretic_tui.control import STUDY, Control
from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.inspection.contexts import Contexts
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import TRASH, DirectionLibrary
from heretic_tui.engine.inspection.token_view import TokensRead
from heretic_tui.engine.inspection.words import VocabularyRead
from heretic_tui.preferences import Preferences
from heretic_tui.screens.dialogs import Confirm, Pick
from heretic_tui.screens.form import Form
from heretic_tui.screens.inspector.directions import AskPrompt, LibraryDialog
from heretic_tui.screens.inspector.painted import paint
from heretic_tui.screens.inspector.tokens import TokensPart
from heretic_tui.token_desk import CONTEXTS, TOKENS, VOCABULARY, TokenDesk
from heretic_tui.widgets.message_box import MessageBox
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.sliders import Slider, Sliders
from heretic_tui.widgets.token_text import TokenText, lines_of, token
from heretic_tui.worker import EngineWorker, JobEnded, JobStarted


@pytest.fixture
def sets():
    return planted()


@pytest.fixture
def app(tmp_path, sets):
    app = fake_app(tmp_path)
    app.engine = Engine(app, sets.width)
    return app


@pytest.fixture
def path(tmp_path, sets):
    return measured_run(tmp_path / "runs" / "made-up--x--1", sets)


@pytest.fixture
def library():
    return DirectionLibrary(paths.directions_dir())


def drive(app, path, steps, size=(80, 24), read=True):
    async def going():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.control.show(study(path))
            app.switch_mode("inspector")
            await until(pilot, lambda: app.control.state.inspection is not None)
            app.screen_stack[0].action_view("tokens")
            await until(pilot, lambda: app.screen_stack[0].query(TokensPart))
            await until(pilot, lambda: part(app).chosen.shelf is not None)
            if read:
                part(app).read_prompt("a prompt")
                await until(pilot, lambda: part(app).painted is not None)
            await pilot.pause()
            await steps(pilot)

    asyncio.run(going())


def part(app):
    return app.screen_stack[0].query_one(TokensPart)


def text(app):
    return part(app).query_one(TokenText)


async def shown(pilot, kind):
    await until(pilot, lambda: isinstance(pilot.app.screen, kind))
    await pilot.pause()
    return pilot.app.screen


def front(app):
    """The words in the view, as one line."""
    region = part(app).region
    lines = text_of(app).split("\n")[region.y : region.bottom]
    return " ".join(" ".join(line[region.x : region.right] for line in lines).split())


def test_before_a_prompt_is_read_it_says_what_to_press(app, path):
    async def steps(pilot):
        assert "i type a prompt" in front(app)
        assert "o take one" in front(app)

    drive(app, path, steps, read=False)


def test_a_prompt_is_typed_and_its_tokens_stand_there_as_data(app, path):
    async def steps(pilot):
        await pilot.press("i")
        box = (await shown(pilot, AskPrompt)).query_one(MessageBox)
        box.insert("Tell me [bold]x[/]")
        await pilot.press("enter")
        await until(pilot, lambda: part(app).painted is not None)
        assert app.engine.prompts == ["Tell me [bold]x[/]"]
        words = front(app)
        for piece in ("<|im_start|>user⏎", "Tell·me·of·[bold]x[/]", "\\x1b[31m", "\\x202e", "宽"):
            assert piece in words

    drive(app, path, steps, read=False)


def test_values_are_those_of_the_selected_layer_and_change_with_it(app, path, sets):
    async def steps(pilot):
        for _ in range(2):
            row = app.control.state.inspection.row
            unit = sets.directions[row] / np.linalg.norm(sets.directions[row])
            expected = part(app).painted.reading.streams[:, row] @ unit.astype(np.float32)
            np.testing.assert_allclose(part(app).painted.values, expected, rtol=1e-3, atol=1e-3)
            await pilot.press("left_square_bracket")
            assert app.control.state.inspection.row == row - 1
        assert app.engine.titles == [TOKENS]

    drive(app, path, steps)


def test_the_number_under_the_cursor_follows_it(app, path):
    async def steps(pilot):
        text(app).focus()
        await pilot.press("home")
        assert "1/12 “<|im_start|>”" in front(app)
        await pilot.press("right")
        value = part(app).painted.values[1]
        assert "2/12 “user”" in front(app)
        assert f"{'+' if value > 0 else '−'}{abs(value):.2f}"[:4] in front(app)
        await pilot.press("down")
        assert text(app).cursor > 1

    drive(app, path, steps)


def test_another_measure_and_signs_below_the_tokens(app, path):
    async def steps(pilot):
        assert "dot product" in front(app)
        assert "first token" in front(app)
        await pilot.press("z")
        assert "less the mean" in front(app)
        await pilot.press("z")
        assert "cosine" in front(app)
        assert np.abs(part(app).painted.values).max() <= 1.001
        height = text(app).virtual_size.height
        await pilot.press("n")
        assert text(app).virtual_size.height == 2 * height

    drive(app, path, steps, (120, 40))


def test_a_direction_is_chosen_from_layers_components_and_saved_ones(app, path, sets, library):
    library.save(direction("s", np.ones(sets.width)), "mine [bold]x[/]", "note \x1b[31m")
    library.save(direction("s", np.ones(3)), "short")

    async def steps(pilot):
        await pilot.press("D")
        pick = await shown(pilot, Pick)
        listed = {row.key: row.cells for row in pick.query_one(Rows).rows}
        assert {"own", "layer:in", "layer:0", "pc:1", "mine [bold]x[/]", "short"} <= set(listed)
        assert "%" in listed["pc:1"][1]
        assert f"width 3, this model has {sets.width}" in listed["short"][1]
        pick.query_one(Input).value = "component 1"
        await pilot.press("enter")
        await until(pilot, lambda: part(app).chosen.key == "pc:1")
        assert "component 1 of layer" in front(app)
        part(app)._take("mine [bold]x[/]")
        await until(pilot, lambda: "mine [bold]x[/]" in front(app))
        part(app)._take("short")
        await until(pilot, lambda: "has 3 numbers" in front(app))
        assert part(app).painted is None

    drive(app, path, steps)


def test_components_follow_the_layer_without_holding_up_the_screen(app, path, sets):
    async def steps(pilot):
        part(app)._take("pc:2")
        await until(pilot, lambda: part(app).painted is not None and part(app).direction.name.startswith("component 2"))
        row = app.control.state.inspection.row
        app.screen_stack[0].go(row - 1)
        await until(pilot, lambda: part(app).painted is not None and part(app).painted.row == row - 1)
        assert part(app).direction.row == row - 1

    drive(app, path, steps)


def test_directions_are_mixed_live_with_sliders(app, path):
    async def steps(pilot):
        view = part(app)
        view._add("layer:1")
        view._add("layer:3")
        await pilot.pause()
        sliders = view.query_one(Sliders)
        assert app.focused is sliders
        before = view.painted.values.copy()
        await pilot.press("left", "greater_than_sign", "minus")
        assert [one.value for one in sliders.sliders] == [0.5, -0.7]
        assert not np.allclose(view.painted.values, before)
        a, b = (view.chosen.shelf.at(f"layer:{layer}", 0).vector.astype(np.float64) for layer in (1, 3))
        mix = 0.5 * a - 0.7 * b
        np.testing.assert_allclose(view.direction.vector, mix / np.linalg.norm(mix), atol=1e-5)
        await pilot.press("0", "up", "0")
        assert "All weights of the mix are 0" in front(app)
        await pilot.press("delete", "delete")
        assert view.chosen.key == "own"
        assert app.focused is text(app)
        assert view.painted is not None

    drive(app, path, steps)


def test_a_direction_is_saved_with_name_and_note(app, path, library):
    async def steps(pilot):
        part(app)._take("layer:2")
        await pilot.press("k")
        form = await shown(pilot, Form)
        assert form.query_one("#field-name", Input).value == f"layer 2 of {path.name}"
        form.query_one("#field-name", Input).value = "layer 2"
        await pilot.press("ctrl+s")
        assert app.screen is form
        assert "means a direction" in str(form.query_one("#hint-name", Label).render())
        form.query_one("#field-name", Input).value = NASTY[0]
        form.query_one("#field-note", TextArea).text = "about\nsomething"
        await pilot.press("ctrl+s")
        await until(pilot, library.entries)
        found = library.load(NASTY[0])
        assert (found.row, found.run, found.note) == (3, path.name, "about\nsomething")
        assert np.array_equal(found.vector, part(app).chosen.shelf.at("layer:2", 0).vector)

    drive(app, path, steps)


def test_the_library_renames_deletes_and_exports(app, path, sets, library, tmp_path):
    library.save(direction("s", np.ones(sets.width)), "first")
    library.save(direction("s", np.ones(sets.width)), "second")

    async def steps(pilot):
        await pilot.press("L")
        dialog = await shown(pilot, LibraryDialog)
        await until(pilot, lambda: len(dialog.query_one(Rows).rows) == 2)
        await pilot.press("r")
        form = await shown(pilot, Form)
        form.query_one("#field-name", Input).value = "renamed"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: {one.name for one in library.entries()} == {"renamed", "second"})
        await until(pilot, lambda: dialog.query_one(Rows).key == "renamed")
        await pilot.press("x")
        await until(pilot, lambda: app.screen is not dialog)
        app.screen.query_one(Input).value = str(tmp_path / "out.npy")
        await pilot.press("enter")
        await until(pilot, (tmp_path / "out.npy").is_file)
        await pilot.press("d")
        await shown(pilot, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: [one.name for one in library.entries()] == ["second"])
        assert list((library.folder / TRASH).glob("*.toml"))
        dialog._which(tmp_path / "none", [])
        await pilot.press("escape", "escape")

    drive(app, path, steps)


def test_a_file_of_several_vectors_is_imported_one_by_one(app, path, sets, library, tmp_path):
    np.save(tmp_path / "two.npy", np.eye(sets.width, dtype=np.float32)[:2])

    async def steps(pilot):
        await pilot.press("L")
        dialog = await shown(pilot, LibraryDialog)
        await pilot.press("i")
        await until(pilot, lambda: app.screen is not dialog)
        app.screen.query_one(Input).value = str(tmp_path / "two.npy")
        await pilot.press("enter")
        await shown(pilot, Pick)
        await pilot.press("down", "enter")
        await until(pilot, library.entries)
        assert library.entries()[0].name == "two two[1]"
        await until(pilot, lambda: dialog.query_one(Rows).key == "two two[1]")
        await pilot.press("enter")
        await until(pilot, lambda: part(app).chosen.key == "two two[1]")
        await until(pilot, lambda: part(app).direction.vector[1] == 1)

    drive(app, path, steps)


def test_what_a_direction_is_about_stands_below(app, path):
    async def steps(pilot):
        view = part(app)
        await pilot.press("u")
        await until(pilot, lambda: view.desk.vocabulary is not None)
        await pilot.pause()
        words = front(app)
        assert "promotes" in words
        assert "·river +3.00" in words
        assert "the gain of model.norm" in words
        await pilot.press("escape")
        assert app.focused is text(app)
        view._ask_contexts(False, None)
        await until(pilot, lambda: view.desk.contexts is not None)
        await pilot.pause()
        words = front(app)
        assert "over 10 prompts" in words
        assert "[fore⏎]" in words
        assert "[[/]]" in words
        assert "for what is shown now" not in words
        app.screen_stack[0].action_layer(-1)
        await until(pilot, lambda: "a: for what is shown now" in front(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.engine.prompts[-1] == "A whole prompt")
        await until(pilot, lambda: view.painted is not None)
        await until(pilot, lambda: text(app).cursor == 5)

    drive(app, path, steps, (120, 40))


def test_the_trial_is_read_too_and_both_values_are_told(app, path):
    async def steps(pilot):
        inspection = app.control.state.inspection
        inspection.trial = 3
        part(app).read_prompt("again")
        await until(pilot, lambda: set(part(app).desk.readings) == {0, 3})
        await until(pilot, lambda: "trial 3" in front(app))
        original = part(app).painted
        inspection.side = "trial"
        app.screen_stack[0]._show_front()
        await pilot.pause()
        painted = part(app).painted
        assert painted.reading.trial == 3
        assert np.array_equal(painted.other, original.values)
        assert painted.scale == original.scale
        assert "original model" in front(app)

    drive(app, path, steps, (120, 40))


def test_a_study_that_has_the_engine_is_paused_only_if_that_is_wanted(app, path):
    async def steps(pilot):
        stopped = []
        app.control.stop = lambda: stopped.append(1)
        app.control.worker._current = STUDY
        part(app).read_prompt("a prompt")
        await shown(pilot, Confirm)
        await pilot.press("n")
        assert not app.engine.titles
        part(app).read_prompt("a prompt")
        await shown(pilot, Confirm)
        await pilot.press("y")
        assert stopped
        assert app.engine.titles == [TOKENS]
        app.control.worker._current = None

    drive(app, path, steps, read=False)


def test_what_is_asked_anew_takes_the_place_of_what_was_asked_before(app, path):
    app.engine.forever = True

    async def steps(pilot):
        part(app).read_prompt("first")
        await until(pilot, lambda: app.control.worker.current == TOKENS)
        await until(pilot, lambda: "Reading the prompt" in front(app))
        app.engine.forever = False
        part(app).read_prompt("second")
        await until(pilot, lambda: part(app).painted is not None)
        assert app.engine.prompts[-1] == "second"

    drive(app, path, steps, read=False)


def test_a_reading_that_failed_says_so_and_what_to_press(app, path):
    def refuse(title):
        yield from ()
        raise RuntimeError("no [bold]luck[/]")

    app.engine.answer = refuse

    async def steps(pilot):
        part(app).read_prompt("a prompt")
        await until(pilot, lambda: app.control.state.failure is not None)
        await until(pilot, lambda: "The prompt was not read" in front(app))
        assert "i type a prompt" in front(app)

    drive(app, path, steps, read=False)


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (200, 60)])
def test_everything_fits_in_every_size(app, path, size):
    async def steps(pilot):
        part(app)._add("layer:1")
        part(app)._ask_vocabulary()
        await until(pilot, lambda: part(app).desk.vocabulary is not None)
        await until(pilot, lambda: "12/12" in front(app))
        assert "promotes" in front(app)

    drive(app, path, steps, size)


def test_files_hold_what_is_shown(app, path):
    async def steps(pilot):
        files = {one.name: one.text() for one in part(app).files()}
        assert set(files) == {"tokens.csv", "tokens.json"}
        assert files["tokens.csv"].count("\n") >= 13

    drive(app, path, steps)


def test_a_damaged_file_of_directions_is_told(app, path):
    (path / "directions.safetensors").write_bytes(b"[bold]no[/]")

    async def steps(pilot):
        await until(pilot, lambda: any("directions.safetensors" in one.message for one in app._notifications))
        assert "There are no residual directions" in front(app)

    drive(app, path, steps, read=False)


def test_another_run_begins_anew(app, path, tmp_path, sets):
    other = measured_run(tmp_path / "runs" / "made-up--x--2", sets)

    async def steps(pilot):
        part(app)._add("layer:1")
        app.control.show(study(other))
        app.screen_stack[0].engine_changed(())
        await until(pilot, lambda: app.control.state.inspection.path == other)
        await until(pilot, lambda: part(app).chosen.key == "own")
        await until(pilot, lambda: "No prompt was read yet" in front(app))
        assert not part(app)._mixer.open

    drive(app, path, steps)


def test_the_embedded_model_is_read_end_to_end(tmp_path):
    from heretic_tui.engine.pipeline import start_study
    from heretic_tui.profile import store

    profile = store.resolve(
        "demo", ["n_trials=1", "n_startup_trials=1", "save_residuals=true", "max_response_length=4"]
    )
    *_, finished = start_study(str(MODEL_DIR), profile.profile, "demo", tmp_path / "runs")
    app = HereticApp(Control(EngineWorker(), Preferences(), tmp_path / "runs"))

    async def steps(pilot):
        view = part(app)
        await until(pilot, lambda: view.painted is not None and app.control.state.model is not None)
        assert "".join(piece.text for piece in view.painted.reading.pieces).count("宽") == 1
        view._ask_vocabulary()
        await until(pilot, lambda: view.desk.vocabulary is not None)
        from heretic_tui.engine.runs.run import Run

        view._ask_contexts(False, Run(finished.path).profile.bad_prompts)
        await until(pilot, lambda: view.desk.contexts is not None)
        assert view.desk.contexts.positive[0].value >= view.desk.contexts.positive[1].value
        view._take("pc:1")
        await until(pilot, lambda: view.painted is not None and view.direction.name.startswith("component"))

    async def begin(pilot):
        part(app).read_prompt("What is 宽 and why?")
        await steps(pilot)

    drive(app, finished.path, begin, read=False)


# What the parts do by themselves


def test_painting_is_the_dot_product_on_a_scale_that_both_states_share(tmp_path):
    desk = TokenDesk(tmp_path)
    along = direction("d", np.random.default_rng(3).normal(size=8))
    assert paint(desk, 0, along, 2, "dot product") is None
    desk.readings = {trial: reading(8, trial) for trial in (0, 4)}
    expected = {
        trial: one.streams[:, 2].astype(np.float64) @ along.vector.astype(np.float64)
        for trial, one in desk.readings.items()
    }
    painted = {trial: paint(desk, trial, along, 2, "dot product") for trial in (0, 4)}
    for trial, other in ((0, 4), (4, 0)):
        np.testing.assert_allclose(painted[trial].values, expected[trial], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(painted[trial].other, expected[other], rtol=1e-4, atol=1e-4)
        shares = np.clip(expected[trial] / painted[trial].scale.limit, -1, 1)
        np.testing.assert_allclose(painted[trial].shares, shares, atol=1e-4)
    assert painted[0].scale == painted[4].scale
    assert painted[0].scale.without_first
    assert not paint(desk, 0, along, 2, "cosine").scale.without_first
    assert paint(desk, 0, along, ROWS, "dot product") is None


def test_what_is_known_is_about_one_direction_and_contexts_about_one_row(tmp_path):
    desk = TokenDesk(tmp_path)
    one, other = (direction(name, np.eye(8)[place]) for place, name in enumerate("ab"))
    for title in (CONTEXTS, VOCABULARY):
        assert not desk.is_about(title, one, 2)
        desk.ask(title)
        desk.asked[title] = one
        assert desk.is_about(title, one, 2)
        desk.waiting.clear()  # the engine has ended without an answer
        assert not desk.is_about(title, one, 2)
    desk.apply(Contexts((), (), "good", 1, 1, 2, 0, False, "a", desk.numbers[CONTEXTS]))
    desk.apply(VocabularyRead((), (), "a", "model.norm", 0.5, desk.numbers[VOCABULARY]))
    assert desk.is_about(CONTEXTS, one, 2)
    assert not desk.is_about(CONTEXTS, one, 3)
    assert desk.is_about(VOCABULARY, one, 3)
    assert not desk.is_about(VOCABULARY, other, 2)
    assert not desk.is_about(VOCABULARY, None, 2)


def test_every_token_stands_whole_on_a_line_unless_it_is_longer():
    tokens = [token(one) for one in [*NASTY, "x" * 50, "\n\n", " ", "", "\u0301combining", "\ufe0f"]]
    for width in (4, 9, 40):
        lines = lines_of(tokens, width)
        joined = {}
        for line in lines:
            assert sum(place.width for place in line) <= width
            for place in line:
                assert place.width == cell_len(place.text)
                joined[place.index] = joined.get(place.index, "") + place.text
        assert [joined[index] for index in range(len(tokens))] == [one.text for one in tokens]
    assert all(cell_len(one.text) > 0 and one.text.isprintable() for one in tokens)
    assert [token("", part=2, parts=3).text, token(" 宽", part=1, parts=3).text] == ["…", "·宽…"]


class Alone(App):
    """One widget alone."""

    def __init__(self, widget):
        super().__init__()
        self.widget = widget

    def compose(self):
        yield self.widget


def alone(widget, steps, size=(60, 12)):
    async def going():
        app = Alone(widget)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(going())


@pytest.mark.parametrize("system", ["truecolor", "standard", "none"])
def test_the_sign_is_never_told_by_colour_alone(monkeypatch, system):
    widget = TokenText()
    monkeypatch.delenv("NO_COLOR", raising=False)
    if system == "none":
        monkeypatch.setenv("NO_COLOR", "1")

    async def steps(pilot):
        monkeypatch.setattr(type(pilot.app.console), "color_system", system)
        widget.show([token(one) for one in ("up", " down", " none", " end")], [0.9, -0.9, 0.0, float("nan")])
        widget._make_styles()
        up, down, none = (widget.style_of(index) for index in range(3))
        if system == "truecolor":
            assert len({up.bgcolor, down.bgcolor, none.bgcolor}) == 3
        else:
            assert (up.bold, down.underline) == (True, True)
            assert not none.reverse
        widget.set_numbers(True)
        await until(pilot, lambda: widget.render_line(1).text.startswith("+9-9"))

    alone(widget, steps)


def test_other_values_repaint_within_20_ms():
    widget = TokenText()

    async def steps(pilot):
        tokens = [token(f" token{number % 97}") for number in range(2000)]
        shares = np.random.default_rng(0).uniform(-1, 1, size=(20, 2000)).tolist()
        widget.show(tokens, shares[0])
        await pilot.pause()
        took = []
        for values in shares:
            began = time.thread_time()  # a busy machine is no failure
            widget.show(tokens, values)
            widget.render_lines(widget.size.region)
            took.append(time.thread_time() - began)
        assert sorted(took)[len(took) // 2] < 0.02

    alone(widget, steps, (120, 40))


def test_sliders_move_by_keys_and_stay_within_bounds():
    widget = Sliders(empty="nothing yet")

    async def steps(pilot):
        assert "nothing yet" in text_of(pilot.app)
        widget.show([Slider(number, name, 0.9) for number, name in enumerate(NASTY)])
        widget.focus()
        await pilot.press("right", "right", "right")
        assert widget.sliders[0].value == 1.0
        await pilot.press("down", "0", "less_than_sign", "minus")
        assert widget.sliders[1].value == 0.25
        await pilot.press("delete")
        assert len(widget.sliders) == len(NASTY) - 1
        assert "[bold red]markup[/]"[:10] in text_of(pilot.app)
        region = widget.region_of(0)
        _, start, track = widget._measures()
        await pilot.click(Sliders, offset=(start + track // 2, region.y))
        assert widget.sliders[0].value == 0.0

    alone(widget, steps)


def test_answers_to_older_questions_are_none(tmp_path):
    desk = TokenDesk(tmp_path)
    first = desk.ask_prompt("one")
    second = desk.ask_prompt("two")
    desk.apply(TokensRead(reading(8), first))
    assert not desk.readings
    desk.apply(JobStarted(TOKENS))
    assert desk.waiting[TOKENS]
    desk.apply(TokensRead(reading(8), second))
    desk.apply(JobEnded(TOKENS, "done"))
    assert set(desk.readings) == {0}
    assert not desk.waiting
    assert VOCABULARY not in desk.numbers
