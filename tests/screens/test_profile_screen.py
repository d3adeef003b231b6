"""The profile screen: a form, its text, and files that are never lost."""

import asyncio
from contextlib import nullcontext

import pytest
from fakes import NASTY, fake_app, text_of, until
from textual.widgets import Input, TextArea

from heretic_tui import logs, paths
from heretic_tui.engine.events import PromptsPreviewed
from heretic_tui.formats import one_line
from heretic_tui.profile import store
from heretic_tui.screens.dialogs import Ask, Confirm, Pick
from heretic_tui.screens.profile.value_dialog import Broken, EditValue
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.setting_field import SettingForm, SettingRows, ValueInput

TEXT = "# Mine.\n\nn_trials = 10   # few\n\n# About the prompts.\n[good_prompts]\ndataset = 'mine'\n"


@pytest.fixture
def mine(home):
    """A profile of the person's own."""
    path = paths.profiles_dir() / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    return path


def drive(tmp_path, steps, size=(80, 24), profile=None):
    """Open the screen, with a profile of the person's own if one is named, and take the steps."""
    app = fake_app(tmp_path)

    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            if profile:
                app.control.profile = store.resolve(profile)
            app.switch_mode("profile")
            await pilot.pause()
            screen = app.screen_stack[0]
            await until(pilot, lambda: screen.draft is not None)
            if profile:
                screen.begin(profile)
                await until(pilot, lambda: screen.draft.name == profile)
            await pilot.pause()
            await steps(pilot, screen)

    asyncio.run(run())
    return app


async def go(pilot, screen, key):
    """Put the cursor on a setting."""
    groups, rows = screen.query_one("#groups", Rows), screen.query_one(SettingRows)
    groups.select(screen.fields[key].group)
    screen._show_settings()
    rows.select(key)
    rows.focus()
    await pilot.pause()


async def type_value(pilot, screen, key, text):
    """Edit a setting in place."""
    await go(pilot, screen, key)
    await pilot.press("enter")
    screen.query_one(ValueInput).value = text
    await pilot.pause()


def dialog(app, kind):
    return lambda: isinstance(app.screen, kind)


def value(screen, key):
    return screen.fields[key].value


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_the_form_fits_every_size(tmp_path, size):
    async def steps(pilot, screen):
        text = text_of(pilot.app)
        for words in ("Groups", "batch_size", "0 prompts", "default", "The model: its name", "built in"):
            assert words in text
        assert ("The TOML that it will become" in text) == (size[0] > 132)
        for group in ("prompts", "scoring", "search"):
            screen.query_one("#groups", Rows).select(group)
            screen._show_settings()
            await until(pilot, lambda: screen.query_one(SettingRows).size.height > 8)

    drive(tmp_path, steps, size)


def test_a_value_is_checked_while_it_is_typed_and_taken_when_it_is_right(tmp_path):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "batch_size", "-5")
        await until(pilot, lambda: "must be at least 0, not -5" in text_of(pilot.app))
        await pilot.press("enter")
        assert screen.query_one(SettingForm).editing
        screen.query_one(ValueInput).value = "8"
        await until(pilot, lambda: "must be at least 0" not in text_of(pilot.app))
        await pilot.press("enter")
        assert value(screen, "batch_size") == 8
        assert "● batch_size" in text_of(pilot.app)
        assert "was 0 prompts" in text_of(pilot.app)
        assert "1 unsaved change" in text_of(pilot.app)

    drive(tmp_path, steps)


def test_escape_leaves_the_old_value(tmp_path):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "batch_size", "9")
        await pilot.press("escape")
        assert value(screen, "batch_size") == 0
        assert not screen.query_one(SettingForm).editing
        assert screen.query_one(SettingRows).has_focus

    drive(tmp_path, steps)


