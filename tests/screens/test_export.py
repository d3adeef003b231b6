"""The export screen over a scripted engine, and what is known of places and results."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from fakes import FACTS, NASTY, fake_app, record, run_job, study, text_of, until
from textual.widgets import Input

from heretic_tui import exports
from heretic_tui.control import STUDY
from heretic_tui.engine.chat.conversation import OfTrial
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Evaluated, Exported, ModelLoaded, Progress, Tick, Verified
from heretic_tui.exports import EXPORT, ExportOrder, default_place, in_python, look_at, measured, needed, verification
from heretic_tui.screens.dialogs import Confirm, Pick
from heretic_tui.screens.export.screen import Facts


class Engine:
    """Writes nothing, and tells of it like the real one; may be held back in the middle, or fail."""

    def __init__(self, app, hold=False, error=None):
        self.app, self.error = app, error
        self.orders = []
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()
        app.control.export = self.export

    def export(self, path, order):
        self.orders.append(order)
        self.app.control.state.export = exports.ExportView(path, order)
        self.app.control.worker.submit(EXPORT, lambda session: self.job(order))

    def job(self, order):
        yield ModelLoaded(FACTS)
        yield Progress("export", 2_000_000, 14_000_000, "B")
        while not self.go_on.is_set():
            yield Tick()
            time.sleep(0.005)
        if self.error:
            raise self.error
        yield Verified(order.trial, 272, 60, 212, ())
        yield Exported(order.trial, order.to, "adapter" if order.adapter else "merged", 14_000_000)


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    app = fake_app(tmp_path)
    app.control.show(study(tmp_path / "run"))
    return app


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("export")
            await until(pilot, lambda: app.screen.query("#settings"))
            screen(app)._read = lambda path: None
            await pilot.pause()
            if app.control.state.shown:
                screen(app)._know(app.control.state.shown, Facts(FACTS, "5GB", 1))
                await until(pilot, lambda: screen(app)._place.path is not None)
            await steps(pilot)

    asyncio.run(run())


def screen(app):
    return app.screen_stack[0]


async def place(app, pilot, text):
    """Type another place, and wait until it was looked at."""
    screen(app)._place = replace(screen(app)._place, words="not looked at yet")
    screen(app).query_one("#to", Input).value = str(text)
    await until(pilot, lambda: screen(app)._place.words != "not looked at yet")
    await pilot.pause()


# The screen


def test_without_a_run_it_says_what_to_press(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        assert "There is nothing to export yet" in text_of(app)
        assert "Press 1" in text_of(app)
        await pilot.press("x", "space", "t")

    drive(app, steps)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_it_shows_the_best_trial_beside_the_original_the_place_and_the_space(app, size):
    async def steps(pilot):
        text = text_of(app)
        best = screen(app).trial
        assert f"★ trial {best}" in text
        assert "refusals 90/100" in text, "the original's score"
        assert f"./up-7B-trial-{best}" in text
        assert "A new folder." in text
        await until(pilot, lambda: "needs 14 GB of" in text_of(app))

    drive(app, steps, size)


def test_x_writes_the_trial_and_tells_what_was_verified_and_how_to_load_it(app, tmp_path):
    engine = Engine(app)

    async def steps(pilot):
        app.control.state.studies[tmp_path / "run"].layers = 12
        screen(app)._needed = lambda: 1000
        await pilot.press("x")
        await until(pilot, lambda: "written" in text_of(app))
        text = text_of(app)
        assert "272 tensors, 60 changed as the trial says, 212 identical" in text
        assert engine.orders == [ExportOrder(screen(app).trial, tmp_path / "here" / f"up-7B-trial-{screen(app).trial}")]
        await pilot.press("y")
        assert app.clipboard == str(engine.orders[0].to)
        await pilot.press("Y")
        assert app.clipboard.startswith("from transformers")

    drive(app, steps)


def test_the_settings_of_the_form_go_into_the_order_and_stay_while_one_is_elsewhere(app):
    engine = Engine(app)

    async def steps(pilot):
        screen(app)._change("dtype", 1)
        screen(app)._change("shard", -1)
        screen(app)._change("measure", 1)
        app.switch_mode("study")
        await pilot.pause()
        app.switch_mode("export")
        await pilot.pause()
        screen(app)._needed = lambda: 1000
        screen(app).action_begin()
        await until(pilot, lambda: engine.orders)
        order = engine.orders[0]
        assert (order.dtype, order.max_shard_size, order.measure) == ("bfloat16", "2GB", True)

    drive(app, steps)


def test_an_adapter_has_no_dtype_and_a_place_of_its_own(app):
    async def steps(pilot):
        await pilot.press("down", "down", "space")
        await pilot.pause(0.2)
        text = text_of(app)
        assert "adapter (PEFT)" in text
        assert "Data type" not in text
        assert "-adapter" in text
        assert "needs about" in text

    drive(app, steps)


def test_the_trial_is_the_one_selected_elsewhere_and_can_be_picked_here(app):
    async def steps(pilot):
        app.control.trial = 5
        screen(app).engine_changed(())
        await pilot.pause(0.2)
        assert "trial 5 " in text_of(app)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, Pick))
        app.screen.dismiss(OfTrial(7))
        await pilot.pause(0.2)
        assert app.control.trial == 7
        assert "up-7B-trial-7" in text_of(app)

    drive(app, steps)


def test_a_model_that_is_there_is_replaced_only_after_a_tick_and_the_tick_holds_once(app, tmp_path):
    engine = Engine(app)
    there = tmp_path / "there"
    there.mkdir()
    (there / "config.json").write_text("{}")

    async def steps(pilot):
        screen(app)._needed = lambda: 1000
        await place(app, pilot, there)
        assert "A model is there already" in text_of(app)
        screen(app).action_begin()
        await pilot.pause(0.2)
        assert not engine.orders
        screen(app)._change("overwrite", 1)
        await pilot.pause(0.2)
        screen(app).action_begin()
        await until(pilot, lambda: engine.orders)
        assert engine.orders[0].overwrite
        assert not screen(app).overwrite

    drive(app, steps)


def test_too_little_room_is_said_before_anything_is_loaded(app):
    engine = Engine(app)

    async def steps(pilot):
        screen(app)._needed = lambda: 10**18
        await place(app, pilot, "./elsewhere")
        assert "There is no room" in text_of(app)
        screen(app).action_begin()
        await pilot.pause(0.3)
        assert not engine.orders

    drive(app, steps)


def test_escape_asks_before_it_stops_an_export(app):
    engine = Engine(app, hold=True)

    async def steps(pilot):
        screen(app)._needed = lambda: 1000
        screen(app).action_begin()
        await until(pilot, lambda: "2 MB/14 MB" in text_of(app))
        screen(app).action_back()
        await until(pilot, lambda: isinstance(app.screen, Confirm) and "Stop the export?" in text_of(app))
        await pilot.press("y")
        await until(pilot, lambda: not app.control.state.export.underway)
        await until(pilot, lambda: "nothing was written" in text_of(app))
        assert engine.orders

    drive(app, steps)


def test_a_failure_is_told_and_can_be_tried_again(app):
    Engine(app, error=EngineError("The disk is full.", "Free some space."))

    async def steps(pilot):
        screen(app)._needed = lambda: 1000
        screen(app).action_begin()
        await until(pilot, lambda: "The export failed." in text_of(app))
        await until(pilot, lambda: "The disk is full. Free some space." in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: "✗ The disk is full. Free some space.  x tries again" in text_of(app))

    drive(app, steps)


def test_while_a_study_runs_it_asks_before_it_pauses_it(app):
    engine = Engine(app)

    async def steps(pilot):
        screen(app)._needed = lambda: 1000
        run_job(app, Progress("trial 1", 1, 2), title=STUDY, forever=True)
        await until(pilot, lambda: app.control.studying)
        screen(app).action_begin()
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: engine.orders)

    drive(app, steps)


def test_foreign_text_is_shown_as_typed(app, tmp_path):
    engine = Engine(app)

    async def steps(pilot):
        screen(app)._needed = lambda: 1000
        await place(app, pilot, tmp_path / "[bold]x" / NASTY[4])
        screen(app).action_begin()
        await until(pilot, lambda: engine.orders and not app.control.state.export.underway)
        await pilot.pause(0.4)
        text = text_of(app)
        assert "[bold]x" in text
        assert "\u202e" not in text.replace(screen(app).query_one("#to", Input).value, "")

    drive(app, steps, (200, 60))


# Places and words


def test_a_place_is_looked_at_before_it_is_written_to(tmp_path):
    assert look_at(str(tmp_path / "new" / "deep")).words == "A new folder."
    assert look_at(str(tmp_path)).words == "An empty folder."
    assert look_at(str(tmp_path)).free
    assert not look_at("  ").usable
    (tmp_path / "file").write_text("x")
    assert not look_at(str(tmp_path / "file")).usable
    assert not look_at(str(tmp_path / "file" / "below")).usable
    assert not look_at("nul\0byte").usable


def test_a_folder_with_other_things_than_a_model_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert not look_at(str(tmp_path)).usable
    assert not look_at("~").filled


def test_the_original_model_is_never_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert look_at(str(tmp_path)).filled
    assert not look_at(str(tmp_path), source=str(tmp_path)).usable
    assert not look_at(f"{tmp_path}/x/..", source=str(tmp_path)).usable


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert look_at(str(tmp_path / "new")).words == f"You may not write to {tmp_path}."


def test_the_default_place_is_named_after_model_and_trial():
    assert default_place("org/Some-Model", 12, adapter=False) == "./Some-Model-trial-12"
    assert default_place("/models/a b.gguf", 3, adapter=True) == "./a-b-trial-3-adapter"
    assert default_place("..", 1, adapter=False) == "./model-trial-1"


def test_the_space_needed_follows_the_dtype(tmp_path):
    order = ExportOrder(1, tmp_path)
    assert needed(FACTS, order, 1) == 14_000_000_000
    assert needed(FACTS, replace(order, dtype="float32"), 1) == 28_000_000_000
    assert needed(FACTS, replace(order, adapter=True), 1) < 10_000_000


def test_results_are_told_in_words(tmp_path):
    assert verification(Verified(1, 10, 4, 6, (), ("mtp.head",))).endswith(
        "1 of the source's are not in it: the loaded class does not know them."
    )
    trial = record(3, 5, 0.01)
    again = Evaluated("x", "y", trial.scores, {})
    assert measured(again, trial.scores) == "Measured again: refusals 5/100, KL 0.0100, as in the trial."
    assert measured(again, record(3, 6, 0.01).scores).endswith("the trial had refusals 6/100.")
    compile(in_python(Exported(1, tmp_path / "it's \\ here", "merged", 1)), "x", "exec")
    compile(in_python(Exported(1, tmp_path, "adapter", 1)), "x", "exec")
