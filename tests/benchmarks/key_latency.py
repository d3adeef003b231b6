"""How long a key takes to show its effect: `python tests/benchmarks/key_latency.py MODEL [PROFILE] [ROUNDS]`.

A study of MODEL runs in the app, on a pseudo-terminal, while keys are pressed; the time goes from writing the key to
reading the text that it must bring to the screen. `--flood` instead lets a scripted engine tell 5,000 events a second.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from terminal import Terminal, summary

from heretic_tui.__main__ import ESCAPE_DELAY

STEPS = (
    (b"f", rb"front of"),
    (b"f", rb"\d/\d+ trials"),
    (b"?", rb"Keys now"),
    (b"\x1b", rb"\d trials"),
    (b"g", rb"Log \(g"),
    (b"g", rb"Layers|scope|orig|Trial|Original"),
    (b"4", rb"4 Inspector"),
    (b"3", rb"3 Study"),
    (b"s", rb"newest first|by refusals|by KL|front first"),
)
"""Keys, and what each brings to the screen."""


def app(arguments: list[str]) -> None:
    """The app with a study under way: what the benchmark runs on the other side of its terminal."""
    from heretic_tui import logs, paths
    from heretic_tui.app import make_app
    from heretic_tui.preferences import Preferences
    from heretic_tui.profile import store

    logs.log_to_file()
    heretic = make_app(paths.runs_dir(), Preferences())

    def begin() -> None:
        if arguments[0] == "--flood":
            flood(heretic, float(arguments[1]))
        else:
            heretic.control.start(arguments[0], store.resolve(arguments[1]))
        heretic.switch_mode("study")

    heretic.call_later(begin)
    with logs.own_terminal():
        heretic.run()


def flood(heretic: object, seconds: float) -> None:
    """Let a scripted engine tell 5,000 events a second: progress, notes, and a trial now and then."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "screens"))
    from fakes import BASE, record, study

    from heretic_tui.engine import events

    path = Path(tempfile.mkdtemp()) / "flood"
    heretic.control.show(study(path, 0, wanted=100_000))

    def job(session: object):
        yield events.RunOpened("flood", path, True, 0, 100_000)
        yield events.BaselineMeasured(BASE)
        began = time.perf_counter()
        said = 0
        while time.perf_counter() - began < seconds:
            said += 1
            number = said // 50 + 1
            if said % 50 == 0 and number <= 500:
                yield events.TrialFinished(record(number, (number * 37) % 91, 0.001 * (1 + number % 97)), False)
            elif said % 50 == 25:
                yield events.Note(f"note {said}")
            else:
                yield events.Progress(f"trial {number}: responses", said % 50, 50, "prompts")
            ahead = said / 5000 - (time.perf_counter() - began)
            if ahead > 0.002:
                time.sleep(ahead)

    heretic.control.worker._make_session = object
    heretic.control.worker.submit("study", job)


def resident(pid: int) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Press keys and print the times."""
    arguments = [one for one in sys.argv[1:] if one != "--app"]
    if "--app" in sys.argv:
        app(arguments)
        return
    os.environ.setdefault("ESCDELAY", ESCAPE_DELAY)
    flooded = arguments[0] == "--flood"
    rounds = int(arguments[2]) if len(arguments) > 2 else 20
    first, second = (
        (arguments[0], "60") if flooded else (str(Path(arguments[0]).resolve()), ([*arguments, "default"])[1])
    )
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, __file__, "--app", first, second]
        with Terminal(command, home, 120, 40) as terminal:
            terminal.wait_for(rb"responses|residuals" if not flooded else rb"\d/100000", 600)
            terminal.drain(2)
            before = resident(terminal.process.pid)
            times: dict[bytes, list[float]] = {}
            for _ in range(rounds):
                for key, effect in STEPS:
                    times.setdefault(key, []).append(-terminal.press(key) + terminal.wait_for(effect))
                    terminal.drain(0.15)
            after = resident(terminal.process.pid)
    load = "5,000 events a second" if flooded else Path(first).name
    print(f"key to paint, 120x40, {os.cpu_count()} cores, engine: {load}")
    for key, seconds in times.items():
        print("  " + summary(f"{key!r:>8}", seconds))
    print(summary("all", [one for found in times.values() for one in found]))
    print(f"resident memory: {before:.0f} MB at the first key, {after:.0f} MB at the last")


if __name__ == "__main__":
    main()
