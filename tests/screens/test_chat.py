"""The chat screen over a scripted engine, and what a talk keeps."""

import asyncio
import threading
import time
from functools import partial

import pytest
from fakes import FACTS, NASTY, fake_app, run_job, study, text_of, until

from heretic_tui.app import HereticApp
from heretic_tui.candidates import candidates, caption, first_candidates
from heretic_tui.control import STUDY, Control
from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine.chat.conversation import OfTrial, Original, Sampling
from heretic_tui.engine.events import AnswerFinished, ModelLoaded, Progress, TextGenerated, Tick
from heretic_tui.preferences import Preferences
from heretic_tui.screens.chat.dialogs import sampling, settings_problems
from heretic_tui.screens.dialogs import Confirm, Pick, Text
from heretic_tui.screens.frame import SCREENS
from heretic_tui.talk import CHAT, Talk, fitting
from heretic_tui.transcripts import keep, kept, transcript
from heretic_tui.worker import EngineWorker, Failure, JobEnded, JobStarted


class Engine:
    """Answers every turn with the words it is given; may be held back in the middle of an answer."""

    def __init__(self, app, words=("All", " good."), hold=False):
        self.app, self.words = app, words
        self.turns = []
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()
        app.control.chat = self.chat

    def chat(self, turns, sampling):
        self.turns.append(list(turns))
        self.app.control.worker.submit(CHAT, lambda session: self.answers(turns))

    def answers(self, turns):
        yield ModelLoaded(FACTS)
        for column, turn in enumerate(turns):
            text = f"{turn.candidate.label}: "
            yield TextGenerated(text, column)
            while not self.go_on.is_set():
                yield Tick()
                time.sleep(0.005)
            for word in self.words:
                text += word
                yield TextGenerated(word, column)
            yield AnswerFinished(column, text, 12, 0.5, "eos")


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("chat")
            await until(pilot, lambda: app.screen.query("MessageBox"))
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


@pytest.fixture
def app(tmp_path):
    app = fake_app(tmp_path)
    app.control.show(study(tmp_path / "run"))
    return app


def screen(app):
    return app.screen_stack[0]


async def say(app, pilot, text, column=0):
    """Send a message, and wait until all have answered."""
    box = screen(app)._box
    box.insert(text)
    box.action_send()
    await until(pilot, lambda: any(one.message == text.strip() for one in screen(app).talk.columns[column].shown))
    await until(pilot, lambda: not screen(app).talk.busy)
    await pilot.pause(0.15)


# The screen


