"""The view of tokens: a prompt, each token shaded by its dot product with a direction, and what that is about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from heretic_tui import paths
from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.contexts import Contexts
from heretic_tui.engine.inspection.direction import Direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.shelf import OWN, Shelf, open_shelf, pinned
from heretic_tui.engine.inspection.token_view import MEASURES, Measure, Scale, TokenReading, figure, scale_of, signed
from heretic_tui.engine.steering import Source, source_of
from heretic_tui.formats import one_line, plain
from heretic_tui.inspections import Inspection, name_of
from heretic_tui.screens.dialogs import Confirm
from heretic_tui.screens.form import Values
from heretic_tui.screens.inspector_about import AboutDrawer, Pane
from heretic_tui.screens.inspector_choices import MIX, choose_direction, choose_prompt, choose_set
from heretic_tui.screens.inspector_directions import AskPrompt, LibraryDialog, save_form
from heretic_tui.screens.inspector_mixer import Mix, MixerDrawer
from heretic_tui.screens.inspector_part import InspectorPart, OwnFile
from heretic_tui.token_desk import CONTEXTS, TOKENS, VOCABULARY, TokenDesk
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.sliders import Sliders
from heretic_tui.widgets.token_text import Token, TokenText, token

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.loading import Loader
    from heretic_tui.engine.prompts import Prompt
    from heretic_tui.profile.schema import PromptSet

ROOM_FOR_BOTH = 26
"""Lines from which the mixer and a list have room beside the tokens."""

NOTHING = """\
No prompt was read yet.

i  type a prompt
o  take one from the run's prompt sets

