"""The dialog that makes a steered candidate: what is done with which direction, how much, and at which layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from heretic_tui.candidates import Choice
from heretic_tui.engine.chat.steering import (
    OPERATIONS,
    OfLayer,
    Operation,
    Source,
    Steered,
    read_layers,
    unit_of,
    usual_amount,
    usual_layers,
)
from heretic_tui.engine.errors import EngineError
from heretic_tui.formats import one_line
from heretic_tui.layer_ranges import shown_layers
from heretic_tui.screens.dialogs import Pick
from heretic_tui.widgets.rows import Column, Row

FIELDS = ("operation", "direction", "towards", "amount", "layers")
NO_DIRECTION = "Nothing is there to choose from: a run has directions, and the inspector (4) saves others."


class Switch(Static, can_focus=True):
    """A line with a value that keys change: left and right go through what there is, or enter opens a list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "turn(-1)", "Before", show=False, id="steering.before"),
        Binding("right,l,space", "turn(1)", "Next", show=False, id="steering.next"),
        Binding("enter", "enter", "Choose", show=False, id="steering.choose"),
    ]

    class Turned(Message):
        """Left or right was pressed; `by` is 0 for enter."""

        def __init__(self, switch: "Switch", by: int) -> None:
            super().__init__()
            self.switch, self.by = switch, by

    def action_turn(self, by: int) -> None:
        """Go to the value before or after."""
        self.post_message(self.Turned(self, by))

    def action_enter(self) -> None:
        """Choose from a list, or take the dialog."""
        self.post_message(self.Turned(self, 0))

    def on_click(self) -> None:
        """The mouse chooses too."""
        self.post_message(self.Turned(self, 0))


