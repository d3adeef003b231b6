"""The directions that can be chosen for a run, by the keys that the command line and the screen share."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.components import MOST, Components, component, components_of
from heretic_tui.engine.inspection.direction import Direction, direction, layer_name, row_of
from heretic_tui.engine.inspection.direction_library import DirectionLibrary, Entry
from heretic_tui.engine.inspection.residual_sets import ResidualSets
from heretic_tui.engine.inspection.run_directions import load_run_directions

OWN = "own"
"""The direction of whatever layer is looked at."""
GRAMMAR = "own, layer:N, pc:K (of the layer that is looked at), pc:N:K, or the name of a saved direction"


@dataclass
class Shelf:
    """A run's directions, the components of its residual vectors, and the library.

    Keys: `own`, `layer:14`, `layer:in`, `pc:3`, `pc:14:3`; all else is a name of the library. The run's directions
    are always the original model's, whichever state of it is looked at.
    """

    library: DirectionLibrary
    vectors: NDArray[np.float32] | None = None
    """The run's unit vectors `(layers + 1, d_model)`, where it has some."""
    sets: ResidualSets | None = None
    model: str = ""
    run: str = ""
    _components: dict[int, Components] = field(default_factory=dict)
    _saved: dict[tuple[Path, int], Direction] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows of the stream the run knows; 0 where it knows none."""
        return len(self.vectors) if self.vectors is not None else 0

    @property
    def width(self) -> int:
        """Numbers of a vector; 0 where there is no run."""
        return int(self.vectors.shape[1]) if self.vectors is not None else 0

    def at(self, key: str, row: int) -> Direction:
        """The direction of a key while `row` is looked at. Raises `EngineError` where there is none.

        Takes a moment for components that were not asked for before: `has` tells.
        """
        kind, _, rest = key.partition(":")
        if key == OWN:
            return self.of_row(row)
        if kind == "layer" and rest:
            return self.of_row(row_of(rest, self._rows()))
        if kind == "pc" and rest:
            layer, between, number = rest.rpartition(":")
            place = row_of(layer, self._rows()) if between else row
            if not number.isdecimal():
                raise EngineError(f"{key} is no direction.", f"Write {GRAMMAR}.")
            return component(self.components(place), place, int(number), model=self.model, run=self.run)
        return self.saved(self.library.entry(key))

    def has(self, key: str, row: int) -> bool:
        """Whether `at` answers at once."""
        kind, _, rest = key.partition(":")
        if kind != "pc":
            return True
        layer, between, _ = rest.rpartition(":")
        return (row_of(layer, self._rows()) if between else row) in self._components

    def of_row(self, row: int) -> Direction:
        """The run's own direction at a row."""
        if self.vectors is None:
            raise EngineError("There are no residual directions.", "Choose a run that has some, or a saved direction.")
        name = f"layer {layer_name(row)}"
        if not self.vectors[row].any():
            raise EngineError(f"The two sets do not differ at {name}, so it has no direction.", "Choose another layer.")
        made = f"difference of the two prompt sets' centres after layer {layer_name(row)}"
        return direction(name, self.vectors[row], made=made, row=row, model=self.model, run=self.run)

    def components(self, row: int) -> Components:
        """Principal components at a row, computed once."""
        if row not in self._components:
            if self.sets is None:
                raise EngineError(
                    "Principal components need the residual vectors of every prompt.",
                    "Measure them: m in the inspector, or heretic-tui inspect RUN --measure.",
                )
            self._components[row] = components_of(self.sets, row, MOST)
        return self._components[row]

    def saved(self, entry: Entry) -> Direction:
        """A direction of the library, read once as long as its file stays the same."""
        try:
            key = (entry.path, entry.path.stat().st_mtime_ns)
        except OSError:
            return self.library.read(entry)  # which says what is wrong
        if key not in self._saved:
            self._saved[key] = self.library.read(entry)
        found = self._saved[key]
        return found if found.name == entry.name else self.library.read(entry)

    def _rows(self) -> int:
        if self.vectors is None:
            raise EngineError("There are no residual directions.", "Choose a run that has some, or a saved direction.")
        return len(self.vectors)


def pinned(key: str, row: int) -> str:
    """The key of the same direction that does not change with the layer that is looked at."""
    kind, _, rest = key.partition(":")
    if key == OWN:
        return f"layer:{layer_name(row)}"
    return f"pc:{layer_name(row)}:{rest}" if kind == "pc" and ":" not in rest else key


def open_shelf(folder: Path, run: Path | None, sets: ResidualSets | None = None) -> Shelf:
    """The shelf of a run's folder and its residual vectors, or of the library alone; no run is read twice for it.

    Raises `EngineError` for damaged files.
    """
    from heretic_tui.engine.runs.run import DIRECTIONS, Run

    library = DirectionLibrary(folder)
    if run is None:
        return Shelf(library)
    opened = Run(run)
    vectors = None
    if (run / DIRECTIONS).is_file():
        vectors = load_run_directions(run / DIRECTIONS).vectors
    elif sets is not None:
        vectors = sets.directions.astype(np.float32)
    return Shelf(library, vectors, sets, opened.model_name, opened.name)
