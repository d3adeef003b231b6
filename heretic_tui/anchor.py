"""Letting go of the terminal: the program runs beside a small process that holds its place in the shell."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

LET_GO = b"g"


class Anchor:
    """What ties the program to the shell that started it."""

    def __init__(self, line: int | None = None) -> None:
        self._line = line

    @property
    def holds(self) -> bool:
        """Whether there is a shell that waits, and can be let go."""
        return self._line is not None

    def let_go(self, words: str) -> None:
        """Give the shell its prompt back with these words on the terminal, and go on without either."""
        if self._line is None:
            return
        os.setsid()  # what happens to the terminal from now on does not reach this process
        with suppress(OSError):  # the shell may be gone already
            os.write(self._line, LET_GO + words.encode())
        os.close(self._line)
        self._line = None


def anchored(work: Callable[[Anchor], None]) -> None:
    """Do `work` in a child process, and wait for it as a shell would, until it ends or lets go.

    Call it before any thread is started. Where the system cannot fork, the work is done right here and cannot let go.
    """
    if not hasattr(os, "fork"):
        work(Anchor())
        return
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        work(Anchor(writing))
        return
    os.close(writing)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    told = _all_of(reading)
    if told.startswith(LET_GO):
        sys.stdout.write(told[len(LET_GO) :].decode(errors="replace") + "\n")
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os._exit(_exit_code(status))


def _all_of(line: int) -> bytes:
    """What is written to a pipe until its other end is closed; keys that end a program are the child's to handle."""
    told = b""
    while True:
        try:
            more = os.read(line, 4096)
        except KeyboardInterrupt:
            continue
        if not more:
            return told
        told += more


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
