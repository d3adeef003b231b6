"""The drawer in which directions are mixed, with a slider each."""

from textual.app import ComposeResult
from textual.containers import Vertical

from heretic_tui.screens.inspector.chosen import Mix
from heretic_tui.widgets.sliders import Sliders


class MixerDrawer(Vertical):
    """Sliders over a mix; `Sliders.Changed` tells that it is another."""

    def __init__(self) -> None:
        super().__init__(id="mixer", classes="drawer")

    def compose(self) -> ComposeResult:
        """The sliders."""
        yield Sliders(empty="+ adds a direction", id="sliders")

    def on_mount(self) -> None:
        """Say what to press."""
        self.border_title = "Mix · ←→ weight · + add · delete"

    @property
    def sliders(self) -> Sliders:
        """The sliders."""
        return self.query_one(Sliders)

    @property
    def open(self) -> bool:
        """Whether it is shown."""
        return self.has_class("-shown")

    def show(self, mix: Mix, key: str | None = None) -> None:
        """Show a mix, with the cursor on a direction of it."""
        self.add_class("-shown")
        if key is not None:
            self.sliders.cursor = next(place for place, one in enumerate(mix.sliders) if one.key == key)
        self.sliders.show(mix.sliders)
        self.sliders.focus()

    def hide(self) -> None:
        """Hide it; the mix stays."""
        self.remove_class("-shown")
