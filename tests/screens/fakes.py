"""A scripted engine, and made-up trials, for tests of what the screens show."""

import time
from collections.abc import Iterator
from pathlib import Path

from heretic_tui.app import HereticApp
from heretic_tui.control import STUDY, Control
from heretic_tui.engine import events
from heretic_tui.engine.events import Event
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.records import ModelFacts, Score, TrialRecord
from heretic_tui.engine.runs.live import Running
from heretic_tui.engine.storage.studies import ForeignObjective
from heretic_tui.preferences import Preferences
from heretic_tui.state import StudyView
from heretic_tui.worker import EngineWorker

NASTY = [
    "[bold red]markup[/]",
    "[@click=app.quit]click[/]",
    "[/]",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "right \u202eto left\u202c",
    "tab\tand\nbreak\r",
    "宽字符 and e\u0301 and 👩‍👩‍👧",
    "\x00\x07\x9b31m",
    "$primary {braces} %s",
]
"""Texts that must show as typed wherever the program shows text."""

OBJECTIVES = (
    ForeignObjective("refusals", "refusals", "minimize"),
    ForeignObjective("kl_divergence", "KL", "minimize"),
)
FACTS = ModelFacts("made/up-7B", None, "LlamaForCausalLM", 7_000_000_000, 12, 4096, "bfloat16", "cpu", 4096, {})
BASE = {"refusals": Score(0.9, 90, 100), "kl_divergence": Score(0.0)}


def record(trial: int, refusals: int, divergence: float, **fields: object) -> TrialRecord:
    """A trial with these scores."""
    kernel = Kernel(1.2, 6.0, 0.3, 4.0)
    parameters = AblationParameters(
        None if trial % 3 == 0 else 5.5, {"attn.o_proj": kernel, "mlp.down_proj": Kernel(0.8, 8.0, 0.1, 3.0)}
    )
    scores = {"refusals": Score(refusals / 100, refusals, 100), "kl_divergence": Score(divergence)}
    return TrialRecord(trial, parameters, scores, 1.5, **fields)


def records(count: int) -> list[TrialRecord]:
    """Trials spread over the plane, always the same."""
    return [record(n, (n * 37) % 91, 0.001 * 1.07 ** ((n * 53) % 97)) for n in range(1, count + 1)]


def study(path: Path, count: int = 12, wanted: int | None = None) -> StudyView:
    """A run that was read from its folder."""
    found = {one.trial: one for one in records(count)}
    return StudyView(path, "made/up-7B", OBJECTIVES, wanted or count, BASE, found, layers=12)


def scripted(*said: Event, pause: float = 0.0, forever: bool = False) -> Iterator[Event]:
    """A job that says these events, and then perhaps goes on until it is stopped."""
    for event in said:
        yield event
        time.sleep(pause)
    while forever:
        yield events.Progress("waiting", 1, 2)
        time.sleep(0.01)


def fake_app(tmp_path: Path, runs: Running | None = None) -> HereticApp:
    """The app over a worker that has no engine; what it shows stands in its state only, so no folder is followed."""
    app = HereticApp(Control(EngineWorker(make_session=object), Preferences(), tmp_path / "runs"), runs)
    app.follow = lambda: None
    return app


def run_job(app: HereticApp, *said: Event, title: str = STUDY, **options: object) -> None:
    """Let the fake engine say these events, and the app take them in."""
    app.control.worker.submit(title, lambda session: scripted(*said, **options))


async def until(pilot, true, seconds: float = 120.0) -> None:
    """Wait until something is so; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not come true:\n{text_of(pilot.app)}"
        await pilot.pause(0.02)


def text_of(app) -> str:
    """All that stands on the screen, line by line."""
    screen = app.screen
    height = app.size.height
    strips = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips[:height])
