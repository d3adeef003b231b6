"""Asking for leave: a model that brings code, or pickled weights, is loaded only after a yes to just that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.screen import ModalScreen

from heretic_tui.screens.models.dialogs import Careful

if TYPE_CHECKING:
    from heretic_tui.engine.checkpoints.permissions import What

KEPT = "The answer is kept for this model as it is now: once it has changed, you are asked again."
WORDS: "dict[What, tuple[str, str, str]]" = {
    "code": (
        "Run the code of {}?",
        "This model comes with Python code of its own and cannot be loaded without it. Such code can do all that you "
        "can do on this machine: read your files, use your network, delete things. Read it first, and say yes only if "
        f"you trust its authors.\n\n{KEPT}",
        "Run it",
    ),
    "pickles": (
        "Load the pickled weights of {}?",
        "This model has no safetensors files, only pickled ones. Such files can hold code that runs while they are "
        "read; what is known to be dangerous is refused, but say yes only if you trust its authors.\n\n"
        f"{KEPT}",
        "Load them",
    ),
}


def question(shown: str, what: "What") -> ModalScreen[bool]:
    """The question to put for a model, which is shown by that name; enter alone is a no."""
    title, explanation, yes = WORDS[what]
    return Careful(title.format(shown), explanation, yes, "Do not load")


def ask_all(
    push: Callable[[ModalScreen[bool], Callable[[bool | None], None]], object],
    shown: str,
    needed: "list[What]",
    allowed: "Callable[[What], None]",
    then: Callable[[], None],
) -> None:
    """Put one question after the other, and go on once all are answered with yes."""
    if not needed:
        then()
        return
    what, *rest = needed

    def answered(yes: bool | None) -> None:
        if yes:
            allowed(what)
            ask_all(push, shown, rest, allowed, then)

    push(question(shown, what), answered)
