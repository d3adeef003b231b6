"""How long the app takes from its start to its first picture: `python tests/benchmarks/first_paint.py [STARTS]`.

Starts the installed program on a pseudo-terminal, as a shell does, and waits for the status line.
"""

import os
import statistics
import sys
import tempfile

from terminal import Terminal


def once(home: str) -> float:
    """Seconds from starting the process to the first picture."""
    with Terminal([sys.executable, "-m", "heretic_tui"], home) as terminal:
        return terminal.wait_for(rb"Models") - terminal.began


def main() -> None:
    """Print the times of some starts."""
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as home:
        once(home)  # the first start fills the file cache
        times = sorted(once(home) for _ in range(starts))
    print(f"first paint, {starts} starts, {os.cpu_count()} cores: min {times[0]:.3f} s, "
          f"median {statistics.median(times):.3f} s, max {times[-1]:.3f} s")  # fmt: skip


if __name__ == "__main__":
    main()