def test_going_to_another_row_takes_what_was_typed(tmp_path):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "batch_size", "9")
        rows = screen.query_one(SettingRows)
        await pilot.click(rows, offset=(4, rows.cursor - rows.scroll_offset.y + 1))
        await until(pilot, lambda: value(screen, "batch_size") == 9)
        assert not screen.query_one(SettingForm).editing
        assert screen.field.key != "batch_size"

        await type_value(pilot, screen, "batch_size", "-9")
        screen.query_one("#groups", Rows).focus()
        await pilot.press("down")
        await until(pilot, lambda: any("'-9' was not taken: " in one.message for one in pilot.app._notifications))
        assert value(screen, "batch_size") == 9

    drive(tmp_path, steps)


def test_space_turns_flags_and_takes_the_next_choice_and_u_takes_it_back(tmp_path):
    async def steps(pilot, screen):
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space")
        assert value(screen, "allow_pickle") is True
        assert "[x] true" in text_of(pilot.app)
        await go(pilot, screen, "quantization")
        await pilot.press("space")
        assert value(screen, "quantization") == "bnb_4bit"
        await pilot.press("u", "u")
        assert (value(screen, "allow_pickle"), value(screen, "quantization")) == (False, "none")
        assert not screen.draft.unsaved

    drive(tmp_path, steps)


def test_a_choice_can_be_picked_and_backspace_puts_the_default_back(tmp_path):
    async def steps(pilot, screen):
        await go(pilot, screen, "row_normalization")
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, Pick)
        await pilot.press("up", "enter")
        assert value(screen, "row_normalization") == "pre"
        await pilot.press("backspace")
        assert value(screen, "row_normalization") == "full"

    drive(tmp_path, steps)


def test_a_list_is_edited_in_a_dialog_that_says_what_is_wrong_and_loses_nothing(tmp_path):
    async def steps(pilot, screen):
        await go(pilot, screen, "dtypes")
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, EditValue)
        area = pilot.app.screen.query_one(TextArea)
        area.text = "float32\nfloat61"
        await until(pilot, lambda: "line 2: expected" in text_of(pilot.app))
        await pilot.press("ctrl+s")
        assert isinstance(pilot.app.screen, EditValue)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, Confirm)
        await pilot.press("n")
        area.text = "float32"
        await pilot.press("ctrl+s")
        assert value(screen, "dtypes") == ["float32"]

    drive(tmp_path, steps)


def test_searching_goes_over_all_groups_and_escape_comes_back_to_what_was_found(tmp_path):
    async def steps(pilot, screen):
        await pilot.press("slash")
        screen.query_one("#filter", Input).value = "adapter rank"
        await until(pilot, lambda: "full_normalization_lora_rank" in text_of(pilot.app))
        assert "batch_size" not in text_of(pilot.app)
        await pilot.press("enter", "escape")
        assert screen.field.key == "full_normalization_lora_rank"
        assert screen.query_one("#groups", Rows).key == "ablation"

    drive(tmp_path, steps)


def test_the_text_and_the_difference_are_a_key_away(tmp_path, mine):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "n_trials", "12")
        await pilot.press("enter", "d")
        text = text_of(pilot.app)
        assert "- n_trials = 10   # few" in text
        assert "+ n_trials = 12   # few" in text
        await pilot.press("t")
        assert "# About the prompts." in text_of(pilot.app)
        await pilot.press("escape")
        assert "Groups" in text_of(pilot.app)

    drive(tmp_path, steps, profile="mine")


def test_saving_keeps_comments_and_order(tmp_path, mine):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "n_trials", "12")
        await pilot.press("enter", "s")
        await until(pilot, lambda: not screen.draft.unsaved)
        assert mine.read_text() == TEXT.replace("10", "12")
        assert "mine is saved" in text_of(pilot.app)

    drive(tmp_path, steps, profile="mine")


