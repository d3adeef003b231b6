"""What the command line says and returns when something goes wrong."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

from heretic_tui.formats import plain
from heretic_tui.masking import masked

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


class Interrupted(Exception):
    """The user stopped a job, which has put everything in order; the text says how to go on."""


def explained(command: Callable[[], object], *, debug: bool, as_json: bool) -> int:
    """Run a command and turn what it raises into a message and an exit code; a traceback only with `debug`."""
    sys.excepthook = _told_whole
    try:
        result = command()
        if result == INTERRUPTED:  # what typer makes of a Ctrl+C outside a job
            raise Interrupted
        sys.stdout.flush()
    except BaseException as error:
        code, text = _told(error)
        text = masked(text)
        if debug and code == FAILED:
            raise
        if _stdout_is_gone(error):
            _let_go_of_stdout()
        elif as_json and text:
            sys.stdout.write(json.dumps({"event": "failed", "error": text, "exit_code": code}) + "\n")
        if text:
            sys.stderr.write(f"{plain(text)}\n")
        return code
    return result if isinstance(result, int) else DONE


def _told_whole(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback on standard error, without the secrets that an exception's words may hold."""
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


def _stdout_is_gone(error: BaseException) -> bool:
    """Whether nothing more can be written to standard output: its reader went away, or its disk is full."""
    if not isinstance(error, OSError):
        return False
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return isinstance(error, BrokenPipeError)


def _let_go_of_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain about it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: BaseException) -> tuple[int, str]:
    from typer.exceptions import Abort, Exit, TyperException

    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.memory import out_of_memory, ran_out
    from heretic_tui.profile.problems import ProfileError

    match error:
        case Exit():
            return int(error.exit_code), ""
        case Interrupted() | KeyboardInterrupt() | Abort():
            return INTERRUPTED, str(error) or "Interrupted."
        case TyperException():
            shown = getattr(error, "format_message", lambda: str(error))
            return WRONG_USE, f"error: {shown()}"
        case ProfileError():
            return WRONG_USE, str(error)
        case EngineError():
            return FAILED, f"error: {error}"
        case BrokenPipeError() | SystemExit():  # typer exits where the reader of its output went away
            return FAILED, ""
        case _ if out_of_memory(error):
            return FAILED, f"error: {ran_out(error)}"
        case OSError(strerror=str(reason)):
            where = error.filename or "what was asked for"
            return FAILED, f"error: {where} could not be read or written: {reason}. Check that it is there and allowed."
        case _:
            return FAILED, f"error: {type(error).__name__}: {error}. This is a bug; --debug shows where it happens."
