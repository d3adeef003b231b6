"""Drawing the projection of every layer to pictures and an animation, in a folder that is asked for."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from heretic_tui.engine.background import Job, in_background
from heretic_tui.formats import one_line
from heretic_tui.screens.dialogs import Ask, Confirm
from heretic_tui.screens.inspector.part import InspectorPart

LOOKING, DRAWING = "plots folder", "pictures"
"""The titles of the jobs."""


def export_pictures(part: InspectorPart, run: Path, trial: int, then: Callable[[], None]) -> None:
    """Ask for a folder, and draw there; pictures that are there already are replaced only if that is wanted."""
    explanation = "A picture a layer, layer_001.png for the stream after layer 0, and animation.gif."

    def ask(suggested: Path) -> None:
        part.app.push_screen(
            Ask("Write the pictures to which folder?", str(suggested), explanation=explanation, check=_problem), asked
        )

    def asked(answer: str | None) -> None:
        if answer is not None:
            folder = Path(answer.strip()).expanduser().absolute()
            part.compute(LOOKING, partial(_holds_pictures, folder), partial(looked, folder))

    def looked(folder: Path, there: bool) -> None:
        if not there:
            draw(folder, True)
            return
        words = f"{one_line(str(folder))} holds pictures of a projection already."
        part.app.push_screen(Confirm("Replace them?", words, "Replace", "Keep"), partial(draw, folder))

    def draw(folder: Path, yes: bool | None) -> None:
        if yes:
            part.compute(DRAWING, partial(_drawn, run, trial, folder), partial(written, folder))

    def written(folder: Path, files: Sequence[Path]) -> None:
        words = f"{len(files) - 1} pictures and {files[-1].name} in {folder}"
        part.control.state.say(words)
        part.notify(one_line(words), title="Written", markup=False)
        then()

    part.compute(LOOKING, partial(_suggested, run, trial), ask)


def _suggested(folder: Path, trial: int) -> Job[Path]:
    """The folder that the run's profile names."""
    from heretic_tui.engine.inspection.pictures import plots_folder
    from heretic_tui.engine.runs.run import Run

    def find() -> Path:
        run = Run(folder)
        return plots_folder(Path(run.profile.residual_plot_path).expanduser().absolute(), run.model_name, trial)

    return in_background(lambda _: find())


def _holds_pictures(folder: Path) -> Job[bool]:
    return in_background(lambda _: any(folder.glob("layer_*.png")))


def _drawn(folder: Path, trial: int, to: Path) -> Job[Sequence[Path]]:
    from heretic_tui.engine.inspection.pictures import draw, look_of
    from heretic_tui.engine.inspection.projection import project_run
    from heretic_tui.engine.runs.run import Run

    run = Run(folder)
    projection = yield from project_run(run, trial)
    return (yield from draw(projection, look_of(run.profile, run.model_name, trial), to))


def _problem(text: str) -> str | None:
    return None if text.strip() and "\0" not in text else "Say which folder."
