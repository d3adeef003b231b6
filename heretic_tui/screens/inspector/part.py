"""The views of the inspector: what they have in common, and how one computes beside the engine.

What needs the model is a job of the engine (`control.py`). What needs only the vectors in a run's folder runs here,
on a thread of its own, also while the engine works on something else.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from textual.containers import Vertical
from textual.dom import DOMNode
from textual.message import Message
from textual.widget import Widget
from textual.worker import Worker, get_current_worker

from heretic_tui.control import STUDY
from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, Progress
from heretic_tui.inspections import Inspection, name_of
from heretic_tui.state import Activity
from heretic_tui.worker import failure_of

if TYPE_CHECKING:
    from heretic_tui.control import Control
    from heretic_tui.engine.chat.steering import Source

T = TypeVar("T")

OFTEN = 0.1
"""Seconds between two pieces of news that a computation tells at most."""


class Beside(Generic[T]):
    """A job that needs no model, run on a thread beside the engine.

    `done` gets its result and `failed` why there is none, both on the screen's thread; neither is called once it was
    stopped. A job of the same title of the same widget is stopped first.
    """

    def __init__(
        self,
        widget: DOMNode,
        title: str,
        make: Callable[[], Job[T]],
        done: Callable[[T], None],
        failed: Callable[[EngineError], None] | None = None,
        told: Callable[[Event], None] | None = None,
    ) -> None:
        self.widget, self.title, self.make = widget, title, make
        self._done, self._failed, self._told = done, failed, told
        self.activity = Activity(title, time.monotonic(), phase=title, phase_began=time.monotonic())
        """How far it has come, as the engine's jobs tell it."""
        self.over = False
        control: Control = cast("Any", widget.app).control
        self._known = control.state.beside
        self._known[self.title] = self.activity
        self._worker: Worker[None] = widget.run_worker(
            self._work, thread=True, exclusive=True, group=f"beside-{title}", exit_on_error=False
        )

    def stop(self) -> None:
        """Stop it at its next event; nothing more is heard of it."""
        self._end()
        self._worker.cancel()

    def _end(self) -> None:
        self.over = True
        if self._known.get(self.title) is self.activity:
            del self._known[self.title]

    def _work(self) -> None:
        worker = get_current_worker()
        try:
            result = self._iterate(worker)
        except EngineError as error:
            self._tell(self._fail, error)
        except Exception as error:  # noqa: BLE001 - a bug must not take the app down: it is said like any failure
            failure = failure_of(error)
            self._tell(self._fail, EngineError(failure.cause, failure.remedy), failure.details)
        else:
            if not worker.is_cancelled:
                self._tell(self._succeed, result)

    def _iterate(self, worker: Worker[Any]) -> T:
        job = self.make()
        last = 0.0
        try:
            while not worker.is_cancelled:
                event = next(job)
                if not event.replaceable:
                    self._tell(self._hear, event)
                elif isinstance(event, Progress) and time.monotonic() - last >= OFTEN:
                    last = time.monotonic()
                    self._tell(self._hear, event)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            job.close()
        return cast("T", None)  # stopped: nobody looks at it

    def _tell(self, call: Callable[..., None], *what: Any) -> None:
        self.widget.call_later(partial(call, *what))

    def _hear(self, event: Event) -> None:
        if self.over:
            return
        if isinstance(event, Progress):
            self.activity.advance(event)
        if self._told is not None:
            self._told(event)

    def _succeed(self, result: T) -> None:
        if not self.over:
            self._end()
            self._done(result)

    def _fail(self, error: EngineError, details: str = "") -> None:
        if self.over:
            return
        self._end()
        control: Control = cast("Any", self.widget.app).control
        control.state.say(details or str(error), "traceback" if details else "error")
        if self._failed is not None:
            self._failed(error)


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file that a view can write: its name, what it is in a few words, and what makes its text, off the screen."""

    name: str
    words: str
    text: Callable[[], str]


def may_ask(widget: Widget) -> bool:
    """Whether the engine can be asked for something; says why not, or that it comes later."""
    worker = cast("Any", widget.app).control.worker
    if worker.current == STUDY:
        widget.notify(
            "A study runs, and this needs the model to itself. Pause it first: 3, then p.",
            severity="warning",
            markup=False,
        )
        return False
    if worker.busy:
        widget.notify(f"It begins when the engine is done with: {worker.current or 'its job'}.", markup=False)
    return True


def suffix(trial: int) -> str:
    """What files about a trial have in their names."""
    return f"-trial-{trial:04}" if trial else ""


class InspectorPart(Vertical):
    """A view of the inspector. It is mounted when it is first chosen, and told what to show from then on."""

    NAME: ClassVar[str] = ""
    """What it is called in titles."""
    HELP: ClassVar[str] = ""
    NEEDS_VECTORS: ClassVar[bool] = True
    """Whether the screen says what to do, instead of showing the view, where there are no residual vectors."""
    DEFAULT_CSS = """
    InspectorPart { height: 1fr; }
    """

    class RowChosen(Message):
        """The view wants another layer to be selected."""

        def __init__(self, row: int) -> None:
            super().__init__()
            self.row = row

    class Retitled(Message):
        """The view's title has changed."""

    class Mounted(Message):
        """The view's widgets are there, and it can show something."""

    def __init__(self) -> None:
        super().__init__(id=self.NAME, classes="part")
        self.inspection: Inspection | None = None
        self.ready = False
        """Whether its widgets are there."""
        self._jobs: dict[str, Beside[Any]] = {}

    def on_mount(self) -> None:
        """Tell the screen that there is a view to show."""
        self.ready = True
        self.post_message(self.Mounted())

    @property
    def control(self) -> "Control":
        """What can be asked of the engine."""
        return cast("Any", self.app).control  # type: ignore[no-any-return]

    def show(self, inspection: Inspection) -> None:
        """Show this; called when the view comes in front, and when the row, the side or the vectors change.

        It must return within a frame: what takes longer is a `compute` or a job of the engine.
        """
        self.inspection = inspection

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Take in what the engine has told, while the view is in front."""

    @property
    def whose(self) -> str:
        """Of which model the view is, for the frame's title."""
        return "" if self.inspection is None else name_of(self.inspection.number)

    @property
    def title(self) -> str:
        """What stands in the frame's title after the view's name."""
        return ""

    @property
    def source(self) -> "Source | None":
        """The direction that the view shows, to steer with; None for the selected layer's own."""
        return None

    def choose_row(self, row: int) -> None:
        """Select another layer, on the whole screen."""
        self.post_message(self.RowChosen(row))

    def say_title(self) -> None:
        """Let the frame show the title anew."""
        self.post_message(self.Retitled())

    def measure_own(self) -> bool:
        """Measure what this view needs beyond the residual vectors; says whether it did, or m measures those."""
        return False

    def files(self) -> "Sequence[OwnFile]":
        """What `e` writes of what is shown; a view with a way of its own overrides `export` instead."""
        return ()

    def export(self) -> None:
        """Ask for a folder, and write the view's files to it."""
        from heretic_tui.screens.inspector.export import export_files

        if self.inspection is not None:
            export_files(self, self.inspection, self.files())

    def compute(
        self,
        title: str,
        make: Callable[[], Job[T]],
        done: Callable[[T], None],
        failed: Callable[[EngineError], None] | None = None,
        told: Callable[[Event], None] | None = None,
    ) -> Beside[T]:
        """Run a job that needs no model beside the engine; one of the same title is stopped first."""
        self.stop_computing(title)
        beside = Beside(self, title, make, done, failed or self._complain, told)
        self._jobs[title] = beside
        return beside

    def stop_computing(self, title: str) -> None:
        """Stop a job that `compute` has begun."""
        if (beside := self._jobs.pop(title, None)) is not None and not beside.over:
            beside.stop()

    def stop_all(self) -> None:
        """Stop all that `compute` has begun, because the person wants it."""
        for title in list(self._jobs):
            self.stop_computing(title)

    def on_unmount(self) -> None:
        """Nothing goes on for a view that is gone."""
        self.stop_all()

    def _complain(self, error: EngineError) -> None:
        self.notify(str(error), severity="error", markup=False, timeout=8)
