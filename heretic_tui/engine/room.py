"""A full disk in the middle of a study: how much the rest of it needs."""

from heretic_tui.engine.errors import EngineError, NoRoom
from heretic_tui.engine.run import Run
from heretic_tui.formats import size


def told_for(run: Run, error: NoRoom) -> NoRoom:
    """The error with what the trials that are left will take, judged by those that are there, and how to go on."""
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
