"""An inspection as the screen knows it: what is known of a run's residual vectors. No screen and no torch is needed.

Everything here that reads from a run's folder takes a moment, so it is called off the screen's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heretic_tui.engine.errors import EngineError

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.residual_sets import ResidualSets

Side = Literal["original", "trial"]


@dataclass
class Reading:
    """What is known of one state of a model: of trial 0, which is the model as it was, or of a trial's."""

    trial: int
    sets: "ResidualSets | None" = None
    problem: EngineError | None = None
    """Why there are no residual vectors; an inspection says it where the views would be."""

    @property
    def missing(self) -> bool:
        """Whether the vectors were never measured, or are no good."""
        return self.sets is None


@dataclass
class Inspection:
    """What the inspector shows: a run's vectors as they were and as a trial makes them, and where one looks."""

    path: Path
    """The run's folder."""
    model: str
    """The model as the person named it."""
    readings: dict[int, Reading] = field(default_factory=dict)
    """What was read, by trial; 0 is the original model."""
    trial: int | None = None
    """The trial that is compared with the original; None for none."""
    side: Side = "original"
    """Which of the two is shown."""
    row: int = 0
    """The row of the stream that is selected: 0 the embeddings, l + 1 after decoder layer l."""

    @property
    def original(self) -> "ResidualSets | None":
        """The original model's vectors."""
        return self._sets(0)

    @property
    def of_trial(self) -> "ResidualSets | None":
        """The compared trial's vectors."""
        return None if self.trial is None else self._sets(self.trial)

    def _sets(self, trial: int) -> "ResidualSets | None":
        reading = self.readings.get(trial)
        return reading.sets if reading else None

    @property
    def number(self) -> int:
        """The trial that is shown; 0 is the original model."""
        return self.trial if self.side == "trial" and self.trial is not None else 0

    @property
    def shown(self) -> Reading:
        """What is known of the side that is shown."""
        return self.readings.get(self.number) or Reading(self.number)

    @property
    def other(self) -> Reading | None:
        """What is known of the side that is not shown; None where nothing is compared or nothing was read."""
        if self.trial is None:
            return None
        reading = self.readings.get(0 if self.side == "trial" else self.trial)
        return None if reading is None or reading.missing else reading

    @property
    def sets(self) -> "ResidualSets | None":
        """The vectors of the side that is shown."""
        return self.shown.sets

    @property
    def rows(self) -> int:
        """How many rows of the stream there are; 0 where nothing was measured."""
        return next((one.sets.rows for one in self.readings.values() if one.sets is not None), 0)

    def move(self, by: int) -> bool:
        """Select another row; says whether it is another."""
        return self.go(self.row + by)

    def go(self, row: int) -> bool:
        """Select a row, or the nearest there is; says whether it is another."""
        before, self.row = self.row, max(0, min(row, self.rows - 1))
        return self.row != before

    def take(self, reading: Reading) -> None:
        """Take in what was read."""
        self.readings[reading.trial] = reading
        self.go(self.row)


def layer_name(row: int) -> str:
    """A row of the stream by the number of the decoder layer that it comes out of; the embeddings are `in`."""
    return str(row - 1) if row else "in"


def name_of(trial: int) -> str:
    """A state of a model in words."""
    return f"trial {trial}" if trial else "original model"


def read_inspection(path: Path) -> Inspection:
    """Read what a run's folder keeps of the original model. Raises `EngineError` and `ProfileError`."""
    from heretic_tui.engine.run import Run

    inspection = Inspection(path, Run(path).model_name)
    inspection.take(read_reading(path, 0))
    inspection.row = max(0, inspection.rows * 2 // 3)
    return inspection


def read_reading(path: Path, trial: int) -> Reading:
    """Read what a run's folder keeps of the original model (0) or a trial; what is wrong stands in the reading."""
    from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
    from heretic_tui.engine.run import Run

    try:
        sets = load_residual_sets(residuals_path(Run(path), trial))
        sets.check()
    except EngineError as error:
        return Reading(trial, problem=error)
    return Reading(trial, sets)


def measured_trials(path: Path) -> Sequence[int]:
    """The trials whose residual vectors a run's folder keeps, in order; 0 is the original model."""
    from heretic_tui.engine.inspection.residual_sets import residuals_path
    from heretic_tui.engine.run import Run

    run = Run(path)
    folder = residuals_path(run, 1).parent
    found = [int(one.stem.rpartition("-")[2]) for one in folder.glob("residuals-[0-9]*.safetensors")]
    return sorted([0, *found] if residuals_path(run).is_file() else found)
