"""Writing what a view of the inspector shows to files in a folder that is asked for."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual.widget import Widget

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.files import write_text
from heretic_tui.formats import one_line
from heretic_tui.inspections import Inspection
from heretic_tui.screens.dialogs import Ask, Confirm

if TYPE_CHECKING:
    from heretic_tui.screens.inspector.part import OwnFile


def export_files(widget: Widget, inspection: Inspection, files: "Sequence[OwnFile]") -> None:
    """Ask for a folder, and write the files to it; those that are there already are replaced only if that is wanted."""
    if not files:
        widget.notify("There is nothing here yet that could be written to a file.", markup=False)
        return
    listed = "\n".join(f"{file.name}  {file.words}" for file in files)

    def asked(answer: str | None) -> None:
        if answer is None:
            return
        folder = Path(answer.strip()).expanduser().absolute()
        widget.run_worker(partial(_look, widget, folder, files), thread=True, group="export", exit_on_error=False)

    suggested = str(inspection.path / "inspection" / "export")
    widget.app.push_screen(Ask("Write to which folder?", suggested, explanation=listed, check=_folder_problem), asked)


def _folder_problem(text: str) -> str | None:
    return None if text.strip() and "\0" not in text else "Say which folder."


def _look(widget: Widget, folder: Path, files: "Sequence[OwnFile]") -> None:
    try:
        there = [file.name for file in files if (folder / file.name).exists()]
    except OSError as error:
        widget.call_later(_failed, widget, f"{folder} cannot be used: {error.strerror}.")
        return
    if there:
        widget.call_later(_ask, widget, folder, files, there)
    else:
        _write(widget, folder, files)


def _ask(widget: Widget, folder: Path, files: "Sequence[OwnFile]", there: Sequence[str]) -> None:
    def answered(yes: bool | None) -> None:
        if yes:
            widget.run_worker(partial(_write, widget, folder, files), thread=True, group="export", exit_on_error=False)

    widget.app.push_screen(
        Confirm("Replace what is there?", f"{folder} holds {', '.join(there)} already.", "Replace", "Keep"), answered
    )


def _write(widget: Widget, folder: Path, files: "Sequence[OwnFile]") -> None:
    try:
        for file in files:
            write_text(folder / file.name, file.text(), private=False)
    except EngineError as error:
        widget.call_later(_failed, widget, str(error))
        return
    widget.call_later(_written, widget, folder, [file.name for file in files])


def _failed(widget: Widget, words: str) -> None:
    widget.notify(one_line(words), severity="error", markup=False, timeout=8)


def _written(widget: Widget, folder: Path, names: Sequence[str]) -> None:
    cast("Any", widget.app).control.state.say(f"{', '.join(names)} in {folder}")
    widget.notify(one_line(f"{', '.join(names)} in {folder}"), title="Written", markup=False)