def test_a_save_that_fails_says_why_and_loses_nothing(tmp_path, mine, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    async def steps(pilot, screen):
        await type_value(pilot, screen, "n_trials", "12")
        await pilot.press("tab")
        monkeypatch.setattr("os.fsync", full)
        await pilot.press("s")
        await until(pilot, lambda: any("No space left" in one.message for one in pilot.app._notifications))
        assert screen.draft.unsaved
        assert value(screen, "n_trials") == 12
        assert mine.read_text() == TEXT

    drive(tmp_path, steps, profile="mine")


def test_saving_a_built_in_profile_asks_for_a_name(tmp_path):
    async def steps(pilot, screen):
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space", "s")
        ask = pilot.app.screen
        assert isinstance(ask, Ask)
        ask.query_one(Input).value = "demo"
        await until(pilot, lambda: "there is a profile of this name already" in text_of(pilot.app))
        ask.query_one(Input).value = "own"
        await pilot.press("enter")
        await until(pilot, lambda: screen.draft.name == "own")
        assert store.resolve("own").profile.allow_pickle
        assert pilot.app.control.profile is screen.draft.loaded

    drive(tmp_path, steps)


def test_unsaved_changes_come_back_after_the_app_was_left(tmp_path, mine):
    async def change(pilot, screen):
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space")

    async def look(pilot, screen):
        assert screen.draft.name == "mine"
        assert value(screen, "allow_pickle") is True
        assert "are back" in text_of(pilot.app)
        assert "1 unsaved change" in text_of(pilot.app)

    drive(tmp_path, change, profile="mine")
    assert mine.read_text() == TEXT
    drive(tmp_path, look)


def test_another_profile_can_be_opened_and_unsaved_changes_wait(tmp_path, mine):
    async def steps(pilot, screen):
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space", "o")
        await until(pilot, dialog(pilot.app, Pick))
        pilot.app.screen.query_one(Input).value = "default"
        await pilot.press("enter")
        await until(pilot, lambda: screen.draft.name == "default")
        assert value(screen, "allow_pickle") is False
        screen.begin("mine")
        await until(pilot, lambda: screen.draft.name == "mine")
        assert value(screen, "allow_pickle") is True

    drive(tmp_path, steps, profile="mine")


def test_a_file_changed_by_something_else_is_read_again_where_nothing_is_unsaved(tmp_path, mine):
    async def steps(pilot, screen):
        mine.write_text("n_trials = 77\n")
        screen.look_at_disk()
        await until(pilot, lambda: value(screen, "n_trials") == 77)
        assert "changed on disk" in text_of(pilot.app)

    drive(tmp_path, steps, profile="mine")


@pytest.mark.parametrize(("answer", "here", "there"), [("reload", 77, 77), ("overwrite", 12, 12), ("later", 12, 77)])
def test_a_file_changed_by_something_else_is_asked_about_before_it_is_saved(tmp_path, mine, answer, here, there):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "n_trials", "12")
        await pilot.press("enter")
        mine.write_text("n_trials = 77\n")
        await pilot.press("s")
        await until(pilot, dialog(pilot.app, Pick))
        pilot.app.screen.dismiss(answer)
        await pilot.pause(0.3)
        await until(pilot, lambda: value(screen, "n_trials") == here)
        await until(pilot, lambda: store.load(mine).profile.n_trials == there)
        assert not isinstance(pilot.app.screen, Pick)

    drive(tmp_path, steps, profile="mine")


def edited(monkeypatch, app, *texts):
    """An editor that writes these texts, one a time."""
    waiting = list(texts)

    def run(command):
        with open(command[-1], "w") as file:  # noqa: PTH123
            file.write(waiting.pop(0))
        return 0

    monkeypatch.setenv("VISUAL", "my-editor --wait")
    monkeypatch.setattr(logs, "run_on_terminal", run)
    monkeypatch.setattr(app, "suspend", nullcontext)


def test_the_file_is_read_again_after_the_editor(tmp_path, mine, monkeypatch):
    async def steps(pilot, screen):
        edited(monkeypatch, pilot.app, "# by hand\nn_trials = 5\n")
        await pilot.press("e")
        await until(pilot, lambda: value(screen, "n_trials") == 5)
        assert not screen.draft.unsaved

    drive(tmp_path, steps, profile="mine")


