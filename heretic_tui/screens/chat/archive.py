"""The chats on disk: saved as they go on, and opened to be read."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from heretic_tui.engine.errors import EngineError
from heretic_tui.formats import one_line
from heretic_tui.screens.dialogs import Pick, Text
from heretic_tui.state import State
from heretic_tui.talk import Talk
from heretic_tui.transcripts import keep, kept, transcript
from heretic_tui.widgets.rows import Column, Row

if TYPE_CHECKING:
    from heretic_tui.screens.frame import FrameScreen

logger = logging.getLogger(__name__)

Key = Path | str
"""What a talk is about: a run's folder, or a model."""


def title(key: Key, state: State) -> str:
    """What a transcript of this run or model is called."""
    if isinstance(key, str):
        return key
    study = state.studies.get(key)
    return f"{study.model} ({study.name})" if study else key.name


class ChatArchive:
    """Keeps every talk on disk, off the screen's thread, and opens what was kept."""

    def __init__(self, screen: "FrameScreen") -> None:
        self._screen = screen
        self._replaced: list[tuple[Key, Talk]] = []
        """Talks that a new one has taken the place of, until they are on disk."""
        self._saving = False
        self._writing = Lock()
        self._problem = ""

    def put_away(self, key: Key, talk: Talk) -> None:
        """See to it that a talk that is no longer shown is kept."""
        self._replaced.append((key, talk))
        self.save()

    def _unsaved(self) -> list[tuple[Key, Talk, int, str]]:
        """What is to be written: each talk with its version and its transcript."""
        state = self._screen.state
        self._replaced = [(key, talk) for key, talk in self._replaced if talk.unsaved]
        return [
            (key, talk, talk.version, transcript(talk, title(key, state)))
            for key, talk in [*self._replaced, *state.talks.items()]
            if talk.unsaved
        ]

    def save(self) -> None:
        """Save what was said, off the screen's thread."""
        if self._saving or not (due := self._unsaved()):
            return
        self._saving = True

        def work() -> None:
            problem = self._write(due)
            self._screen.app.call_from_thread(done, problem)

        def done(problem: str) -> None:
            self._saving = False
            if problem and problem != self._problem:  # it is tried again and again, but told once
                words = f"The chat could not be saved; Y copies it. {one_line(problem)}"
                self._screen.notify(words, severity="warning", markup=False, timeout=10)
            self._problem = problem

        self._screen.run_worker(work, thread=True, group="save", exit_on_error=False)

    def save_now(self) -> None:
        """Save what was said before the app ends."""
        if problem := self._write(self._unsaved()):
            logger.error("a chat could not be saved: %s", problem)

    def _write(self, due: Sequence[tuple[Key, Talk, int, str]]) -> str:
        """Write transcripts; returns what went wrong."""
        for key, talk, version, text in due:
            try:
                with self._writing:
                    keep(key, talk.name, text)
            except (EngineError, OSError) as error:
                return str(error)
            talk.saved = version
        return ""

    def offer(self, key: Key) -> None:
        """Let the person choose an earlier chat to read."""
        app = self._screen.app

        def find() -> None:
            try:
                found = kept(key)
            except OSError as error:
                words = f"The earlier chats cannot be listed: {error.strerror or error}"
                app.call_from_thread(self._screen.notify, one_line(words), severity="warning", markup=False)
                return
            app.call_from_thread(show, found)

        def show(found: Sequence[tuple[Path, str]]) -> None:
            if not found:
                words = "No chat was kept yet: the first answer begins the history."
                self._screen.notify(words, markup=False, timeout=4)
                return
            rows = [Row(file, (file.stem, first)) for file, first in found]
            app.push_screen(Pick("Earlier chats, newest first", [Column("", 19), Column("")], rows), self._open)

        self._screen.run_worker(find, thread=True, group="history", exclusive=True, exit_on_error=False)

    def _open(self, file: Path | None) -> None:
        if file is None:
            return
        app = self._screen.app

        def work() -> None:
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                text = f"{file} cannot be read: {error.strerror or error}"
            app.call_from_thread(app.push_screen, Text(file.stem, text))

        self._screen.run_worker(work, thread=True, group="history", exclusive=True, exit_on_error=False)
