"""The command line: each command is a few lines over a job."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heretic_tui.commands.directions import directions_app
from heretic_tui.commands.inspect import inspect
from heretic_tui.commands.options import (
    DebugOption,
    JsonOption,
    ProfileOption,
    RunArgument,
    RunsDirOption,
    SetOption,
    profile_of,
    runs_dir_of,
    say_notes,
    say_yes_to,
)
from heretic_tui.commands.workers import WorkersOption, worker
from heretic_tui.formats import plain

if TYPE_CHECKING:
    from heretic_tui.engine.runs.live import Running
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.profile.store import Difference, LoadedProfile

app = typer.Typer(
    name="heretic-tui",
    help="Directional ablation of language models: find a direction, take it out of the weights, search for the best "
    "trade-off.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
profiles_app = typer.Typer(help="List, show, make and check profiles.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(profiles_app, name="profiles")
app.add_typer(directions_app, name="directions")

TrialsOption = Annotated[int | None, typer.Option("--trials", "-n", min=1, help="How many trials there are in all.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the search.")]
ResumeOption = Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with this run.")]

DEMO_PROFILE = "demo"


def run_command_line() -> int:
    """Run the command that was asked for; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    from heretic_tui.commands.failures import explained

    return explained(lambda: app(standalone_mode=False), debug="--debug" in sys.argv, as_json="--json" in sys.argv)


@app.callback()
def open_app(context: typer.Context, runs_dir: RunsDirOption = None) -> None:
    """Without a command: open the app on this terminal."""
    if context.invoked_subcommand is None:
        _open(runs_dir_of(runs_dir))


@app.command()
def attach(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's name or folder.")] = None,
    runs_dir: RunsDirOption = None,
    debug: DebugOption = False,
) -> None:
    """Watch a run that is being worked on, and pause it, end it or add trials; without RUN the one there is."""
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.runs.listing import list_runs, open_run
    from heretic_tui.engine.runs.live import running

    folder = runs_dir_of(runs_dir)
    if run is not None:
        _open(folder, {open_run(folder, run).path: ()})
        return
    found = running(one.path for one in list_runs(folder))
    if not found:
        raise EngineError(
            f"No process works on a run in {folder}.",
            "Open a run with: heretic-tui attach RUN. heretic-tui runs lists them.",
        )
    _open(folder, found)