def test_a_broken_file_is_shown_by_line_and_the_old_text_kept(tmp_path, mine, monkeypatch):
    async def steps(pilot, screen):
        edited(monkeypatch, pilot.app, "# x\nn_trials = 0\nsede = 1\n", "n_trials = 6\n")
        await pilot.press("e")
        await until(pilot, dialog(pilot.app, Broken))
        text = text_of(pilot.app)
        assert "line 2: n_trials: must be at least 1, not 0" in text
        assert "line 3: sede: unknown setting (did you mean seed?)" in text
        assert screen.draft.text == TEXT
        await pilot.press("e")
        await until(pilot, lambda: value(screen, "n_trials") == 6)

    drive(tmp_path, steps, profile="mine")


def test_unsaved_changes_go_to_the_editor_and_what_cannot_be_read_is_not_lost(tmp_path, mine, monkeypatch):
    async def steps(pilot, screen):
        edited(monkeypatch, pilot.app, "n_trials = 0\n", "n_trials = 6\n")
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space", "e")
        await until(pilot, dialog(pilot.app, Broken))
        assert (paths.drafts_dir() / "mine.toml").read_text() == "n_trials = 0\n"
        assert value(screen, "allow_pickle") is True
        await pilot.press("e")
        await until(pilot, lambda: value(screen, "n_trials") == 6)
        assert screen.draft.unsaved
        assert mine.read_text() == TEXT

    drive(tmp_path, steps, profile="mine")


def test_a_profile_is_renamed_duplicated_and_deleted(tmp_path, mine):
    async def steps(pilot, screen):
        app = pilot.app
        await pilot.press("R")
        app.screen.query_one(Input).value = "yours"
        await pilot.press("enter")
        await until(pilot, lambda: screen.draft.name == "yours")
        await pilot.press("D")
        app.screen.query_one(Input).value = "copy"
        await pilot.press("enter")
        await until(pilot, lambda: screen.draft.name == "copy")
        await pilot.press("X")
        assert isinstance(app.screen, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: screen.draft is not None and screen.draft.name == "default")
        assert [file.name for file in mine.parent.iterdir()] == ["yours.toml"]

    drive(tmp_path, steps, profile="mine")


def test_built_in_profiles_are_neither_renamed_nor_deleted(tmp_path):
    async def steps(pilot, screen):
        await pilot.press("R", "X")
        assert pilot.app.screen is screen
        assert "cannot be deleted" in text_of(pilot.app)

    drive(tmp_path, steps)


def test_reverting_asks_and_can_be_taken_back(tmp_path, mine):
    async def steps(pilot, screen):
        await go(pilot, screen, "allow_pickle")
        await pilot.press("space", "ctrl+r", "y")
        assert not screen.draft.unsaved
        await pilot.press("u")
        assert value(screen, "allow_pickle") is True

    drive(tmp_path, steps, profile="mine")


def test_the_first_prompts_are_shown_as_they_stand(tmp_path):
    async def steps(pilot, screen):
        await go(pilot, screen, "bad_prompts.dataset")
        await pilot.press("v")
        await until(pilot, lambda: isinstance(screen.preview, PromptsPreviewed))
        assert screen.preview.prompt_set == "bad_prompts"
        await until(pilot, lambda: "as they stand" in text_of(pilot.app))
        assert screen.preview.texts[0].splitlines()[0][:40] in text_of(pilot.app)

    app = fake_session_app(tmp_path)
    drive_with(app, steps, "demo")


def test_what_is_wrong_with_a_prompt_file_is_said_in_words(tmp_path):
    async def steps(pilot, screen):
        await type_value(pilot, screen, "good_prompts.dataset", "./not-there.txt")
        await pilot.press("enter", "v")
        await until(pilot, lambda: isinstance(screen.preview, PromptsPreviewed))
        await until(pilot, lambda: "There is no prompt file or folder ./not-there.txt." in text_of(pilot.app))
        assert pilot.app.control.state.failure is None

    drive_with(fake_session_app(tmp_path), steps, "demo")