def test_without_model_and_run_it_says_what_to_press(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        assert "Press 1 to pick a model" in text_of(app)
        assert not screen(app)._box.display

    drive(app, steps)


def test_every_screen_is_one_function_key_away_from_the_message_box(app):
    def at(mode):
        return app.current_mode == mode

    async def steps(pilot):
        for key, name in SCREENS:
            await until(pilot, lambda: app.focused is screen(app)._box)
            await pilot.press(f"f{key}")
            await until(pilot, partial(at, name.lower()))
            app.switch_mode("chat")

    drive(app, steps)


def test_a_message_is_answered_by_the_best_trial_and_the_answer_tells_by_whom_and_how_fast(app):
    engine = Engine(app)

    async def steps(pilot):
        await say(app, pilot, "Hello?")
        text = text_of(app)
        assert "Hello?" in text
        assert "All good." in text
        assert "12 tokens · 24 tokens/s · ended by itself" in text
        best = first_candidates(app.control.state.study, None)[0]
        assert engine.turns[0][0].candidate == best
        assert screen(app)._box.text == ""

    drive(app, steps)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_two_candidates_answer_side_by_side_each_with_its_own_history(app, size):
    engine = Engine(app)

    async def steps(pilot):
        screen(app).action_compare()
        await say(app, pilot, "First")
        await say(app, pilot, "Second")
        left, right = engine.turns[1]
        assert [message.text for message in right.messages[-3:]] == ["First", "original: All good.", "Second"]
        assert left.messages[-2].text != right.messages[-2].text
        assert text_of(app).count("Second") == 2

    drive(app, steps, size)


def test_below_seventy_columns_one_column_is_shown_at_a_time(app):
    Engine(app)

    async def steps(pilot):
        screen(app).action_compare()
        await say(app, pilot, "Hello?")
        assert screen(app)._column(0).display
        assert not screen(app)._column(1).display
        await pilot.press("escape", "o")
        await pilot.pause(0.2)
        assert screen(app)._column(1).display
        assert "original: All good." in text_of(app)

    drive(app, steps, (60, 24))


def test_a_second_column_takes_over_the_talk_and_again_asks_only_who_owes_an_answer(app):
    engine = Engine(app)

    async def steps(pilot):
        await say(app, pilot, "Hello?")
        screen(app).action_compare()
        await pilot.pause(0.2)
        assert "was not asked this yet" in text_of(app)
        screen(app).action_again()
        await until(pilot, lambda: not screen(app).talk.busy)
        assert [turn.candidate for turn in engine.turns[1]] == [Original()]
        screen(app).action_again()
        await until(pilot, lambda: len(engine.turns) == 3)
        assert len(engine.turns[2]) == 2

    drive(app, steps)


def test_escape_stops_an_answer_at_once_and_keeps_what_was_said_and_what_is_typed(app):
    engine = Engine(app, hold=True)

    async def steps(pilot):
        box = screen(app)._box
        box.insert("Hello?")
        box.action_send()
        talk = screen(app).talk
        await until(pilot, lambda: talk.columns[0].last and talk.columns[0].last.answer.text)
        box.insert("and then")
        box.action_send()
        await pilot.pause(0.1)
        assert box.text == "and then", "a message is not sent into an answer under way, and not lost"
        await pilot.press("escape")
        await until(pilot, lambda: not talk.busy)
        await pilot.pause(0.2)
        assert talk.columns[0].last.answer.ended == "stopped"
        assert "stopped · r asks again" in text_of(app)
        assert box.text == "and then"
        assert box.has_focus
        await pilot.press("escape")
        assert not box.has_focus
        assert box.text == "and then"

    drive(app, steps)
    assert engine.turns


def test_an_answer_that_waits_for_the_engine_can_be_called_off(app):
    Engine(app)
    release = threading.Event()

    def hold(session):
        while not release.is_set():
            yield Tick()
            time.sleep(0.005)

    async def steps(pilot):
        app.control.worker.submit("load", hold)
        await until(pilot, lambda: app.control.state.activity is not None)
        box = screen(app)._box
        box.insert("Hello?")
        box.action_send()
        await until(pilot, lambda: screen(app).talk.busy)
        await pilot.pause(0.2)
        assert "waits for the engine (load)" in text_of(app)
        screen(app).action_back()
        assert screen(app).talk.stopping
        assert app.control.worker.current == "load", "the other job goes on"
        release.set()

    drive(app, steps)


def test_while_a_study_runs_it_asks_before_it_pauses_it(app):
    engine = Engine(app)

    async def steps(pilot):
        run_job(app, Progress("trial 1", 1, 2), title=STUDY, forever=True)
        await until(pilot, lambda: app.control.studying)
        box = screen(app)._box
        box.insert("Hello?")
        box.action_send()
        await until(pilot, lambda: isinstance(app.screen, Confirm) and "The study has the engine" in text_of(app))
        await pilot.press("n")
        assert box.text == "Hello?"
        assert not engine.turns
        box.action_send()
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: engine.turns and not screen(app).talk.busy)
        await pilot.pause(0.2)
        assert "the study is paused" in text_of(app)
        assert screen(app).talk.columns[0].last.answer.ended == "eos"

    drive(app, steps)


def test_the_last_message_is_edited_and_asked_again_and_a_draft_survives_that(app):
    engine = Engine(app)

    async def steps(pilot):
        await say(app, pilot, "Helo?")
        box = screen(app)._box
        await pilot.press("up")
        await until(pilot, lambda: box.text == "Helo?")
        await pilot.press("escape")
        assert box.text == ""
        box.write("a draft")
        screen(app).action_edit()
        box.write("Hello?")
        box.action_send()
        await until(pilot, lambda: len(engine.turns) == 2 and not screen(app).talk.busy)
        talk = screen(app).talk
        assert [one.message for one in talk.columns[0].shown] == ["Hello?"]
        assert box.text == "a draft"
        assert "Helo?" in transcript(talk, "model"), "what was replaced is kept"

    drive(app, steps)


