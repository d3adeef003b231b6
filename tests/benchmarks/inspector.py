"""How long the inspector takes: to read a run's folder, to show it, and to draw each view anew.

    python tests/benchmarks/inspector.py [RUN]

Without a run it makes one: 200 prompts of each set at 31 places in a stream of width 576, and a trial of the same size.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "screens"))

from fakes import fake_app, study
from measured import ablated, measured_run, planted

from heretic_tui.widgets.curves import Curves
from heretic_tui.widgets.heatmap import Heatmap

SIZES = [(80, 24), (120, 40), (200, 60)]
REPEATS = 20


def milliseconds(call) -> float:
    """The processor time that a call takes on the screen's thread, the median of some: other processes do not count."""
    found = []
    for _ in range(REPEATS):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return median(found) * 1000


async def measure(run: Path, folder: Path, size: tuple[int, int]) -> None:
    """Open the inspector on a run, and time what the screen's thread does."""
    app = fake_app(folder)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.control.show(study(run))
        began = time.perf_counter()
        app.switch_mode("inspector")
        while app.control.state.inspection is None:
            await asyncio.sleep(0.01)
        opened = time.perf_counter() - began
        screen = app.screen_stack[0]
        while not (screen.part and screen.part.ready):
            await asyncio.sleep(0.01)
        screen.action_stop()
        figures = [f"opened in {opened:.2f} s"]

        def draw(widget) -> None:
            widget._redraw()
            widget.render_line(0)

        for name in ("curves", "similarity", "difference"):
            screen.action_view(name)
            await pilot.pause()
            while not screen.part.ready:
                await asyncio.sleep(0.01)
            await pilot.pause()
            part = screen.part
            cost = milliseconds(lambda part=part: part.show(app.control.state.inspection))
            for widget in part.query("*"):
                if isinstance(widget, Curves | Heatmap) and widget.display:
                    cost += milliseconds(lambda widget=widget: draw(widget))
            figures.append(f"{name} {cost:.1f} ms")
        screen.action_table()
        await pilot.pause()
        figures.append(f"table {milliseconds(screen._show_table):.1f} ms")
        print(f"{size[0]}x{size[1]}: {', '.join(figures)}")


def main() -> None:
    """Measure at three sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    given = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        run = given
        if run is None:
            sets = planted(31, 576, 200)
            run = measured_run(Path(folder) / "run", sets, trial_7=ablated(sets))
        from heretic_tui.inspections import read_inspection

        began = time.perf_counter()
        read_inspection(run)
        print(f"read in {time.perf_counter() - began:.2f} s, imports included")
        for size in SIZES:
            asyncio.run(measure(run, Path(folder), size))


if __name__ == "__main__":
    main()
