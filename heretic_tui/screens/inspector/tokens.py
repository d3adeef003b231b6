"""The view of tokens: a prompt, each token shaded by its dot product with a direction, and what that is about."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from heretic_tui import paths
from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.chat.steering import Source, source_of
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.engine.inspection.direction import Direction
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.shelf import Shelf, open_shelf, pinned
from heretic_tui.engine.inspection.token_view import MEASURES, Measure
from heretic_tui.formats import one_line
from heretic_tui.inspections import Inspection, name_of
from heretic_tui.screens.inspector.about import AboutDrawer, Pane
from heretic_tui.screens.inspector.asking import find_contexts, read, read_missing, read_vocabulary, when_free
from heretic_tui.screens.inspector.choices import choose_direction, choose_prompt, choose_set
from heretic_tui.screens.inspector.chosen import MIX, Chosen
from heretic_tui.screens.inspector.directions import AskPrompt, LibraryDialog, keep_direction
from heretic_tui.screens.inspector.mixer import MixerDrawer
from heretic_tui.screens.inspector.painted import Painted, files_of, paint, unread
from heretic_tui.screens.inspector.part import InspectorPart, OwnFile
from heretic_tui.screens.inspector.token_pane import TokenPane
from heretic_tui.token_desk import TokenDesk
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.sliders import Sliders
from heretic_tui.widgets.token_text import TokenText

if TYPE_CHECKING:
    from heretic_tui.engine.prompts.reading import Prompt
    from heretic_tui.profile.schema import PromptSet

ROOM_FOR_BOTH = 26
"""Lines from which the mixer and a list have room beside the tokens."""


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
    TokensPart .drawer { display: none; border-top: solid $border-blurred; border-title-color: $text-muted; }
    TokensPart .drawer:focus-within { border-top: solid $primary; border-title-color: $primary; }
    TokensPart .drawer.-shown { display: block; }
    TokensPart #mixer { height: auto; max-height: 40%; }
    TokensPart #mixer Sliders { max-height: 6; }
    TokensPart #about { height: 45%; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.chosen = Chosen()
        self.measure: Measure = MEASURES[0]
        self.painted: Painted | None = None
        self._prompts: dict[str, list[Prompt]] = {}

    def compose(self) -> ComposeResult:
        """The tokens with what they are shaded by, the mixer, and what the direction is about."""
        yield TokenPane()
        yield MixerDrawer()
        yield AboutDrawer()

    @property
    def _pane(self) -> TokenPane:
        return self.query_one(TokenPane)

    @property
    def _text(self) -> TokenText:
        return self._pane.text

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
        return None if painted is None else source_of(pinned(self.chosen.key, painted.row), painted.direction)

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
        elif (shelf := self.chosen.shelf) is not None and shelf.sets is None:
            shelf.sets = inspection.original
        read_missing(self.control, state.tokens, inspection.number)
        self.paint()

    def _begin_anew(self) -> None:
        """Another run: nothing of the last one stays."""
        self.chosen, self.painted, self._prompts = Chosen(), None, {}
        self._mixer.hide()
        self._about.show("", None, fresh=True)

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Paint what came back."""
        if events and self.inspection is not None and self.desk is not None:
            read_missing(self.control, self.desk, self.inspection.number)
            self.paint()

    def _open_shelf(self) -> None:
        inspection = self.inspection
        if inspection is None:
            return
        path, sets = inspection.path, inspection.original

        def make() -> Job[Shelf]:
            return in_background(lambda _: open_shelf(paths.directions_dir(), path, sets))

        def opened(shelf: Shelf) -> None:
            self.chosen.shelf = shelf
            self.paint()

        def failed(error: EngineError) -> None:
            self._complain(error)
            opened(Shelf(DirectionLibrary(paths.directions_dir())))

        self.compute("directions", make, opened, failed)

    @property
    def title(self) -> str:
        """The direction's name."""
        return one_line(self.painted.direction.name) if self.painted is not None else ""

    def paint(self) -> None:
        """Show tokens, values and all else for what is selected now."""
        inspection, desk, chosen = self.inspection, self.desk, self.chosen
        if inspection is None or desk is None or not self.is_mounted:
            return
        before, found = self.title, chosen.at(inspection.row)
        if chosen.lacks_components(inspection.row):
            self._compute_components(inspection.row)
        self.painted = self._painted(inspection, desk, found)
        reading = desk.readings.get(inspection.number)
        if reading is None:
            activity = self.control.state.activity
            words = unread(desk, self.control.worker.current, activity.phase if activity is not None else "")
            self._pane.show_words(words, chosen.problem)
        else:
            other = name_of(0 if inspection.number else inspection.trial or 0)
            self._pane.show(reading, self.painted, chosen.problem, other)
            if desk.cursor is not None:
                self._text.go(desk.cursor)
                desk.cursor = None
        self._about.show(self._about.pane, desk, fresh=desk.is_about(self._about.pane, found, inspection.row))
        if before != self.title:
            self.say_title()

    def _painted(self, inspection: Inspection, desk: TokenDesk, found: Direction | None) -> Painted | None:
        if found is None:
            return None
        try:
            return paint(desk, inspection.number, found, inspection.row, self.measure)
        except EngineError as error:
            self.chosen.problem = str(error)
            return None

    def _found(self) -> Direction | None:
        """The direction that is chosen; None where it cannot be had, or not at once."""
        return self.chosen.at(self.inspection.row) if self.inspection is not None else None

    def _compute_components(self, row: int) -> None:
        """Principal components of a layer, on a thread; then paint."""
        chosen, shelf = self.chosen, self.chosen.shelf
        if shelf is None:
            return

        def failed(error: EngineError) -> None:
            chosen.problem = str(error)
            self._pane.say(chosen.problem)

        self.compute(
            "principal components",
            lambda: in_background(lambda _: shelf.components(row)),
            lambda _: self.paint(),
            failed,
        )

    # Reading

    def read_prompt(self, prompt: str, system_prompt: str | None = None, cursor: int | None = None) -> None:
        """Read a prompt, with the compared trial's weights too."""
        desk = self.desk
        if desk is not None and prompt.strip():
            when_free(self, partial(self._read, desk, prompt, system_prompt, cursor))

    def _read(self, desk: TokenDesk, prompt: str, system_prompt: str | None, cursor: int | None) -> None:
        desk.ask_prompt(prompt, system_prompt, cursor)
        trial = self.inspection.trial if self.inspection is not None else None
        read(self.control, desk, [0, trial] if trial else [0])
        self.paint()
        self._text.focus()

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
        if self.inspection is not None:
            choose_direction(self, self.chosen, self.inspection.row, question, then)

    def _take(self, key: str) -> None:
        self.chosen.key = key
        if key != MIX:
            self._mixer.hide()
        self.paint()

    # The mixer

    def action_mix(self) -> None:
        """Open the mixer, or close it; the mix stays."""
        if self._mixer.open:
            self._mixer.hide()
            self._text.focus()
        elif not self.chosen.mix.sliders:
            self.action_add()
        else:
            self.chosen.key = MIX
            self._open_mixer()

    def action_add(self) -> None:
        """Add a direction to the mix."""
        self._choose("Add which direction to the mix?", self._add)

    def _add(self, key: str) -> None:
        inspection, shelf = self.inspection, self.chosen.shelf
        if inspection is None or shelf is None or key == MIX:
            return
        key = pinned(key, inspection.row)
        try:
            self.chosen.add(key, shelf.at(key, inspection.row))
        except EngineError as error:
            self._complain(error)
            return
        self._open_mixer(key)

    def _open_mixer(self, key: str | None = None) -> None:
        if self.size.height < ROOM_FOR_BOTH:
            self._about.show("", None, fresh=True)
        self._mixer.show(self.chosen.mix, key)
        self.paint()

    def on_sliders_changed(self, event: Sliders.Changed) -> None:
        """Another mix: paint it at once."""
        event.stop()
        mixed = self.chosen.key == MIX
        self.chosen.weigh(self._mixer.sliders.sliders)
        if mixed and self.chosen.key != MIX:
            self._mixer.hide()
            self._text.focus()
        self.paint()

    # The library

    def action_keep(self) -> None:
        """Save the direction that is shown."""
        shelf, found = self.chosen.shelf, self._found()
        if shelf is None or found is None:
            self.notify(self.chosen.problem or "There is no direction to save yet.", markup=False)
            return
        suggested = f"{found.name} of {found.run}" if found.run and self.chosen.key != MIX else ""
        keep_direction(self, shelf.library, found, suggested)

    def action_library(self) -> None:
        """Rename, delete, import and export saved directions."""
        shelf = self.chosen.shelf
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
        self._toggle("vocabulary", partial(when_free, self, self._ask_vocabulary))

    def _toggle(self, pane: Pane, ask: Callable[[], None]) -> None:
        desk, inspection, found = self.desk, self.inspection, self._found()
        if desk is None or inspection is None:
            return
        fresh = desk.is_about(pane, found, inspection.row)
        if self._about.pane == pane and fresh:
            self._show_about("")
        elif found is None:
            self.notify(self.chosen.problem or "There is no direction yet.", markup=False)
        elif fresh:
            self._show_about(pane)
        else:
            ask()

    def _choose_contexts(self) -> None:
        if self.inspection is not None:
            choose_set(self, self.inspection.path, "Over which prompts?", self._find_contexts, whole=True)

    def _find_contexts(self, key: str, prompt_set: "PromptSet") -> None:
        when_free(self, partial(self._ask_contexts, key.endswith("+"), prompt_set))

    def _ask_contexts(self, whole: bool, prompt_set: "PromptSet") -> None:
        inspection, desk, found = self.inspection, self.desk, self._found()
        if inspection is not None and desk is not None and found is not None:
            row, trial = inspection.row, inspection.number
            find_contexts(self.control, desk, found, row, trial, prompt_set, whole=whole)
            self._show_about("contexts")

    def _ask_vocabulary(self) -> None:
        desk, found = self.desk, self._found()
        if desk is not None and found is not None:
            read_vocabulary(self.control, desk, found)
            self._show_about("vocabulary")

    def _show_about(self, pane: Pane) -> None:
        """Show one list, or none."""
        if pane and self.size.height < ROOM_FOR_BOTH:
            self._mixer.hide()
        self._about.pane = pane
        self.paint()
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
        return files_of(self.painted, self.desk)