def test_the_left_candidate_is_chosen_by_keyboard_from_within_the_box(app):
    engine = Engine(app)

    async def steps(pilot):
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, Pick))
        await pilot.press(*"original", "enter")
        await until(pilot, lambda: not isinstance(app.screen, Pick))
        await say(app, pilot, "Hello?")
        assert engine.turns[0][0].candidate == Original()
        assert app.control.trial == 0, "the selection goes with it"

    drive(app, steps)


def test_a_trial_selected_elsewhere_answers_when_one_comes_back(app):
    Engine(app)

    async def steps(pilot):
        app.switch_mode("study")
        await pilot.pause()
        app.control.trial = 7
        app.switch_mode("chat")
        await pilot.pause(0.2)
        assert screen(app).talk.columns[0].candidate == OfTrial(7)

    drive(app, steps)


def test_an_answer_goes_on_while_another_screen_is_in_front(app):
    engine = Engine(app, hold=True)

    async def steps(pilot):
        box = screen(app)._box
        box.insert("Hello?")
        box.action_send()
        await until(pilot, lambda: engine.turns)
        app.switch_mode("study")
        await pilot.pause()
        engine.go_on.set()
        await until(pilot, lambda: not app.control.state.talking.busy)
        app.switch_mode("chat")
        await pilot.pause(0.2)
        assert "All good." in text_of(app)

    drive(app, steps)


def test_foreign_text_is_shown_as_typed_wherever_it_stands(app):
    Engine(app, words=tuple(f"{text}\n" for text in NASTY))

    async def steps(pilot):
        screen(app).action_compare()
        await say(app, pilot, NASTY[0])
        text = text_of(app)
        assert "[bold red]markup[/]" in text
        assert "\\x1b[31mred" in text
        assert "\\u202e" in text or "\\x202e" in text
        assert "\x1b" not in text

    drive(app, steps, (120, 40))


def test_a_pasted_escape_sequence_does_not_get_into_the_box(app):
    async def steps(pilot):
        from textual.events import Paste

        box = screen(app)._box
        box.focus()
        box.post_message(Paste("one\r\ntwo \x1b[31mred\x07"))
        await until(pilot, lambda: box.text == "one\ntwo [31mred")

    drive(app, steps)


def test_an_answer_that_failed_says_why_and_can_be_asked_again(app):
    def chat(turns, sampling):
        def fail(session):
            yield Tick()
            raise RuntimeError("[bold]no[/] \x1b[31mway")

        app.control.worker.submit(CHAT, fail)

    app.control.chat = chat

    async def steps(pilot):
        await say(app, pilot, "Hello?")
        text = text_of(app)
        assert "failed: Something unforeseen happened" in text
        assert "r asks again" in text
        assert "\x1b" not in text

    drive(app, steps, (120, 40))


def test_every_answer_is_saved_and_opened_from_the_history(app, tmp_path):
    (tmp_path / "run").mkdir(exist_ok=True)
    Engine(app)

    async def steps(pilot):
        await say(app, pilot, "What is kept?")
        screen(app)._archive.save()
        await until(pilot, lambda: (tmp_path / "run" / "chats").is_dir() and not screen(app).talk.unsaved)
        screen(app).action_new()
        await pilot.pause(0.2)
        assert "Nothing was said yet." in text_of(app)
        screen(app).action_history()
        await until(pilot, lambda: isinstance(app.screen, Pick) and "What is kept?" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Text))
        assert "All good." in app.screen.text

    drive(app, steps)


def test_what_was_said_last_is_saved_when_the_app_ends(app, tmp_path):
    (tmp_path / "run").mkdir(exist_ok=True)
    Engine(app)

    async def steps(pilot):
        await say(app, pilot, "To the last word")

    drive(app, steps)
    assert "To the last word" in kept(tmp_path / "run")[0][1]


def test_the_last_answer_and_the_whole_talk_are_copied(app):
    Engine(app)

    async def steps(pilot):
        await say(app, pilot, "Hello?")
        screen(app).action_copy()
        assert app.clipboard.endswith("All good.")
        screen(app).action_copy_all()
        assert "## You\n\nHello?" in app.clipboard

    drive(app, steps)