class SteeringDialog(ModalScreen[Steered | None]):
    """Asks how the stream is to be steered; answers with the candidate, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog.cancel"),
        Binding("ctrl+s", "take", "Take", id="form.take"),
        Binding("down", "app.focus_next", "Next", show=False, id="dialog.down"),
        Binding("up", "app.focus_previous", "Before", show=False, id="dialog.up"),
    ]
    DEFAULT_CSS = """
    SteeringDialog .dialog--box { width: 84; }
    SteeringDialog Grid { grid-size: 3; grid-columns: 10 24 1fr; grid-rows: auto; height: auto; grid-gutter: 0 1; }
    SteeringDialog Grid Input { background: $panel; }
    SteeringDialog Switch { background: $panel; height: 1; }
    SteeringDialog Switch:focus {
        background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold;
    }
    SteeringDialog .form--hint { color: $text-muted; height: auto; }
    SteeringDialog .form--hint.-wrong { color: $error; }
    SteeringDialog #candidate { margin: 1 0; }
    SteeringDialog VerticalScroll { height: auto; max-height: 100%; }
    """

    def __init__(
        self,
        operation: Operation,
        direction: Source | None,
        layers: int,
        sources: Callable[[], Sequence[Choice]],
        start: Steered | None = None,
    ) -> None:
        """Begin with `start`, or else with what is usual; `sources` reads all directions, off the screen's thread."""
        super().__init__(classes="dialog")
        self._operation, self._direction, self._count, self._read = operation, direction, layers, sources
        self._towards = start.towards if start else None
        self._start = start
        self._sources: Sequence[Choice] | None = None
        self._usual = ("", "")
        """What stood in the two lines without anybody's doing."""
        self._waiting = ""
        """The line that a list is to be opened for, once the directions are read."""

    def compose(self) -> ComposeResult:
        """A line for each choice, and what they amount to."""
        with VerticalScroll(classes="dialog--box", can_focus=False):
            yield Label("Steer the residual stream while the model runs", classes="dialog--title", markup=False)
            with Grid():
                for key in FIELDS:
                    yield Label(key.capitalize(), id=f"label-{key}", markup=False)
                    if key in {"amount", "layers"}:
                        yield Input(id=f"field-{key}", select_on_focus=False, compact=True)
                    else:
                        yield Switch("", id=f"field-{key}", markup=False)
                    yield Label("", id=f"hint-{key}", markup=False, classes="form--hint")
            yield Label("", id="candidate", markup=False)
            yield Label(
                "tab, up, down: lines · enter or ctrl+s: take it · esc: cancel", classes="dialog--hint", markup=False
            )

    def on_mount(self) -> None:
        """Fill the lines, and read what directions there are."""
        if self._operation == "rotated":
            self._pair()
        self._put_usual(self._start)
        self._say()
        self.query_one("#field-direction").focus()
        self.run_worker(self._read_sources, thread=True, group="directions", exclusive=True, exit_on_error=False)

    def _read_sources(self) -> None:
        try:
            found = self._read()
        except (EngineError, OSError) as error:
            self.app.call_from_thread(self.notify, one_line(str(error)), severity="warning", markup=False)
            found = []
        self.app.call_from_thread(self._take_sources, found)

    def _take_sources(self, found: Sequence[Choice]) -> None:
        self._sources = found
        if self._direction is None and found:
            self._direction = found[0].key
            self._pair()
            self._put_usual()
        self._say()
        if self._waiting:
            self._choose(self._waiting)

    # The lines

    def _input(self, key: str) -> Input:
        return self.query_one(f"#field-{key}", Input)

    def _put_usual(self, start: Steered | None = None) -> None:
        """Put the usual amount and layers, or those of `start`, into the lines that nobody has touched."""
        direction = self._direction
        if direction is None:
            return
        amount = usual_amount(self._operation, direction)
        at = usual_layers(self._operation, direction, self._count)
        usual = (f"{amount:g}", "all" if at is None else shown_layers(at))
        before, self._usual = self._usual, usual
        if start is not None:
            usual = (f"{start.amount:.6g}", "all" if start.layers is None else shown_layers(start.layers))
        for key, old, new in zip(("amount", "layers"), before, usual, strict=True):
            field = self._input(key)
            if field.value == old:
                field.value = new

    def _pair(self) -> None:
        """A rotation needs a second direction: the good prompts' centre at the layer, where there is one."""
        if self._towards is None and isinstance(self._direction, OfLayer):
            self._towards = OfLayer(self._direction.layer, good=not self._direction.good)

    def _candidate(self) -> tuple[Steered | None, dict[str, str]]:
        """What the lines describe, or what is wrong with them."""
        wrong = {}
        amount, layers = 0.0, None
        try:
            amount = float(self._input("amount").value)
        except ValueError:
            wrong["amount"] = "A number, such as 1 or 0.5."
        try:
            layers = read_layers(self._input("layers").value, self._count)
        except EngineError as error:
            wrong["layers"] = error.remedy or error.cause
        if self._direction is None:
            empty = self._sources is not None and not self._sources
            wrong["direction"] = NO_DIRECTION if empty else "Choose one: enter."
        rotated = self._operation == "rotated"
        if rotated and self._towards is None:
            wrong["towards"] = "Choose one: enter."
        elif rotated and self._towards == self._direction:
            wrong["towards"] = "The same direction: choose another."
        if wrong or self._direction is None:
            return None, wrong
        try:
            towards = self._towards if rotated else None
            return Steered(self._operation, self._direction, amount, layers, towards), {}
        except EngineError as error:
            return None, {"amount": error.remedy or error.cause}

    def _say(self) -> Steered | None:
        """Show the choices and what is wrong with them; returns the candidate if nothing is."""
        candidate, wrong = self._candidate()
        rotated = self._operation == "rotated"
        hints = {
            "operation": "left, right: another",
            "direction": "enter: list · left, right: next",
            "towards": "enter: list · left, right: next",
            "amount": unit_of(self._operation, self._direction) if self._direction else "",
            "layers": self._examples,
        }
        for key in FIELDS:
            hint = self.query_one(f"#hint-{key}", Label)
            hint.set_class(key in wrong, "-wrong")
            hint.update(one_line(f"✗ {wrong[key]}" if key in wrong else hints[key]))
        for name in ("label", "field", "hint"):
            self.query_one(f"#{name}-towards").display = rotated
        self.query_one("#label-amount", Label).update("Angle" if rotated else "Strength")
        self._show("operation", f"‹ {self._operation} ›")
        self._show("direction", self._direction.label if self._direction else "…")
        self._show("towards", self._towards.label if self._towards else "…")
        label = f"= {candidate.label}" if candidate else ""
        self.query_one("#candidate", Label).update(one_line(label))
        return candidate

    @property
    def _examples(self) -> str:
        """How layers are written, with numbers that this model has."""
        last = self._count - 1 if self._count else 20
        middle = last * 6 // 10
        return f"all, {middle}, or {middle}-{last}" if self._count else "all, 14, or 8-20"

    def _show(self, key: str, text: str) -> None:
        self.query_one(f"#field-{key}", Switch).update(Content(one_line(text)))

    def on_input_changed(self) -> None:
        """Check while it is typed."""
        self._say()

    def on_input_submitted(self) -> None:
        """Take it."""
        self.action_take()

    def on_switch_turned(self, event: Switch.Turned) -> None:
        """Another operation, or another direction."""
        key = str(event.switch.id).removeprefix("field-")
        if key == "operation":
            self._operate(event.by)
        elif event.by:
            self._step(key, event.by)
        else:
            self._choose(key)

    def _operate(self, by: int) -> None:
        if not by:
            self.action_take()
            return
        self._operation = OPERATIONS[(OPERATIONS.index(self._operation) + by) % len(OPERATIONS)]
        if self._operation == "rotated":
            self._pair()
        self._put_usual()
        self._say()

    def _step(self, key: str, by: int) -> None:
        """The direction before or after in the list."""
        keys = [choice.key for choice in self._sources or ()]
        present = self._direction if key == "direction" else self._towards
        if keys:
            place = keys.index(present) + by if present in keys else 0
            self._set(key, keys[place % len(keys)])

    def _choose(self, key: str) -> None:
        """Open the list of directions, once it is read."""
        self._waiting = key if self._sources is None else ""
        if not self._sources:
            return
        rows = [Row(choice.key, choice.cells, "rows--mark" if choice.best else "") for choice in self._sources]
        present = self._direction if key == "direction" else self._towards
        question = "Which direction?" if key == "direction" else "Towards which direction?"
        columns = [Column("", 26), Column("")]
        self.app.push_screen(Pick(question, columns, rows, key=present), partial(self._set, key))

    def _set(self, key: str, source: Source | None) -> None:
        if source is None:
            return
        if key == "direction":
            before, self._direction = self._direction, source
            # The second one goes along while it is the first one's own centre.
            if isinstance(before, OfLayer) and self._towards == OfLayer(before.layer, good=not before.good):
                self._towards = None
            if self._operation == "rotated":
                self._pair()
        else:
            self._towards = source
        self._put_usual()
        self._say()

    def action_take(self) -> None:
        """Answer with the candidate if nothing is wrong with it."""
        if (candidate := self._say()) is not None:
            self.dismiss(candidate)

    def action_cancel(self) -> None:
        """Answer nothing."""
        self.dismiss(None)
