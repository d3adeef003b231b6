"""Options that several commands share, and what they stand for."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heretic_tui.formats import plain

if TYPE_CHECKING:
    from heretic_tui.profile.store import LoadedProfile


def _before(context: typer.Context, given: Path | None) -> Path | None:
    """The folder that was given behind the command, or else before it."""
    return given or context.find_root().params.get("runs_dir")


ProfileOption = Annotated[str | None, typer.Option("--profile", "-p", metavar="NAME|FILE", help="Profile to use.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one setting; may be repeated.")
]
RunsDirOption = Annotated[Path | None, typer.Option("--runs-dir", help="Folder that holds the runs.", callback=_before)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name or folder.")]


def runs_dir_of(given: Path | None) -> Path:
    """Where the runs are: the folder that was given, or the usual one."""
    from heretic_tui import paths

    return given.expanduser() if given is not None else paths.runs_dir()


def profile_of(name: str | None, changes: list[str] | None, trials: int | None, seed: int | None) -> "LoadedProfile":
    """The profile with all that the command line changes in it, its notes told."""
    from heretic_tui.profile import store

    extra = [f"n_trials={trials}"] if trials is not None else []
    extra += [f"seed={seed}"] if seed is not None else []
    loaded = store.resolve(name, [*(changes or []), *extra])
    say_notes(loaded)
    return loaded


def say_yes_to(models: list[str], changes: list[str] | None) -> None:
    """Take what is set on the command line itself, and not in a file, for a yes to the models that it names."""
    from heretic_tui.engine.checkpoints.permissions import SETTINGS, say_yes

    asked = {key.strip(): value.strip() for key, _, value in (one.partition("=") for one in changes or [])}
    for what in ("code", "pickles"):
        if asked.get(SETTINGS[what]) == "true":
            for model in models:
                say_yes(what, model)


def say_notes(loaded: "LoadedProfile") -> None:
    """Tell what is to be known of a profile on standard error."""
    for note in loaded.notes:
        sys.stderr.write(plain(f"note: {note}\n"))
