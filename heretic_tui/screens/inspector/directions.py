"""Dialogs about directions: the prompt to read, the library, saving and importing."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label

from heretic_tui.engine.background import in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import Direction, layer_name
from heretic_tui.engine.inspection.direction_library import EXPORTED, DirectionLibrary, Entry, name_problem
from heretic_tui.engine.inspection.vector_files import Found, read_vectors
from heretic_tui.formats import plain
from heretic_tui.screens.dialogs import Ask, Confirm, Pick
from heretic_tui.screens.form import Field, Form, Values
from heretic_tui.screens.inspector.part import InspectorPart
from heretic_tui.widgets.message_box import MessageBox
from heretic_tui.widgets.rows import Column, Row, Rows

DATE = 10
"""Letters of a date without its time."""


class AskPrompt(ModalScreen[str | None]):
    """Asks for a prompt of one or more lines."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", id="dialog.cancel")]
    DEFAULT_CSS = """
    AskPrompt MessageBox { height: auto; min-height: 3; max-height: 10; border: round $border-blurred; }
    AskPrompt MessageBox:focus { border: round $primary; }
    """

    def __init__(self, prompt: str) -> None:
        super().__init__(classes="dialog")
        self.prompt = prompt

    def compose(self) -> ComposeResult:
        """The box and what to press."""
        with Vertical(classes="dialog--box"):
            yield Label("Which prompt?", classes="dialog--title", markup=False)
            yield Label("The model's chat template and the run's system prompt go around it.", markup=False)
            yield MessageBox(id="prompt")
            yield Label("enter: read it · ctrl+j: line break · esc: cancel", classes="dialog--hint", markup=False)

    def on_mount(self) -> None:
        """Begin with the prompt that was read last."""
        box = self.query_one(MessageBox)
        box.write(self.prompt)
        box.focus()

    def on_message_box_sent(self, event: MessageBox.Sent) -> None:
        """Take it."""
        self.dismiss(event.text)

    def action_back(self) -> None:
        """What the box asks for on escape."""
        self.dismiss(None)

    def action_cancel(self) -> None:
        """Answer nothing."""
        self.dismiss(None)


def save_form(found: Direction, taken: Sequence[str], suggested: str) -> Form:
    """Asks for the name and the note of a direction."""

    def check(values: Values) -> dict[str, str]:
        problem = name_problem(values["name"], taken)
        return {"name": problem} if problem else {}

    return Form(
        f"Save {found.name}",
        [Field("note", "Note", found.note, "what it is about, as far as you know", long=True),
         Field("name", "Name", suggested, "all runs see it")],
        check,
    )  # fmt: skip


def keep_direction(part: InspectorPart, library: DirectionLibrary, found: Direction, suggested: str) -> None:
    """Ask for a name and a note, and save a direction to the library."""

    def offer(entries: list[Entry]) -> None:
        part.app.push_screen(save_form(found, [entry.name for entry in entries], suggested), answered)

    def answered(values: Values | None) -> None:
        if values is not None:
            save = partial(library.save, found, values["name"], values["note"])
            part.compute("save", lambda: in_background(lambda _: save()), saved)

    def saved(entry: Entry) -> None:
        part.notify(f"Saved as {entry.name}.", markup=False, timeout=4)

    part.compute("library", lambda: in_background(lambda _: library.entries()), offer)


def about(entry: Entry) -> str:
    """What is known of a saved direction, in a line."""
    if entry.problem:
        return f"✗ {entry.problem}"
    layer = "" if entry.row is None else f"layer {layer_name(entry.row)}"
    return " · ".join(part for part in (entry.note, entry.made, layer, entry.run, entry.date[:DATE]) if part)


