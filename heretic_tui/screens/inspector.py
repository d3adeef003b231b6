"""The residual inspector's place."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from heretic_tui.screens.frame import FrameScreen


class InspectorScreen(FrameScreen):
    """Will show the residual stream layer by layer."""

    MODE: ClassVar[str] = "inspector"
    HELP: ClassVar[str] = "The residual stream, layer by layer. Its views are not part of this version yet."

    def body(self) -> ComposeResult:
        """The empty state."""
        yield Static(
            "The residual inspector is not part of this version yet.\n\n"
            "A run's folder keeps what it will show: the directions of every layer, and the residual vectors of every "
            "prompt where the profile sets save_residuals. Press 3 for the study, 5 to talk to a trial.",
            classes="hint",
            markup=False,
        )
