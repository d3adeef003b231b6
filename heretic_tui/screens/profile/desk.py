"""What every part of the profile screen works on: the draft, kept on disk, and work off the screen's thread."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from textual.content import Content
from textual.timer import Timer
from textual.worker import Worker, WorkerState

from heretic_tui.formats import one_line, plain
from heretic_tui.screens.frame import FrameScreen

if TYPE_CHECKING:
    from heretic_tui.profile.draft import Draft
    from heretic_tui.profile.form import Field, Section
    from heretic_tui.profile.problems import ProfileError

T = TypeVar("T")

KEEP_AFTER = 0.5
"""Seconds from a change to when it is written down."""


class ProfileDesk(FrameScreen):
    """`draft` is the profile that is edited; the parts of the screen read and replace it."""

    def __init__(self) -> None:
        super().__init__()
        self.draft: Draft | None = None
        self._keeping: Timer | None = None
        self._seen: str | None = None
        """The text that something else gave the file, as far as the person knows of it."""

    def show_draft(self) -> None:
        """Show the profile as it is now."""

    @property
    def field(self) -> "Field | None":
        """The setting under the cursor."""
        raise NotImplementedError

    def table(self) -> "Section | None":
        """The table that the cursor is in."""
        raise NotImplementedError

    # Off the screen's thread

    def aside(self, work: Callable[[], T], then: Callable[[T], None], group: str = "profile") -> None:
        """Do something that reads or writes a disk on a thread, then go on here with its result."""

        def run() -> None:
            from heretic_tui.profile.problems import ProfileError

            try:
                result = work()
            except ProfileError as error:
                self.app.call_from_thread(self.refused, error)
            except OSError as error:
                self.app.call_from_thread(self.tell, f"{error.filename}: {error.strerror}.", "error")
            else:
                self.app.call_from_thread(then, result)

        self.run_worker(run, thread=True, group=group, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Nothing that fails does so silently."""
        if event.state is WorkerState.ERROR:
            self.tell(f"Something unforeseen happened: {event.worker.error!r}", "error")

    def refused(self, error: "ProfileError") -> None:
        """Say what was wrong."""
        self.tell(str(error), "error")

    def tell(self, text: str, severity: Any = "information") -> None:
        """Say something that needs no answer: what went well quietly on the frame, what did not over it."""
        if severity == "information":
            self._say(text)
        else:
            self.notify(plain(text), severity=severity, markup=False)

    def _say(self, text: str) -> None:
        for panel in self.query("#settings-panel, #side"):
            panel.border_subtitle = Content(one_line(text))

    # The draft

    def take(self, draft: "Draft") -> None:
        """Go on with another state of the profile; it is written down shortly after."""
        self.draft = draft
        self._say("")
        self.control.profile = draft.loaded
        self.show_draft()
        if self._keeping is not None:
            self._keeping.stop()
        self._keeping = self.set_timer(KEEP_AFTER, self._keep)

    def _keep(self) -> None:
        self.aside(self._keeper(), lambda _: None, "keep")

    def _keeper(self) -> Callable[[], None]:
        """What writes the unsaved changes down as they are now; it may run on any thread."""
        if self._keeping is not None:
            self._keeping.stop()
        now = self.draft

        def work() -> None:
            if now is not None:
                from heretic_tui.profile import draft

                draft.keep(now)

        return work

    def on_unmount(self) -> None:
        """Keep what is not saved when the app ends."""
        from heretic_tui.profile.problems import ProfileError

        try:
            self._keeper()()
        except ProfileError as error:
            self.control.state.say(str(error), "error")