def test_enter_never_overtakes_letters_typed_before_it(app):
    engine = Engine(app)

    async def steps(pilot):
        await pilot.press(*"Hi you", "enter")
        await until(pilot, lambda: engine.turns)
        assert engine.turns[0][0].messages[-1].text == "Hi you"

    drive(app, steps)


def test_the_real_engine_loads_the_demo_model_and_answers(tmp_path):
    app = HereticApp(Control(EngineWorker(), Preferences(), tmp_path / "runs"))
    app.control.model_name = str(MODEL_DIR)

    async def steps(pilot):
        talk = screen(app).talk
        talk.sampling = Sampling(max_tokens=8)
        box = screen(app)._box
        box.insert("What is the opposite of hot?")
        box.action_send()
        await until(pilot, lambda: talk.columns[0].last and not talk.busy, seconds=120)
        answer = talk.columns[0].last.answer
        assert answer.whole, answer
        assert 0 < answer.tokens <= 8
        await until(pilot, lambda: answer.text.split()[0] in text_of(app))

    drive(app, steps)
    assert "opposite" in kept(str(MODEL_DIR))[0][1]


# The talk, without a screen


def talk_of(*messages: str) -> Talk:
    talk = Talk()
    for message in messages:
        talk.ask(message)
        talk.apply(JobStarted(CHAT))
        talk.apply(AnswerFinished(0, f"to {message}", 3, 1.0, "eos"))
        talk.apply(JobEnded(CHAT, "done"))
    return talk


def test_a_message_that_never_got_an_answer_is_left_out_of_what_the_model_sees():
    talk = talk_of("one")
    talk.ask("two")
    talk.apply(JobStarted(CHAT))
    talk.apply(JobEnded(CHAT, "failed", Failure("No.", "Try.", "")))
    (turn,) = talk.ask("three")
    assert [message.text for message in turn.messages] == ["one", "to one", "three"]


def test_the_system_prompt_goes_first():
    talk = Talk(system="Be brief.")
    (turn,) = talk.ask("Hello")
    assert [message.role for message in turn.messages] == ["system", "user"]


def test_another_job_changes_nothing_in_a_talk_that_waits():
    talk = Talk()
    talk.ask("Hello")
    talk.apply(JobStarted("load"))
    talk.apply(JobEnded("load", "done"))
    assert talk.busy
    assert not talk.started


def test_a_transcript_puts_both_answers_under_their_message():
    talk = Talk(two=True)
    talk.columns[0].candidate = OfTrial(3)
    talk.ask("Hello")
    talk.apply(JobStarted(CHAT))
    talk.apply(AnswerFinished(0, "left answer", 3, 1.0, "eos"))
    talk.apply(AnswerFinished(1, "right answer", 4, 1.0, "length"))
    talk.apply(JobEnded(CHAT, "done"))
    text = transcript(talk, "a model")
    assert text.count("## You") == 1
    assert text.index("## trial 3") < text.index("left answer") < text.index("## original") < text.index("right answer")
    assert "cut at the limit of tokens" in text


def test_a_talk_without_a_run_is_kept_in_the_data_folder(home):
    keep("org/model", "now", transcript(talk_of("Hello"), "org/model"))
    assert kept("org/model")[0][1] == "Hello"


def test_the_longest_answer_leaves_room_in_a_small_context():
    assert fitting(512).max_tokens == 128
    assert fitting(None) == fitting(100_000) == Sampling()


def test_the_front_stands_first_among_the_candidates(tmp_path):
    view = study(tmp_path)
    rows = candidates(view)
    count = len(view.front)
    assert all(row.best for row in rows[:count])
    assert [row.key for row in rows[count : count + 4]] == [Original(), "removed", "added", "rotated"]
    assert len(rows) == len(view.records) + 4
    assert caption(rows[0].key, view).startswith("★ trial")


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", "-1"), ("temperature", "hot"), ("top_p", "2"), ("top_k", "1.5"), ("seed", "x")]
)
def test_settings_that_make_no_sense_are_refused_with_a_reason(field, value):
    values = {"temperature": "0.7", "top_p": "0.9", "top_k": "40", "max_tokens": "100", "seed": ""}
    assert settings_problems(values) == {}
    assert sampling(values) == Sampling(0.7, 0.9, 40, 100)
    assert list(settings_problems({**values, field: value})) == [field]
    assert settings_problems({**values, field: value})[field]
