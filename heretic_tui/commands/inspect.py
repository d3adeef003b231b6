"""`heretic-tui inspect`: what the inspector shows, printed and written to files.

Each view is a function of an `Inspected` that prints or writes one thing; the options of the command name the views.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heretic_tui.commands.inspect_geometry import show_tables
from heretic_tui.commands.inspect_plots import show_plots
from heretic_tui.commands.inspect_steering import show_sensitivity, show_steered
from heretic_tui.commands.inspect_tokens import Order, Over, Value, show_tokens
from heretic_tui.commands.inspected import Inspected
from heretic_tui.commands.options import (
    DebugOption,
    JsonOption,
    ProfileOption,
    RunsDirOption,
    SetOption,
    profile_of,
    runs_dir_of,
)

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.runs.run import Run


View = Callable[[Inspected], None]


def inspect(
    target: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A run's name or folder, or a model to measure.")],
    trial: Annotated[int, typer.Option("--trial", "-t", min=0, help="A trial of the run; 0 is its original.")] = 0,
    measure: Annotated[bool, typer.Option("--measure", help="Load the model and measure its stream.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the files; else below the run's.")] = None,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw the layers' projections: a picture each, and an animation.")
    ] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Compare directions taken in other ways: position, batch, template.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Prompts of each set for --sensitivity, measured anew.")
    ] = None,
    steer: Annotated[
        str | None,
        typer.Option("--steer", metavar="TEXT", help='Answer steered: "layer 14 added x2 at 8-20".'),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="What --steer answers; may be repeated.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer of --steer.")] = 200,
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="PROMPT", help="A prompt's tokens along --direction; - reads it.")
    ] = None,
    direction: Annotated[
        str | None, typer.Option("--direction", metavar="KEY", help="own, layer:N, pc:K, pc:N:K or a saved name.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", metavar="N", help="Layer to look at, or in.")] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="K", help="Tokens of a set that --direction is about.")
    ] = None,
    over: Annotated[Over, typer.Option("--over", help="The prompt set of --top.")] = Over.GOOD,
    template: Annotated[bool, typer.Option("--template", help="Let --top count the template's tokens, too.")] = False,
    vocabulary: Annotated[
        bool, typer.Option("--vocabulary", help="What --direction promotes and suppresses in the vocabulary.")
    ] = False,
    value: Annotated[Value, typer.Option("--value", help="What --tokens tells of each token.")] = Value.DOT_PRODUCT,
    profile: ProfileOption = None,
    set_: SetOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Look into the residual stream, layer by layer: print its geometry, write tables.

    A model is measured in a new run; a run is read from its folder, and measured with --measure.
    """
    if trial and (steer is not None or sensitivity):
        raise typer.BadParameter("--steer and --sensitivity look at the original model; leave out --trial.")
    order = Order(direction or "own", layer, tokens, top, over, template, vocabulary, value)
    if direction is not None or tokens is not None or top is not None or vocabulary:
        show_tokens(_subject(target, profile, set_, runs_dir, measure, trial, json), order, trial, to, as_json=json)
        return
    if (steer is None) != (not prompt):
        raise typer.BadParameter("--steer needs a --prompt to answer, and --prompt something to --steer with.")
    run = _run(target, trial, measure, profile, set_, runs_dir, json)
    inspected = Inspected(run, trial, to, json)
    views: list[View] = [show_plots] if plots else []
    if sensitivity or sample is not None:
        views.append(partial(show_sensitivity, prompts=sample))
    if steer is not None and prompt:
        views.append(partial(show_steered, steering=steer, prompts=prompt, max_tokens=max_tokens))
    if not views:
        views = [show_tables, show_plots] if run.profile.plot_residuals else [show_tables]
    for view in views:
        view(inspected)


def _subject(
    target: str,
    profile: str | None,
    changes: list[str] | None,
    runs_dir: Path | None,
    measure: bool,
    trial: int,
    as_json: bool,
) -> "Subject":
    """What is looked into: a run, or a model alone, which is not measured for it unless that is asked for."""
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.runs.listing import open_run

    try:
        open_run(runs_dir_of(runs_dir), target)
    except EngineError:
        if not measure and not trial and ("/" in target or Path(target).expanduser().exists()):
            return Subject(target, profile_of(profile, changes, None, None).profile)
    return Subject.of_run(_run(target, trial, measure, profile, changes, runs_dir, as_json))


def _run(
    target: str,
    trial: int,
    measure: bool,
    profile: str | None,
    changes: list[str] | None,
    runs_dir: Path | None,
    as_json: bool,
) -> "Run":
    """The run to look at: the one named, measured if that is asked for, or a new one of the model named."""
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.runs.listing import open_run

    folder = runs_dir_of(runs_dir)
    try:
        run = open_run(folder, target)
    except EngineError:
        if not (measure or "/" in target or Path(target).expanduser().exists()):
            raise
        if trial:
            raise typer.BadParameter(f"{target} is a model, which has no trials; give a run.") from None
        return _measured(target, profile, changes, folder, as_json)
    if profile is not None or changes:
        raise typer.BadParameter(f"{run.name} is a run: it keeps its own settings. Give a model to use others.")
    if measure:
        from heretic_tui.commands.console import show_job
        from heretic_tui.engine.inspection.measuring import measure_run

        show_job(measure_run(run, trial), as_json=as_json)
    return run


def _measured(model: str, profile: str | None, changes: list[str] | None, folder: Path, as_json: bool) -> "Run":
    loaded = profile_of(profile, changes, None, None)
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine.inspection.measuring import measure

    return show_job(measure(model, loaded.profile, Path(loaded.name).stem, folder), as_json=as_json)
