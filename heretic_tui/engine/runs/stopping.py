"""Why a study stopped before its end, in words that say what is lacking and how to go on."""

from heretic_tui.engine.errors import EngineError, NoRoom, write_failure
from heretic_tui.engine.memory import out_of_memory, ran_out
from heretic_tui.engine.runs.run import Run
from heretic_tui.formats import size


def why(run: Run, error: Exception) -> Exception:
    """The error as people are told it; itself where it speaks for itself, or is a bug."""
    if isinstance(error, NoRoom):
        return _no_room(run, error)
    if out_of_memory(error):
        return ran_out(error)
    if isinstance(error, OSError) and not run.path.is_dir():
        return write_failure(run.path, error)
    return error


def _no_room(run: Run, error: NoRoom) -> NoRoom:
    """With what the trials that are left will take, judged by those that are there."""
    needed = _left(run)
    rest = f" The trials that are left take about {size(needed)} more." if needed else ""
    return NoRoom(f"{error.cause}{rest}", f"Free some space, then go on with: heretic-tui run --resume {run.path}")


def _left(run: Run) -> int:
    """Bytes that the trials which are still wanted will take; 0 where that cannot be said."""
    try:
        finished, wanted = run.progress()
        written = [run.path / "responses" / f"trial-{record.trial:04}.jsonl" for record in finished]
        sizes = [path.stat().st_size for path in written if path.is_file()]
        journal = run.journal.stat().st_size
    except (EngineError, OSError):
        return 0
    if not sizes:
        return 0
    return round((sum(sizes) + journal) / len(sizes) * (wanted - len(finished)))