The model is loaded if it is not in memory; then one pass reads all layers.
"""


@dataclass(frozen=True, eq=False)
class Painted:
    """What is on the screen, for the number under the cursor and for files."""

    reading: TokenReading
    direction: Direction
    row: int
    values: NDArray[np.float32]
    scale: Scale
    other: NDArray[np.float32] | None = None
    """The values of the state of the model that is not shown, where it was read too."""


class TokensPart(InspectorPart):
    """Tokens shaded by a direction; directions to choose, mix and keep; tokens and vocabulary that they are about."""

    NAME: ClassVar[str] = "tokens"
    NEEDS_VECTORS: ClassVar[bool] = False
    HELP: ClassVar[str] = """
    A prompt's tokens, each shaded by the dot product of its residual vector with a direction at the layer that is
    selected: red is positive, blue negative. [ and ] change the layer, D the direction, b shows the compared trial;
    the prompt is read once for all of them.

    The scale is symmetric around 0. Where the first token's vector dwarfs all others, as it does in most models, it
    is left out of the scale; it then has the full colour. z changes what a value is: the dot product, that less the
    mean over the prompt, or the cosine, which no length matters to.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "prompt", "Prompt", id="tokens.prompt", tooltip="Type a prompt"),
        Binding("o", "pick_prompt", "From a set", id="tokens.set", tooltip="Take a prompt from a prompt set"),
        Binding("D", "direction", "Direction", id="tokens.direction", tooltip="Choose a direction"),
        Binding("r", "mix", "Mix", id="tokens.mix", tooltip="Mix directions, or close the mixer"),
        Binding("plus,equals_sign", "add", "Add to mix", show=False, id="tokens.add"),
        Binding("k", "keep", "Save", id="tokens.keep", tooltip="Save the direction to the library"),
        Binding("L", "library", "Library", show=False, id="tokens.library", tooltip="Rename, delete, import, export"),
        Binding("a", "about", "About", id="tokens.about", tooltip="Tokens of a prompt set with the largest values"),
        Binding("u", "vocabulary", "Vocabulary", id="tokens.vocabulary", tooltip="What it promotes and suppresses"),
        Binding("z", "measure", "Measure", show=False, id="tokens.measure", tooltip="Dot product, less mean, cosine"),
        Binding("n", "numbers", "Numbers", show=False, id="tokens.numbers", tooltip="Sign and size below each token"),
        Binding("escape", "back", "Back", show=False, id="tokens.back"),
    ]
    DEFAULT_CSS = """
    TokensPart #said { height: 2; color: $foreground-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    TokensPart #empty { height: 1fr; color: $text-muted; padding: 1 0; }
    TokensPart #under { height: auto; max-height: 2; }
    TokensPart .drawer { display: none; border-top: solid $border-blurred; border-title-color: $text-muted; }
    TokensPart .drawer:focus-within { border-top: solid $primary; border-title-color: $primary; }
    TokensPart .drawer.-shown { display: block; }
    TokensPart #mixer { height: auto; max-height: 40%; }
    TokensPart #mixer Sliders { max-height: 6; }
    TokensPart #about { height: 45%; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.key = OWN
        """The direction that is chosen."""
        self.measure: Measure = MEASURES[0]
        self.shelf: Shelf | None = None
        self.painted: Painted | None = None
        self._problem = ""
        self._tokens: tuple[object, tuple[Token, ...]] = (None, ())
        self._prompts: dict[str, list[Prompt]] = {}

    def compose(self) -> ComposeResult:
        """The tokens with what they are shaded by, the mixer, and what the direction is about."""
        yield Static("", id="said", markup=False)
        yield TokenText(id="tokens-text")
        yield Static("", id="empty", markup=False)
        yield Static("", id="under", markup=False)
        yield MixerDrawer()
        yield AboutDrawer()

    @property
    def _text(self) -> TokenText:
        return self.query_one(TokenText)

    @property
    def _mixer(self) -> MixerDrawer:
        return self.query_one(MixerDrawer)

    @property
    def _about(self) -> AboutDrawer:
        return self.query_one(AboutDrawer)

    @property
    def desk(self) -> TokenDesk | None:
        """What was asked for of the run that is shown."""
        desk = self.control.state.tokens
        return desk if desk is not None and self.inspection is not None and desk.path == self.inspection.path else None

    @property
    def direction(self) -> Direction | None:
        """The direction that is shown, if there is one."""
        return self.painted.direction if self.painted is not None else None

    @property
    def source(self) -> Source | None:
        """The direction that is shown, to steer with."""
        painted = self.painted
        return None if painted is None else source_of(pinned(self.key, painted.row), painted.direction)

    # Following

    def show(self, inspection: Inspection) -> None:
        """Paint the row and the side that are selected."""
        other = self.inspection is None or self.inspection.path != inspection.path
        super().show(inspection)
        state = self.control.state
        if state.tokens is None or state.tokens.path != inspection.path:
            state.tokens = TokenDesk(inspection.path)
        if other:
            self._begin_anew()
            self._open_shelf()
        elif self.shelf is not None and self.shelf.sets is None:
            self.shelf.sets = inspection.original
        self._read_missing()
        self.paint()

    def _begin_anew(self) -> None:
        """Another run: nothing of the last one stays."""
        self.key, self.shelf, self.painted, self._prompts = OWN, None, None, {}
        self._mixer.mix = Mix()
        self._mixer.hide()
        self._about.show("", None, fresh=True)

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Paint what came back."""
        if events and self.desk is not None:
            self._read_missing()
            self.paint()

    def _open_shelf(self) -> None:
        inspection = self.inspection
        if inspection is None:
            return
        path, sets = inspection.path, inspection.original

        def make() -> Job[Shelf]:
            return in_background(lambda _: open_shelf(paths.directions_dir(), path, sets))

        def failed(error: EngineError) -> None:
            self.shelf = Shelf(DirectionLibrary(paths.directions_dir()))
            self._problem = str(error)
            self.paint()

        self.compute("directions", make, self._opened, failed)

    def _opened(self, shelf: Shelf) -> None:
        self.shelf = shelf
        if shelf.vectors is None:
            self._problem = "This run has no directions yet. D chooses a saved one, 3 goes on with the study."
        self.paint()

    @property
    def title(self) -> str:
        """The direction's name."""
        return one_line(self.painted.direction.name) if self.painted is not None else ""

    # Painting: NumPy alone, at once

    def paint(self) -> None:
        """Show tokens, values and all else for what is selected now."""
        inspection, desk = self.inspection, self.desk
        if inspection is None or desk is None or not self.is_mounted:
            return
        reading = desk.readings.get(inspection.number)
        before = self.painted
        self.painted = self._painted(inspection, desk, reading)
        text = self._text
        text.display = reading is not None
        empty = self.query_one("#empty", Static)
        empty.display = reading is None
        if reading is None:
            empty.update(plain(self._empty(desk)))
        else:
            painted = self.painted
            shares = [0.0] * len(reading.pieces)
            if painted is not None and painted.scale.limit > 0:
                shares = np.clip(painted.values / painted.scale.limit, -1, 1).tolist()
            text.show(self._shown_tokens(reading), shares)
            if desk.cursor is not None:
                text.go(desk.cursor)
                desk.cursor = None
        self._say()
        self._say_under()
        self._about.show(self._about.pane, desk, fresh=self._fresh(self._about.pane))
        if (before.direction.name if before else "") != (self.painted.direction.name if self.painted else ""):
            self.say_title()

    def _painted(self, inspection: Inspection, desk: TokenDesk, reading: TokenReading | None) -> Painted | None:
        found = self._found(inspection.row)
        if reading is None or found is None or inspection.row >= reading.rows:
            return None
        row, measure = inspection.row, self.measure
        try:
            values = reading.values(found, row, measure)
        except EngineError as error:
            self._problem = str(error)
            return None
        others = [one for one in desk.readings.values() if one is not reading]
        other = others[0].values(found, row, measure) if others else None
        both = [values] if other is None else [values, other]
        giant = measure != "cosine" and reading.giant(row)
        return Painted(reading, found, row, values, scale_of(*both, without_first=giant), other)

    def _found(self, row: int) -> Direction | None:
        """The direction that is chosen; None where it cannot be had, or not at once."""
        shelf, key = self.shelf, self.key
        if shelf is None:
            return None
        try:
            if key == MIX:
                found = self._mixer.mix.result
            elif shelf.has(key, row):
                found = shelf.at(key, row)
            else:
                self._compute_components(row)
                return None
        except EngineError as error:
            self._problem = str(error)
            return None
        self._problem = ""
        return found

    def _compute_components(self, row: int) -> None:
        """Principal components of a layer, on a thread; then paint."""
        shelf = self.shelf
        if shelf is None:
            return

        def failed(error: EngineError) -> None:
            self._problem = str(error)
            self._say()

        self.compute(
            "principal components",
            lambda: in_background(lambda _: shelf.components(row)),
            lambda _: self.paint(),
            failed,
        )

    def _shown_tokens(self, reading: TokenReading) -> tuple[Token, ...]:
        if self._tokens[0] is not reading.pieces:
            self._tokens = (
                reading.pieces,
                tuple(
                    token(one.text, "special" if one.special else "" if one.own else "template", one.part, one.parts)
                    for one in reading.pieces
                ),
            )
        return self._tokens[1]

    def _empty(self, desk: TokenDesk) -> str:
        if TOKENS not in desk.waiting:
            return NOTHING if not desk.prompt else f"The prompt was not read.\n\n{NOTHING.partition(chr(10) * 2)[2]}"
        current = self.control.worker.current
        if desk.waiting[TOKENS] or current is None:
            activity = self.control.state.activity
            doing = f": {activity.phase}" if activity is not None and activity.phase else ""
            return f"Reading the prompt{doing} …\n\nx stops it."
        return f"The prompt is read when the engine is free; it works on this: {current}."

    def _say(self) -> None:
        painted = self.painted
        if painted is None:
            self.query_one("#said", Static).update(plain(self._problem))
            return
        note = (painted.direction.note or painted.direction.made).removeprefix("mix: ")
        limit = figure(painted.scale.limit)
        self.query_one("#said", Static).update(
            Content.assemble(
                (one_line(painted.direction.name), "bold $foreground"),
                f"  {one_line(note)}\n",
                f"{self.measure} ",
                (f"■ −{limit}", "$secondary"),
                " to ",
                (f"■ +{limit}", "$error"),
                f" · {words}" if (words := painted.scale.about) else "",
            )
        )

    def _say_under(self) -> None:
        """The number under the cursor."""
        painted, text = self.painted, self._text
        under = self.query_one("#under", Static)
        if painted is None or text.cursor >= len(painted.values):
            under.update("")
            return
        place = text.cursor
        piece = painted.reading.pieces[place]
        value = float(painted.values[place])
        colour = "$error" if value > 0 else "$secondary"
        parts: list[Any] = [
            f"{place + 1}/{len(painted.values)} ",
            (f"“{text.tokens[place].text}” ", "bold"),
            (signed(value), f"bold {colour}"),
        ]
        if painted.other is not None and self.inspection is not None:
            name = name_of(0 if painted.reading.trial else self.inspection.trial or 0)
            parts.append(f"  {name} {signed(float(painted.other[place]))}")
        if piece.parts > 1:
            parts.append(f"  part {piece.part} of {piece.parts} of a character")
        parts.append((f"  token {piece.token}{' · special' if piece.special else ''}", "$foreground-muted"))
        under.update(Content.assemble(*parts))

    def on_token_text_moved(self, event: TokenText.Moved) -> None:
        """The cursor stands on another token."""
        event.stop()
        self._say_under()

    # Asking the engine

    def _ask(self, title: str, job: "Callable[[Subject, Loader], Job[Any]]") -> None:
        """Have a job of the engine done, after what it does now; an older one of this title is stopped."""
        inspection = self.inspection
        if inspection is None:
            return
        if self.control.worker.current == title:
            self.control.stop()
        self.control.inspect(title, inspection.path, job)
        self.paint()

    def _when_free(self, ask: Callable[[], None]) -> None:
        """Ask at once, or pause the study first if that is wanted."""
        if not self.control.studying:
            ask()
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.control.stop()
                ask()

        self.app.push_screen(
            Confirm(
                "The study has the engine: pause it and look?",
                "Finished trials are saved, and the one under way begins anew. To go on with the study afterwards, "
                "press 3, then p.",
                "Pause and look",
                "Wait",
            ),
            answered,
        )

    def _read_missing(self) -> None:
        """Read the prompt with the trial's weights, or the original ones, once that side is looked at."""
        inspection, desk = self.inspection, self.desk
        if inspection is None or desk is None or not desk.prompt or TOKENS in desk.waiting:
            return
        wanted = inspection.number
        if desk.readings and wanted not in desk.readings and not self.control.worker.busy:
            self._read([wanted])

    def read_prompt(self, prompt: str, system_prompt: str | None = None, cursor: int | None = None) -> None:
        """Read a prompt, with the compared trial's weights too."""
        desk = self.desk
        if desk is not None and prompt.strip():
            self._when_free(partial(self._begin, desk, prompt, system_prompt, cursor))

    def _begin(self, desk: TokenDesk, prompt: str, system_prompt: str | None, cursor: int | None) -> None:
        desk.ask_prompt(prompt, system_prompt, cursor)
        trials = [0]
        if self.inspection is not None and self.inspection.trial:
            trials.append(self.inspection.trial)
        self._read(trials)
        self._text.focus()

    def _read(self, trials: Sequence[int]) -> None:
        desk = self.desk
        if desk is None:
            return
        number, prompt, system = desk.ask(TOKENS), desk.prompt, desk.system_prompt

        def job(subject: "Subject", load: "Loader") -> Job[Any]:
            from heretic_tui.engine.inspection.reading import read_tokens

            return read_tokens(subject, prompt, trials, system_prompt=system, number=number, load=load)

        self._ask(TOKENS, job)

    # Keys

    def action_prompt(self) -> None:
        """Type a prompt."""
        desk = self.desk

        def answered(prompt: str | None) -> None:
            if prompt is not None:
                self.read_prompt(prompt)

        if desk is not None:
            self.app.push_screen(AskPrompt(desk.prompt), answered)

    def action_pick_prompt(self) -> None:
        """Choose a prompt set, then a prompt of it."""
        if self.inspection is not None:
            then = lambda prompt: self.read_prompt(prompt.text, prompt.system_prompt)  # noqa: E731
            choose_prompt(self, self.inspection.path, self._prompts, then)

    def action_measure(self) -> None:
        """Dot product, that less the mean, or the cosine."""
        self.measure = MEASURES[(MEASURES.index(self.measure) + 1) % len(MEASURES)]
        self.paint()

    def action_numbers(self) -> None:
        """Show signs and sizes below the tokens, or not."""
        self._text.set_numbers(not self._text.numbers)

    def action_back(self) -> None:
        """Escape closes the pane or the mixer that has the focus; else it goes where it goes everywhere."""
        if self._about.listed.has_focus:
            self._show_about("")
        elif self._mixer.sliders.has_focus:
            self._mixer.hide()
        else:
            raise SkipAction
        self._text.focus()

    # Directions

    def action_direction(self) -> None:
        """Choose a direction."""
        self._choose("Which direction?", self._take)

    def _choose(self, question: str, then: Callable[[str], None]) -> None:
        if self.inspection is not None and self.shelf is not None:
            choose_direction(self, self.shelf, self.inspection.row, self._mixer.mix, question, self.key, then)

    def _take(self, key: str) -> None:
        self.key = key
        if key != MIX:
            self._mixer.hide()
        self.paint()

    # The mixer

    def action_mix(self) -> None:
        """Open the mixer, or close it; the mix stays."""
        if self._mixer.open:
            self._mixer.hide()
            self._text.focus()
        elif not self._mixer.mix.sliders:
            self.action_add()
        else:
            self._open_mixer()

    def action_add(self) -> None:
        """Add a direction to the mix."""
        self._choose("Add which direction to the mix?", self._add)

    def _add(self, key: str) -> None:
        inspection, shelf = self.inspection, self.shelf
        if inspection is None or shelf is None or key == MIX:
            return
        key = pinned(key, inspection.row)
        try:
            self._mixer.mix.add(key, shelf.at(key, inspection.row))
        except EngineError as error:
            self._complain(error)
            return
        self._open_mixer(key)

    def _open_mixer(self, key: str | None = None) -> None:
        self.key = MIX
        if self.size.height < ROOM_FOR_BOTH:
            self._about.show("", None, fresh=True)
        self._mixer.show(key)
        self.paint()

    def on_sliders_changed(self, event: Sliders.Changed) -> None:
        """Another mix: paint it at once."""
        event.stop()
        self._mixer.take_over()
        if not self._mixer.mix.sliders and self.key == MIX:
            self.key = OWN
            self._mixer.hide()
            self._text.focus()
        self.paint()

    # The library

    def action_keep(self) -> None:
        """Save the direction that is shown."""
        inspection, shelf = self.inspection, self.shelf
        found = self._found(inspection.row) if inspection is not None else None
        if shelf is None or found is None:
            self.notify(self._problem or "There is no direction to save yet.", markup=False)
            return

        def offer(entries: Any) -> None:
            taken = [entry.name for entry in entries]
            suggested = f"{found.name} of {found.run}" if found.run and self.key != MIX else ""
            self.app.push_screen(save_form(found, taken, suggested), partial(self._keep, shelf.library, found))

        self.compute("library", lambda: in_background(lambda _: shelf.library.entries()), offer)

    def _keep(self, library: DirectionLibrary, found: Direction, values: Values | None) -> None:
        if values is None:
            return

        def saved(entry: Any) -> None:
            self.notify(f"Saved as {entry.name}.", markup=False, timeout=4)

        self.compute(
            "save", lambda: in_background(lambda _: library.save(found, values["name"], values["note"])), saved
        )

    def action_library(self) -> None:
        """Rename, delete, import and export saved directions."""
        shelf = self.shelf
        if shelf is None:
            return

        def chosen(name: str | None) -> None:
            if name is not None:
                self._take(name)
            else:
                self.paint()

        self.app.push_screen(LibraryDialog(shelf.library, shelf.width), chosen)

    # What it is about

    def action_about(self) -> None:
        """Find the tokens of a prompt set with the largest and smallest values; or close the list."""
        self._toggle("contexts", self._choose_contexts)

    def action_vocabulary(self) -> None:
        """Read the vocabulary that the direction promotes and suppresses; or close the list."""
        self._toggle("vocabulary", partial(self._when_free, self._ask_vocabulary))

    def _toggle(self, pane: Pane, ask: Callable[[], None]) -> None:
        desk, inspection = self.desk, self.inspection
        if desk is None or inspection is None:
            return
        if self._about.pane == pane and self._fresh(pane):
            self._show_about("")
            return
        if self._found(inspection.row) is None:
            self.notify(self._problem or "There is no direction yet.", markup=False)
            return
        if not self._fresh(pane):
            ask()
        else:
            self._show_about(pane)

    def _fresh(self, pane: str) -> bool:
        """Whether what is listed is about the direction that is shown."""
        desk, inspection = self.desk, self.inspection
        asked = desk.asked.get(pane) if desk is not None else None
        found = self._found(inspection.row) if inspection is not None else None
        if asked is None or found is None or desk is None or not np.array_equal(asked.vector, found.vector):
            return False
        known: Any = desk.contexts if pane == CONTEXTS else desk.vocabulary
        return pane in desk.waiting or (known is not None and (pane != CONTEXTS or known.row == inspection.row))  # type: ignore[union-attr]

    def _choose_contexts(self) -> None:
        if self.inspection is not None:
            choose_set(self, self.inspection.path, "Over which prompts?", self._find_contexts, whole=True)

    def _find_contexts(self, key: str, prompt_set: "PromptSet") -> None:
        self._when_free(partial(self._ask_contexts, key.endswith("+"), prompt_set))

    def _ask_contexts(self, whole: bool, prompt_set: "PromptSet") -> None:
        inspection, desk = self.inspection, self.desk
        found = self._found(inspection.row) if inspection is not None else None
        if inspection is None or desk is None or found is None:
            return
        row, trial, number = inspection.row, inspection.number, desk.ask(CONTEXTS)
        desk.asked[CONTEXTS], desk.contexts = found, None

        def job(subject: "Subject", load: "Loader") -> Job[Contexts]:
            from heretic_tui.engine.inspection.contexts import find_contexts

            return find_contexts(subject, found, row, prompt_set, trial=trial, whole=whole, number=number, load=load)

        self._ask(CONTEXTS, job)
        self._show_about("contexts")

    def _ask_vocabulary(self) -> None:
        inspection, desk = self.inspection, self.desk
        found = self._found(inspection.row) if inspection is not None else None
        if desk is None or found is None:
            return
        number = desk.ask(VOCABULARY)
        desk.asked[VOCABULARY], desk.vocabulary = found, None

        def job(subject: "Subject", load: "Loader") -> Job[Any]:
            from heretic_tui.engine.inspection.vocabulary import read_vocabulary

            return read_vocabulary(subject, found, number=number, load=load)

        self._ask(VOCABULARY, job)
        self._show_about("vocabulary")

    def _show_about(self, pane: Pane) -> None:
        """Show one list, or none."""
        if pane and self.size.height < ROOM_FOR_BOTH:
            self._mixer.hide()
        self._about.show(pane, self.desk, fresh=self._fresh(pane))
        if pane:
            self._about.listed.focus()
        elif self._text.display:
            self._text.focus()

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """The lists of this view are its own."""
        event.stop()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Read the prompt that a token in context stands in."""
        event.stop()
        contexts = self.desk.contexts if self.desk is not None else None
        found = AboutDrawer.context(contexts, event.key) if contexts is not None else None
        if found is not None:
            self.read_prompt(found.whole, cursor=found.position)

    # Files

    def files(self) -> Sequence[OwnFile]:
        """The tokens with their values, and the lists."""
        painted, desk = self.painted, self.desk
        files = []
        if painted is not None:
            from heretic_tui.engine.inspection.token_files import tokens_as_csv, tokens_as_json

            of = (painted.reading, painted.direction, painted.row, painted.values)
            files += [
                OwnFile("tokens.csv", "a token a line, with its value", partial(tokens_as_csv, *of)),
                OwnFile("tokens.json", "the same with the direction", partial(tokens_as_json, *of, self.measure)),
            ]
        if desk is not None and desk.contexts is not None:
            from heretic_tui.formats import json_line

            contexts = desk.contexts
            files.append(OwnFile("contexts.json", "tokens in context", lambda: json_line(contexts.as_json())))
        if desk is not None and desk.vocabulary is not None:
            from heretic_tui.formats import json_line

            vocabulary = desk.vocabulary
            files.append(OwnFile("vocabulary.json", "promoted and suppressed", lambda: json_line(vocabulary.as_json())))
        return files