class LibraryDialog(ModalScreen[str | None]):
    """The library of directions; answers with the name of the one that is chosen, or None."""

    HELP: ClassVar[str] = """
    Directions that were saved, for all runs. What is deleted goes to the folder .trash in the library's folder. An
    imported file may be safetensors (a run's own directions.safetensors, too), .npy, .npz, .json, text or a GGUF
    control vector.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "cancel", "Close", id="dialog.cancel"),
        Binding("r", "rename", "Rename", id="library.rename"),
        Binding("delete,d", "delete", "Delete", id="library.delete"),
        Binding("i", "import", "Import", id="library.import"),
        Binding("x,e", "export", "Export", id="library.export"),
    ]

    def __init__(self, library: DirectionLibrary, width: int) -> None:
        super().__init__(classes="dialog")
        self.library, self.width = library, width
        self.entries: list[Entry] = []

    def compose(self) -> ComposeResult:
        """The list, what is known of the one under the cursor, and what to press."""
        with Vertical(classes="dialog--box -tall"):
            yield Label("Library of directions", classes="dialog--title", markup=False)
            yield Rows(
                Column("name", least=18), Column("width", 6, "right"), Column("what it is", drop=1, least=20),
                empty="No direction was saved yet.\nk in the view of tokens saves the one shown; i imports one.",
            )  # fmt: skip
            yield Label("", id="facts", markup=False)
            yield Label("", id="problem", markup=False)
            yield Label(
                "enter: look at it · r: rename, note · d: delete · i: import · x: export · esc: close",
                classes="dialog--hint",
                markup=False,
            )

    def on_mount(self) -> None:
        """Read the library."""
        self._read(None)

    def _read(self, name: str | None) -> None:
        self._do(self.library.entries, partial(self._show, name))

    def _show(self, name: str | None, entries: list[Entry]) -> None:
        self.entries = entries
        rows = [
            Row(entry.name, (entry.name, str(entry.width or "?"), about(entry)), self._style(entry))
            for entry in entries
        ]
        self.query_one(Rows).show(rows, key=name)
        self._tell()

    def _style(self, entry: Entry) -> str:
        if entry.problem:
            return "rows--warning"
        return "rows--dim" if self.width and entry.width not in {0, self.width} else ""

    def _tell(self) -> None:
        entry = self._entry
        self.query_one("#facts", Label).update(plain(about(entry)) if entry else "")

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """Say what is known of the one under the cursor."""
        event.stop()
        self._tell()

    @property
    def _entry(self) -> Entry | None:
        key = self.query_one(Rows).key
        return next((entry for entry in self.entries if entry.name == key), None)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Take it."""
        event.stop()
        self.dismiss(event.key)

    def action_cancel(self) -> None:
        """Take none."""
        self.dismiss(None)

    # What can be done; the disk is not for the screen's thread

    def _do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def run() -> None:
            try:
                result = work()
            except EngineError as error:
                self.call_later(self._say, str(error))
            else:
                self.call_later(then, result)

        self.query_one("#problem", Label).update("")
        self.run_worker(run, thread=True, group="library", exit_on_error=False)

    def _say(self, text: str) -> None:
        self.query_one("#problem", Label).update(plain(text))

    def action_rename(self) -> None:
        """Ask for another name and note."""
        entry = self._entry
        if entry is None:
            return
        taken = [one.name for one in self.entries if one.name != entry.name]

        def check(values: Values) -> dict[str, str]:
            problem = name_problem(values["name"], taken)
            return {"name": problem} if problem else {}

        def answered(values: Values | None) -> None:
            if values is not None:
                name = values["name"].strip()
                self._do(lambda: self.library.rename(entry.name, name, values["note"]), lambda _: self._read(name))

        fields = [Field("note", "Note", entry.note, "", long=True), Field("name", "Name", entry.name)]
        self.app.push_screen(Form("Rename", fields, check), answered)

    def action_delete(self) -> None:
        """Ask, then move it to the trash."""
        entry = self._entry
        if entry is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: self.library.delete(entry.name), lambda _: self._read(None))

        where = f"It goes to {self.library.folder / '.trash'}."
        self.app.push_screen(Confirm(f"Delete {entry.name}?", where, "Delete", "Keep"), answered)

    def action_import(self) -> None:
        """Ask for a file, and which of its vectors where it has several."""

        def answered(text: str | None) -> None:
            if text is not None:
                path = Path(text.strip()).expanduser()
                self._do(lambda: read_vectors(path), partial(self._which, path))

        explanation = "safetensors (a run's directions.safetensors, too), .npy, .npz, .json, .txt, .csv or .gguf"
        self.app.push_screen(Ask("Import from which file?", explanation=explanation, check=_path_problem), answered)

    def _which(self, path: Path, found: list[Found]) -> None:
        def take(key: str | None) -> None:
            if key is not None:
                self._do(lambda: self.library.take_in(path, key), lambda entry: self._read(entry.name))

        if len(found) == 1:
            take(found[0].key)
            return
        rows = [Row(one.key, (one.key, str(one.width))) for one in found]
        self.app.push_screen(Pick("Which vector?", (Column("vector"), Column("width", 8, "right")), rows), take)

    def action_export(self) -> None:
        """Ask for a file or folder."""
        entry = self._entry
        if entry is None:
            return

        def answered(text: str | None) -> None:
            if text is not None:
                to = Path(text.strip()).expanduser()
                self._do(lambda: self.library.export(entry.name, to), lambda path: self._say(f"Written: {path}"))

        explanation = f"A folder, or a file that ends in {', '.join(EXPORTED)}."
        suggested = str(Path.home() / entry.path.name)
        self.app.push_screen(Ask("Export to where?", suggested, explanation=explanation, check=_path_problem), answered)


def _path_problem(text: str) -> str | None:
    return None if text.strip() and "\0" not in text else "Say where."
