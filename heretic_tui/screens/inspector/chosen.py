"""Which direction the view of tokens shows: one of the shelf, or a mix of several."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import Direction, Part, mixed
from heretic_tui.engine.inspection.shelf import OWN, Shelf
from heretic_tui.widgets.sliders import Slider

MIX = "mix"
"""The key of the mix."""
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


@dataclass
class Chosen:
    """A key of a run's shelf, or the mix."""

    shelf: Shelf | None = None
    """None until it is opened."""
    key: str = OWN
    mix: Mix = field(default_factory=Mix)
    problem: str = ""
    """Why there was no direction when it was asked for last."""

    def at(self, row: int) -> Direction | None:
        """The direction while `row` is looked at; None where there is a problem, or components are to be computed."""
        if self.shelf is None or self.lacks_components(row):
            return None
        try:
            found = self.mix.result if self.key == MIX else self.shelf.at(self.key, row)
        except EngineError as error:
            self.problem = str(error)
            return None
        self.problem = ""
        return found

    def lacks_components(self, row: int) -> bool:
        """Whether `at` waits for components of the residual vectors, which take a moment."""
        try:
            return self.shelf is not None and self.key != MIX and not self.shelf.has(self.key, row)
        except EngineError:
            return False  # which `at` tells

    def add(self, key: str, direction: Direction) -> None:
        """Add a direction to the mix, and choose the mix."""
        self.mix.add(key, direction)
        self.key = MIX

    def weigh(self, sliders: Sequence[Slider]) -> None:
        """Take other weights into the mix; where nothing is left of it, the layer's own direction is chosen."""
        self.mix.sliders = list(sliders)
        if not sliders and self.key == MIX:
            self.key = OWN
