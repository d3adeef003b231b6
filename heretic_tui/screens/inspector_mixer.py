"""The drawer in which directions are mixed, with a slider each."""

from dataclasses import dataclass, field

from textual.app import ComposeResult
from textual.containers import Vertical

from heretic_tui.engine.inspection.direction import Direction, Part, mixed
from heretic_tui.widgets.sliders import Slider, Sliders

FIRST_WEIGHT = 0.5
"""What a direction counts when it is added."""


@dataclass
class Mix:
    """Directions by key, and how much of each."""

    sliders: list[Slider] = field(default_factory=list)
    directions: dict[str, Direction] = field(default_factory=dict)

    def add(self, key: str, direction: Direction) -> None:
        """Add a direction, if it is not there yet."""
        if all(one.key != key for one in self.sliders):
            self.directions[key] = direction
            self.sliders.append(Slider(key, direction.name, FIRST_WEIGHT))

    @property
    def result(self) -> Direction:
        """The mix, normalized. Raises `EngineError` where it points nowhere."""
        return mixed([Part(self.directions[one.key], one.value) for one in self.sliders])

    @property
    def words(self) -> str:
        """What is in it."""
        return ", ".join(f"{one.value:+.2f} {one.name}" for one in self.sliders)


class MixerDrawer(Vertical):
    """Sliders over a mix; `Sliders.Changed` tells that it is another."""

    def __init__(self) -> None:
        super().__init__(id="mixer", classes="drawer")
        self.mix = Mix()

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

    def show(self, key: str | None = None) -> None:
        """Show the mix, with the cursor on a direction of it."""
        self.add_class("-shown")
        if key is not None:
            self.sliders.cursor = next(place for place, one in enumerate(self.mix.sliders) if one.key == key)
        self.sliders.show(self.mix.sliders)
        self.sliders.focus()

    def hide(self) -> None:
        """Hide it; the mix stays."""
        self.remove_class("-shown")

    def take_over(self) -> None:
        """Take the sliders' values into the mix."""
        self.mix.sliders = list(self.sliders.sliders)
