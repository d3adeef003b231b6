"""Following a run on disk that another process works on."""

import time
from pathlib import Path

from heretic_tui.engine.ownership import read_claims
from heretic_tui.engine.run import BASELINE, JOURNAL, MODEL

ANEW = 2.0
"""Seconds between two readings of a study in a database, which has no file that tells of changes."""


def signature(folder: Path) -> tuple[object, ...]:
    """What changes when something is added to a run's folder, or another process takes it or leaves it."""
    return (
        folder,
        tuple((claim.owner, claim.alive) for claim in read_claims(folder)),
        None if (folder / JOURNAL).is_file() else time.monotonic() // ANEW,
        *(_changed(folder / name) for name in (JOURNAL, BASELINE, MODEL)),
    )


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
