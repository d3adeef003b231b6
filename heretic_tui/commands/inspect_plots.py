"""`heretic-tui inspect --plots`: the projection of every layer as pictures and as an animation."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heretic_tui.commands.inspected import Inspected


def show_plots(inspected: "Inspected") -> None:
    """Draw the pictures to the folder that was asked for, else to the one that the profile names; say where."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine.inspection.pictures import plot_run

    base = Path.cwd() / (inspected.to or Path(inspected.run.profile.residual_plot_path)).expanduser()
    job = plot_run(inspected.run, inspected.trial, base)
    files = show_job(job, as_json=inspected.as_json)
    inspected.tell("plotted", {"files": [str(path) for path in files]})
    inspected.say(f"{len(files) - 1} pictures (layer_001 is the stream after layer 0) and {files[-1].name} are in")
    inspected.say(str(files[-1].parent))
