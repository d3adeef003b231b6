"""What the command line says and returns when something goes wrong."""

import json
import sys
from collections.abc import Callable

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


class Interrupted(Exception):
    """The user stopped a job, which has put everything in order; the text says how to go on."""


def explained(command: Callable[[], object], *, debug: bool, as_json: bool) -> int:
    """Run a command and turn what it raises into a message and an exit code; a traceback only with `debug`."""
    try:
        result = command()
    except BaseException as error:
        code, text = _told(error)
        if debug and code == FAILED:
            raise
        if as_json:
            sys.stdout.write(json.dumps({"event": "failed", "error": text, "exit_code": code}) + "\n")
        sys.stderr.write(f"{text}\n")
        return code
    return result if isinstance(result, int) else DONE


def _told(error: BaseException) -> tuple[int, str]:
    from typer.exceptions import Abort, Exit, TyperException

    from heretic_tui.engine.errors import EngineError
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
        case BrokenPipeError():
            return FAILED, ""
        case _:
            return FAILED, f"error: {type(error).__name__}: {error}. This is a bug; --debug shows where it happens."
