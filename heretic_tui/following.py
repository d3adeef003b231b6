"""Following a run on disk that another process works on."""

from pathlib import Path

from heretic_tui.engine.ownership import read_claim
from heretic_tui.engine.run import BASELINE, JOURNAL, MODEL


def signature(folder: Path) -> tuple[object, ...]:
    """What changes when something is added to a run's folder, or another process takes it or leaves it."""
    claim = read_claim(folder)
    return (
        folder,
        claim is not None and claim.alive,
        None if claim is None else claim.owner,
        *(_changed(folder / name) for name in (JOURNAL, BASELINE, MODEL)),
    )


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