@app.command()
def run(
    model: Annotated[str | None, typer.Argument(help="Hub id, folder or .gguf file.")] = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    trials: TrialsOption = None,
    seed: SeedOption = None,
    runs_dir: RunsDirOption = None,
    resume: ResumeOption = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a study on a model: measure its directions, search, end with the Pareto front."""
    if resume is not None:
        _resume(resume, model, profile, set_, trials, seed, runs_dir, json, workers)
        return
    loaded = profile_of(profile, set_, trials, seed)
    name = model or loaded.profile.model
    if name is None:
        raise typer.BadParameter("Give a model: a hub id, a folder or a .gguf file.")
    say_yes_to([name], set_)
    _start(name, loaded, runs_dir, json, workers)


@app.command()
def demo(
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the best trial's model.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    profile: ProfileOption = None,
    set_: SetOption = None,
    trials: TrialsOption = None,
    seed: SeedOption = None,
    runs_dir: RunsDirOption = None,
    resume: ResumeOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a whole study on the embedded model, offline, and export the best trial."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.demo import MODEL_DIR
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.export.target import check_target

    if to is not None:
        check_target(to, 0, overwrite=overwrite)
    if resume is not None:
        opened = _resume(resume, None, profile, set_, trials, seed, runs_dir, json)
    else:
        opened = _start(str(MODEL_DIR), profile_of(profile or DEMO_PROFILE, set_, trials, seed), runs_dir, json)
    if to is not None:
        show_job(pipeline.export(opened, _best(opened), to, overwrite=overwrite), as_json=json)


@app.command()
def runs(runs_dir: RunsDirOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the runs, newest first."""
    from heretic_tui.commands.tables import show_runs
    from heretic_tui.engine.runs.listing import list_runs

    show_runs(list_runs(runs_dir_of(runs_dir)), runs_dir_of(runs_dir), as_json=json)


@app.command()
def trials(
    run: RunArgument,
    front: Annotated[bool, typer.Option("--front", help="Only the Pareto front.")] = False,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the trials of a run, or of a study file of the reference tool."""
    from heretic_tui.commands.tables import show_trials
    from heretic_tui.engine.runs.listing import open_run

    path = Path(run).expanduser()
    if path.is_file():
        from heretic_tui.engine.storage.studies import read_foreign_study

        show_trials(path.name, *read_foreign_study(path), front_only=front, as_json=json)
        return
    opened = open_run(runs_dir_of(runs_dir), run)
    show_trials(opened.name, opened.records(), opened.profile.objectives, front_only=front, as_json=json)


@app.command()
def export(
    run: RunArgument,
    trial: Annotated[int, typer.Option("--trial", "-t", min=1, help="Number of the trial.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write.")],
    adapter: Annotated[bool, typer.Option("--adapter", help="Write a PEFT adapter, not the whole model.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Cast to float16, bfloat16 or float32; else as it was loaded.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option("--max-shard-size", metavar="SIZE", help="Largest file, such as 5GB.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Read the model back and compare it.")] = True,
    verify_scores: Annotated[
        bool, typer.Option("--verify-scores", help="Also load the written model and measure it like a trial.")
    ] = False,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a trial's model or adapter to a folder."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.loading.outline import outline
    from heretic_tui.engine.runs.listing import open_run

    opened = open_run(runs_dir_of(runs_dir), run)
    job = pipeline.export(
        opened,
        trial,
        to,
        adapter=adapter,
        overwrite=overwrite,
        dtype=dtype,
        max_shard_size=max_shard_size,
        verify=verify,
        verify_scores=verify_scores,
        outline=outline,
    )
    show_job(job, as_json=json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model to score: hub id, folder or .gguf file.")],
    base: Annotated[str, typer.Option("--base", help="The original model.")],
    profile: ProfileOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score any model against its original."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.engine import pipeline

    say_yes_to([model, base], set_)
    show_job(pipeline.evaluate(model, base, profile_of(profile, set_, None, None).profile), as_json=json)


app.command()(inspect)
app.command()(worker)


@profiles_app.command("list")
def profiles_list(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the built-in profiles and your own."""
    from heretic_tui.commands.tables import show_profiles
    from heretic_tui.profile import store

    show_profiles(store.list_profiles(), as_json=json)


@profiles_app.command("show")
def profiles_show(
    profile: Annotated[str, typer.Argument(metavar="NAME|FILE")] = "default", debug: DebugOption = False
) -> None:
    """Print every setting of a profile with its value."""
    from heretic_tui.profile import store

    loaded = store.resolve(profile)
    say_notes(loaded)
    sys.stdout.write(store.dump(loaded.profile))


@profiles_app.command("new")
def profiles_new(
    name: str,
    copy_from: Annotated[str, typer.Option("--from", metavar="NAME", help="Profile to begin from.")] = "default",
    debug: DebugOption = False,
) -> None:
    """Make a profile of your own, every setting with its explanation."""
    from heretic_tui.profile import store

    loaded = store.new(name, copy_from=copy_from)
    sys.stdout.write(f"{loaded.path}\n")


@profiles_app.command("check")
def profiles_check(profile: Annotated[str, typer.Argument(metavar="NAME|FILE")], debug: DebugOption = False) -> None:
    """Check a profile and say all that is wrong with it at once."""
    from heretic_tui.profile import store

    loaded = store.resolve(profile)
    say_notes(loaded)
    sys.stdout.write("The profile is in order.\n")


def _open(runs_dir: Path, runs: "Running | None" = None) -> None:
    """Open the app on this terminal, at the run there is, or with the choice of those there are."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("The app needs a terminal. Without one, use a command: heretic-tui --help lists them.")
    from heretic_tui.app import run_app

    run_app(runs_dir, runs or {})


def _start(model: str, loaded: "LoadedProfile", runs_dir: Path | None, json: bool, workers: str | None = None) -> "Run":
    from heretic_tui.commands.console import show_job
    from heretic_tui.commands.workers import devices_of, with_workers
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.loading.loader import load
    from heretic_tui.engine.runs.listing import open_run
    from heretic_tui.engine.study.crew import on_device

    folder = runs_dir_of(runs_dir)
    own, *others = devices_of(workers)
    job = pipeline.start_study(model, loaded.profile, Path(loaded.name).stem, folder, load=on_device(own, load))
    finished = show_job(with_workers(job, others), as_json=json)
    return open_run(folder, finished.run)


def _resume(
    name: str,
    model: str | None,
    profile: str | None,
    changes: list[str] | None,
    trials: int | None,
    seed: int | None,
    runs_dir: Path | None,
    json: bool,
    workers: str | None = None,
) -> "Run":
    """Go on with a run; its own settings stand, and what was asked for differently is told."""
    from heretic_tui.commands.console import show_job
    from heretic_tui.commands.workers import devices_of, with_workers
    from heretic_tui.engine import pipeline
    from heretic_tui.engine.loading.loader import load
    from heretic_tui.engine.runs.listing import open_run
    from heretic_tui.engine.study.crew import on_device
    from heretic_tui.profile import store

    opened = open_run(runs_dir_of(runs_dir), name)
    say_yes_to([opened.model_name], changes)
    if profile is not None or changes or seed is not None:
        extra = [*(changes or []), *([f"seed={seed}"] if seed is not None else [])]
        asked = store.resolve(profile, extra) if profile else store.apply_overrides(opened.profile, extra)
        ignored = [found for found in store.difference(opened.profile, asked.profile) if _asked_for(found)]
        for found in ignored:
            sys.stderr.write(plain(f"note: {found.key} stays {found.a}; {found.b} was asked for.\n"))
        if ignored:
            sys.stderr.write("note: a resumed run keeps its own settings; start a new run to use others.\n")
    if model is not None and model != opened.model_name:
        raise typer.BadParameter(f"{opened.name} is a run of {opened.model_name}, not of {model}.")
    own, *others = devices_of(workers)
    job = pipeline.resume_study(opened, trials, load=on_device(own, load))
    show_job(with_workers(job, others), as_json=json)
    return opened


def _asked_for(found: "Difference") -> bool:
    """Whether a difference was asked for; the start of a run settles seed, commits and whole paths by itself."""
    key = found.key.rpartition(".")[2]
    if key in {"seed", "commit"}:
        return found.b is not None
    return key != "model" and not (key == "dataset" and str(Path(str(found.b)).expanduser().resolve()) == found.a)


def _best(opened: "Run") -> int:
    from heretic_tui.engine.storage.front import best_compromise, pareto_front

    objectives = opened.profile.objectives
    return best_compromise(pareto_front(opened.records(), objectives), objectives).trial