def test_prompts_are_data(tmp_path):
    async def steps(pilot, screen):
        await pilot.press("v", "escape")
        screen.engine_changed([PromptsPreviewed("good_prompts", len(NASTY), tuple(NASTY), True)])
        await pilot.pause()
        text = text_of(pilot.app)
        assert "[bold red]markup[/]" in text
        assert r"\x1b[31mred\x1b[0m" in text
        assert "after its chat template" in text

    drive(tmp_path, steps, (100, 50))


def test_values_are_data(tmp_path):
    async def steps(pilot, screen):
        for nasty in NASTY:
            screen.change(lambda loaded, nasty=nasty: store.set_value(loaded, "system_prompt", nasty))
            await go(pilot, screen, "system_prompt")
            assert one_line(nasty)[:12] in text_of(pilot.app)
        await pilot.press("d")
        assert "\x1b[31m" not in text_of(pilot.app)

    drive(tmp_path, steps, (120, 40))


def test_without_a_model_it_says_to_pick_one(tmp_path):
    async def steps(pilot, screen):
        await pilot.press("b")
        assert ["Pick a model first" in one.message for one in pilot.app._notifications] == [True]
        assert not pilot.app.control.worker.busy

    drive(tmp_path, steps)


def test_a_study_begins_with_what_stands_on_the_screen(tmp_path, monkeypatch):
    async def steps(pilot, screen):
        begun = []
        monkeypatch.setattr(pilot.app.control, "start", lambda name, loaded: begun.append((name, loaded)))
        pilot.app.control.model_name = "made/up"
        await go(pilot, screen, "save_residuals")
        await pilot.press("space", "b")
        ((name, loaded),) = begun
        assert (name, loaded.name, loaded.profile.save_residuals) == ("made/up", "default-changed", True)
        assert pilot.app.current_mode == "study"

    drive(tmp_path, steps)


def test_a_profile_chosen_elsewhere_is_taken(tmp_path, mine):
    async def steps(pilot, screen):
        pilot.app.control.profile = store.resolve("mine")
        pilot.app.switch_mode("study")
        await pilot.pause()
        pilot.app.switch_mode("profile")
        await until(pilot, lambda: screen.draft.name == "mine")

    drive(tmp_path, steps)


def test_a_run_with_other_settings_is_named_and_keeps_them(tmp_path):
    async def steps(pilot, screen):
        screen._run_asked = tmp_path / "made--up--1"
        screen.run_profile = (tmp_path / "made--up--1", store.resolve("demo").profile)
        pilot.app.control.state.shown = tmp_path / "made--up--1"
        screen._show_run()
        await until(
            pilot,
            lambda: "settings differ from those that the run keeps (f shows them): made--up--1" in text_of(pilot.app),
        )
        await pilot.press("f")
        await until(pilot, lambda: "good_prompts.dataset" in text_of(pilot.app))
        assert "demo:plain_train" in text_of(pilot.app)

    drive(tmp_path, steps, (100, 40))


def fake_session_app(tmp_path):
    """The app over a session without a model."""
    from heretic_tui.engine.loading.session import Session

    app = fake_app(tmp_path)
    app.control.worker._make_session = Session
    return app


def drive_with(app, steps, profile):
    async def run():
        async with app.run_test(size=(100, 40)) as pilot:
            await pilot.pause()
            app.control.profile = store.resolve(profile)
            app.switch_mode("profile")
            await pilot.pause()
            screen = app.screen_stack[0]
            await until(pilot, lambda: screen.draft is not None)
            screen.begin(profile)
            await until(pilot, lambda: screen.draft.name == profile)
            await steps(pilot, screen)

    asyncio.run(run())
