"""What the view of tokens asks of the engine: to read a prompt, and to find out what a direction is about."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from heretic_tui.control import Control
from heretic_tui.engine.background import Job
from heretic_tui.engine.inspection.direction import Direction
from heretic_tui.screens.dialogs import Confirm
from heretic_tui.screens.inspector.part import InspectorPart
from heretic_tui.token_desk import CONTEXTS, TOKENS, VOCABULARY, TokenDesk

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.loading.loader import Loader
    from heretic_tui.profile.schema import PromptSet


def when_free(part: InspectorPart, ask: Callable[[], None]) -> None:
    """Ask at once, or pause the study first if that is wanted."""
    control = part.control
    if not control.studying:
        ask()
        return

    def answered(yes: bool | None) -> None:
        if yes:
            control.stop()
            ask()

    part.app.push_screen(
        Confirm(
            "The study has the engine: pause it and look?",
            "Finished trials are saved, and the one under way begins anew. To go on with the study afterwards, "
            "press 3, then p.",
            "Pause and look",
            "Wait",
        ),
        answered,
    )


def read(control: Control, desk: TokenDesk, trials: Sequence[int]) -> None:
    """Have the desk's prompt read with the weights of trials."""
    number, prompt, system = desk.ask(TOKENS), desk.prompt, desk.system_prompt

    def job(subject: "Subject", load: "Loader") -> Job[Any]:
        from heretic_tui.engine.inspection.reading import read_tokens

        return read_tokens(subject, prompt, trials, system_prompt=system, number=number, load=load)

    _ask(control, desk, TOKENS, job)


def read_missing(control: Control, desk: TokenDesk, trial: int) -> None:
    """Have a prompt that was read read with this trial's weights, too, unless the engine works."""
    if desk.readings and trial not in desk.readings and TOKENS not in desk.waiting and not control.worker.busy:
        read(control, desk, [trial])


def find_contexts(
    control: Control, desk: TokenDesk, found: Direction, row: int, trial: int, prompt_set: "PromptSet", *, whole: bool
) -> None:
    """Have the tokens of a prompt set found that have the largest and smallest values along a direction."""
    number = desk.ask(CONTEXTS)
    desk.asked[CONTEXTS], desk.contexts = found, None

    def job(subject: "Subject", load: "Loader") -> Job[Any]:
        from heretic_tui.engine.inspection.contexts import find_contexts

        return find_contexts(subject, found, row, prompt_set, trial=trial, whole=whole, number=number, load=load)

    _ask(control, desk, CONTEXTS, job)


def read_vocabulary(control: Control, desk: TokenDesk, found: Direction) -> None:
    """Have the vocabulary read that a direction promotes and suppresses."""
    number = desk.ask(VOCABULARY)
    desk.asked[VOCABULARY], desk.vocabulary = found, None

    def job(subject: "Subject", load: "Loader") -> Job[Any]:
        from heretic_tui.engine.inspection.vocabulary import read_vocabulary

        return read_vocabulary(subject, found, number=number, load=load)

    _ask(control, desk, VOCABULARY, job)


def _ask(control: Control, desk: TokenDesk, title: str, job: "Callable[[Subject, Loader], Job[Any]]") -> None:
    """Have a job of the engine done, after what it does now; an older one of this title is stopped."""
    if control.worker.current == title:
        control.stop()
    control.inspect(title, desk.path, job)
