"""`heretic-tui directions`: the library of directions that all runs see."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heretic_tui.commands.options import DebugOption, JsonOption
from heretic_tui.formats import json_line, one_line

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.direction_library import DirectionLibrary

directions_app = typer.Typer(
    help="List, rename, delete, import and export saved directions.", no_args_is_help=True, rich_markup_mode=None
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A saved direction.")]


def _library() -> "DirectionLibrary":
    from heretic_tui import paths
    from heretic_tui.engine.inspection.direction_library import DirectionLibrary

    return DirectionLibrary(paths.directions_dir())


def _say(text: str) -> None:
    sys.stdout.write(f"{one_line(text)}\n")


@directions_app.command("list")
def list_(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the saved directions."""
    library = _library()
    entries = library.entries()
    for entry in entries:
        if json:
            sys.stdout.write(json_line(entry.as_json()))
            continue
        words = [entry.note, entry.made, f"run {entry.run}" if entry.run else ""]
        told = f"problem: {entry.problem}" if entry.problem else " · ".join(word for word in words if word)
        _say(f"{entry.name}  (width {entry.width or '?'})  {told}".rstrip())
    if not entries and not json:
        _say(f"No direction was saved yet; they are kept in {library.folder}.")


@directions_app.command()
def rename(
    name: NameArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    note: Annotated[str | None, typer.Option("--note", help="Another note, too.")] = None,
    debug: DebugOption = False,
) -> None:
    """Give a direction another name."""
    entry = _library().rename(name, new, note)
    _say(f"{entry.name} is in {entry.path}")


@directions_app.command()
def delete(name: NameArgument, debug: DebugOption = False) -> None:
    """Move a direction to the library's trash folder."""
    _say(f"It is in {_library().delete(name)}")


@directions_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="safetensors, .npy, .npz, .json, .txt, .csv or .gguf.")],
    key: Annotated[
        str | None,
        typer.Option("--vector", metavar="KEY", help="Which of several vectors, such as vectors[12]."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name in the library.")] = None,
    note: Annotated[str, typer.Option("--note", help="What it is about.")] = "",
    debug: DebugOption = False,
) -> None:
    """Add a direction from a file; a run's directions.safetensors, too."""
    entry = _library().take_in(file, key, name, note)
    _say(f"{entry.name} (width {entry.width}) is in {entry.path}")


@directions_app.command()
def export(
    name: NameArgument,
    to: Annotated[Path, typer.Option("--to", help="A folder, or a .safetensors, .npy or .json file.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a direction to a file."""
    _say(f"Written: {_library().export(name, to, overwrite=overwrite)}")
