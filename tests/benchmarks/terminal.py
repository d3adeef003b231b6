"""The program on a pseudo-terminal of its own: keys in, bytes out, times between them."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from types import TracebackType

CONTROL = re.compile(rb"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9]|.)")


class Terminal:
    """Runs a command on a terminal of `columns` x `rows` with folders of its own below `home`."""

    def __init__(self, command: list[str], home: str, columns: int = 80, rows: int = 24) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        folders = {f"XDG_{name}_HOME": f"{home}/{name}" for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **folders, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self.ours)

    def press(self, key: bytes) -> float:
        """Send a key; the moment it was sent."""
        sent = time.perf_counter()
        os.write(self.ours, key)
        return sent

    def wait_for(self, pattern: bytes, timeout: float = 30.0) -> float:
        """Read until the plain text that was written since matches; the moment it did."""
        seen = b""
        end = time.perf_counter() + timeout
        while time.perf_counter() < end:
            if select.select([self.ours], [], [], 0.5)[0]:
                try:
                    seen += os.read(self.ours, 1 << 16)
                except OSError as error:
                    raise TimeoutError(f"the program ended before {pattern!r} was seen") from error
                if re.search(pattern, CONTROL.sub(b"", seen)):
                    return time.perf_counter()
        raise TimeoutError(f"{pattern!r} was not seen in {timeout} s; the end of what was: {seen[-400:]!r}")

    def drain(self, seconds: float) -> int:
        """Read what comes for a while; its bytes."""
        count = 0
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self.ours], [], [], left)[0]:
                count += len(os.read(self.ours, 1 << 16))
        return count


def summary(name: str, seconds: list[float]) -> str:
    """Median, 95th percentile and maximum of some times, in milliseconds."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return (f"{name}: {len(ordered)} keys, median {ordered[len(ordered) // 2] * 1e3:.1f} ms, "
            f"95th percentile {p95 * 1e3:.1f} ms, max {ordered[-1] * 1e3:.1f} ms")  # fmt: skip
