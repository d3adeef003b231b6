"""Keys from the terminal, without the tenth of a second that Textual's own driver gives an escape."""

import codecs
import os
import select
from contextlib import suppress
from typing import Any

from textual import constants
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver


class QuickDriver(LinuxDriver):
    """Textual's driver for Unix terminals, which sees sooner that an escape is the key and begins no sequence.

    Textual looks for that ten times a second, whatever `ESCDELAY` says; this one looks after that time.
    """

    def run_input_thread(self) -> None:
        """Read keys until the app ends."""
        parser = XTermParser(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        while not self.exit_event.is_set():
            readable, _, _ = select.select([self.fileno], [], [], constants.ESCAPE_DELAY)
            if readable:
                given = b""
                with suppress(OSError):
                    given = os.read(self.fileno, 4096)
                if not given:  # the terminal is gone
                    app: Any = self._app
                    app.call_later(app.hang_up)
                    break
                for message in parser.feed(decode(given)):
                    self.process_message(message)
            for message in parser.tick():
                self.process_message(message)
        for message in parser.feed(""):
            self.process_message(message)
