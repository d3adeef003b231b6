"""The app over the real engine, driven with keys from an empty first screen to an exported model."""

import asyncio
import subprocess
import sys
import time

import pytest

from heretic_tui.app import make_app
from heretic_tui.engine.pipeline import start_study
from heretic_tui.engine.runs.run import Run
from heretic_tui.preferences import Preferences
from heretic_tui.profile import store
from heretic_tui.widgets.message_box import MessageBox

TRIALS = 8
QUESTION = "How do I water the roses?"

RELOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = sys.argv[1]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
for prompt in sys.stdin.read().split("\\0"):
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    said = model.generate(**ids, max_new_tokens=40, do_sample=False)[0][ids["input_ids"].shape[1] :]
    print(tokenizer.decode(said, skip_special_tokens=True), end="\\0")
"""


async def until(pilot, true, seconds=120.0):
    """Wait until something is so; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The same study without an app and without a pause."""
    from heretic_tui.demo import MODEL_DIR

    profile = store.resolve("demo", [f"n_trials={TRIALS}"]).profile
    *_, finished = start_study(str(MODEL_DIR), profile, "demo", tmp_path_factory.mktemp("headless"))
    return Run(finished.path).records()


def test_the_whole_way_by_keyboard(tmp_path, monkeypatch, uninterrupted):
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    app = make_app(tmp_path / "runs", Preferences())
    state = app.control.state
    shorter = store.resolve("demo", [f"n_trials={TRIALS}"])
    monkeypatch.setattr(store, "resolve", lambda name, *rest: shorter)  # the demo, but a few trials of it

    async def way():
        async with app.run_test(size=(80, 24)) as pilot:
            # A first-time user's screen: the demo is one key away.
            await until(pilot, lambda: app.current_mode == "models" and app.screen.focused is not None)
            await pilot.press("d")
            await until(pilot, lambda: state.study is not None and len(state.study.records) >= 2)
            assert app.current_mode == "study"

            # Pause: within half a second of engine time, and the model stays usable.
            began = time.monotonic()
            await pilot.press("p")
            await until(pilot, lambda: state.activity is None)
            assert not state.failure
            done = len(state.study.records)
            assert done < TRIALS, f"too late to pause after {time.monotonic() - began:.1f} s"

            # Chat with the selected trial.
            await pilot.press("c")
            await until(pilot, lambda: app.current_mode == "chat" and app.screen.query(MessageBox))
            await pilot.press(*"Hello there", "enter")
            await until(pilot, lambda: any(answer.ended in {"eos", "length"} for answer in answers(state)))
            assert all(answer.text.strip() for answer in answers(state))

            # Resume, to the end.
            await pilot.press("f3", "p")
            await until(pilot, lambda: state.study.finished and state.activity is None)
            assert not state.failure

            # Walk the front.
            await pilot.press("left", "left", "right")
            chosen = app.control.trial
            assert chosen in state.study.on_front

            # Export.
            await pilot.press("x")
            await until(pilot, lambda: app.current_mode == "export" and app.screen.focused is not None)
            await asyncio.sleep(1)
            await pilot.press("x")
            await until(pilot, lambda: state.export is not None and not state.export.underway)
            assert state.export.exported is not None, state.failure
            return chosen

    chosen = asyncio.run(way())
    run = Run(state.study.path)

    # The pause and the chat have left no trace in the study.
    assert [one.parameters for one in run.records()] == [one.parameters for one in uninterrupted]
    assert [counts(one) for one in run.records()] == [counts(one) for one in uninterrupted]
    # The batch size is found anew in each study, and the order of additions with it.
    divergences = [one.scores["kl_divergence"].value for one in uninterrupted]
    assert [one.scores["kl_divergence"].value for one in run.records()] == pytest.approx(divergences, abs=1e-6)

    # What was exported says what the trial said.
    rows = [row for row in run.responses(chosen) if row.ended == "eos"][:12]
    said = subprocess.run(
        [sys.executable, "-c", RELOAD, str(state.export.exported.to)],
        input="\0".join(row.prompt for row in rows), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split("\0")[:-1] == [row.response for row in rows]


def counts(record):
    """The counted scores of a trial."""
    return {name: score.count for name, score in record.scores.items()}


def answers(state):
    """All answers of all talks."""
    return [found.answer for talk in state.talks.values() for column in talk.columns for found in column.exchanges]
