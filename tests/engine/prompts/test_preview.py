"""A look at prompts: beside the engine's work, with and without a model, and never a failure."""

import time

import pytest

from heretic_tui.control import Control
from heretic_tui.engine.events import Progress, PromptsPreviewed
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.prompts.preview import FIRST, preview
from heretic_tui.preferences import Preferences
from heretic_tui.profile.schema import Profile, PromptSet
from heretic_tui.worker import EngineWorker


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"prompt {number}" for number in range(9)))
    return PromptSet(dataset=str(path), prefix="<", suffix=">")


class Model:
    """What a preview needs of a model."""

    def template(self, prompt, system):
        return f"[{system}] {prompt}"


def previewed(prompt_set, model=None):
    (event,) = [one for one in preview("good", prompt_set, Profile(), model) if isinstance(one, PromptsPreviewed)]
    return event


def test_without_a_model_the_prompts_stand_as_they_are_with_prefix_and_suffix(prompts):
    event = previewed(prompts)
    assert (event.total, event.templated, event.problem) == (9, False, "")
    assert event.texts[:2] == ("<prompt 0>", "<prompt 1>")
    assert len(event.texts) == FIRST


def test_with_a_model_its_template_stands_around_them(prompts):
    event = previewed(prompts, Model())
    assert event.templated
    assert event.texts[0] == "[You are a helpful assistant.] <prompt 0>"


def test_what_is_wrong_is_told_in_words(tmp_path):
    event = previewed(PromptSet(dataset=str(tmp_path / "not-there.txt")))
    assert event.total == 0
    assert "There is no prompt file or folder" in event.problem


def test_a_preview_does_not_wait_for_an_engine_at_work(prompts, tmp_path):
    worker = EngineWorker(make_session=Session)
    control = Control(worker, Preferences(), tmp_path)

    def forever(session):
        while True:
            yield Progress("working", 1, 2)
            time.sleep(0.01)

    worker.submit("study", forever)
    try:
        control.preview("good", prompts, Profile())
        end = time.monotonic() + 60
        found = []
        while not found and time.monotonic() < end:
            found = [one for one in control.take_events() if isinstance(one, PromptsPreviewed)]
            time.sleep(0.02)
        assert found[0].total == 9
        assert control.studying
    finally:
        worker.close(5)


def test_an_idle_engine_looks_with_the_model_that_it_holds(prompts, tmp_path):
    session = Session()
    session.model = Model()
    worker = EngineWorker(make_session=lambda: session)
    control = Control(worker, Preferences(), tmp_path)
    try:
        control.preview("good", prompts, Profile())
        assert worker.wait(60)
        (event,) = [one for one in control.take_events() if isinstance(one, PromptsPreviewed)]
        assert event.templated
    finally:
        worker.close(5)
