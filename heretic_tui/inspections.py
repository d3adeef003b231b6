"""An inspection as the screen knows it: what is known of a run's residual vectors. No screen and no torch is needed.

Everything here that reads from a run's folder takes a moment, so it is called off the screen's thread.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heretic_tui.engine.errors import EngineError

if TYPE_CHECKING:
    from heretic_tui.engine.background import Job
    from heretic_tui.engine.inspection.change import Change
    from heretic_tui.engine.inspection.geometry import Geometry
    from heretic_tui.engine.inspection.layer_rule import Picks
    from heretic_tui.engine.inspection.residual_sets import ResidualSets
    from heretic_tui.engine.inspection.sensitivity import Sensitivity
    from heretic_tui.engine.inspection.similarity import Similarity

Side = Literal["original", "trial"]


@dataclass
class Reading:
    """What is known of one state of a model: of trial 0, which is the model as it was, or of a trial's."""

    trial: int
    sets: "ResidualSets | None" = None
    geometry: "Geometry | None" = None
    """The table: at first without medians and silhouettes, then `whole`."""
    picks: "Picks | None" = None
    similarity: "Similarity | None" = None
    problem: EngineError | None = None
    """Why there are no residual vectors; an inspection says it where the views would be."""
    unfinished: EngineError | None = None
    """Why medians and silhouettes could not be computed."""

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
    layers: int = 0
    """Decoder layers of the model, where the folder tells; also known without any vectors."""
    measured: frozenset[int] = frozenset()
    """The trials whose vectors the folder keeps."""
    change: "Change | None" = None
    """What the compared trial changes; None where nothing is compared."""

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
        """How many rows of the stream there are; 0 where that is not known."""
        known = (one.sets.rows for one in self.readings.values() if one.sets is not None)
        return next(known, self.layers + 1 if self.layers else 0)

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

    def compare(self, reading: Reading, change: "Change | None") -> None:
        """Compare a trial with the original model; another one that was compared before is let go."""
        self.readings = {number: one for number, one in self.readings.items() if not number}
        self.trial, self.change = reading.trial, change
        self.take(reading)


def layer_name(row: int) -> str:
    """A row of the stream by the number of the decoder layer that it comes out of; the embeddings are `in`."""
    return str(row - 1) if row else "in"


def name_of(trial: int) -> str:
    """A state of a model in words."""
    return f"trial {trial}" if trial else "original model"


def read_inspection(path: Path) -> Inspection:
    """Read what a run's folder keeps of the original model. Raises `EngineError` and `ProfileError`."""
    from heretic_tui.engine.runs.run import Run

    run = Run(path)
    model = run.model()
    inspection = Inspection(path, run.model_name, layers=model[0].layers if model else 0)
    inspection.take(read_reading(path, 0))
    picks = inspection.readings[0].picks
    inspection.go(picks.rows[0] if picks is not None and picks.rows else inspection.rows * 2 // 3)
    inspection.measured = frozenset(measured_trials(path))
    return inspection


def read_reading(path: Path, trial: int) -> Reading:
    """Read what a run's folder keeps of the original model (0) or a trial; what is wrong stands in the reading."""
    from heretic_tui.engine.inspection.geometry import kept_geometry, quick_geometry
    from heretic_tui.engine.inspection.layer_rule import pick_layers
    from heretic_tui.engine.inspection.leak import leak_path, load_leak
    from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
    from heretic_tui.engine.inspection.similarity import measure_similarity
    from heretic_tui.engine.runs.run import Run

    run = Run(path)
    vectors = residuals_path(run, trial)
    if trial and not vectors.is_file():
        cause = f"The residual vectors of trial {trial} were not measured yet."
        return Reading(trial, problem=EngineError(cause, "m measures them with the model."))
    try:
        sets = load_residual_sets(vectors)
        geometry = None
        with suppress(EngineError):  # a damaged table is computed anew, and said so if it cannot be replaced
            geometry = kept_geometry(run, trial)
        if geometry is None:  # what was measured whole was found to be numbers
            geometry = quick_geometry(sets).with_leak(load_leak(leak_path(run, trial)))
        return Reading(trial, sets, geometry, pick_layers(geometry), measure_similarity(sets.directions))
    except EngineError as error:
        return Reading(trial, problem=error)


def whole_geometry(path: Path, reading: Reading) -> "Job[Geometry]":
    """Compute medians and silhouettes too, and keep the table in the run's folder."""
    from heretic_tui.engine.inspection.geometry import geometry_of
    from heretic_tui.engine.runs.run import Run

    return (yield from geometry_of(Run(path), reading.trial, reading.sets))


def read_comparison(path: Path, trial: int, before: "ResidualSets | None") -> "tuple[Reading, Change | None]":
    """Read what a run's folder keeps of a trial, and what it has changed."""
    from heretic_tui.engine.inspection.change import measure_change

    reading = read_reading(path, trial)
    if before is None or reading.sets is None:
        return reading, None
    try:
        return reading, measure_change(before, reading.sets)
    except EngineError as error:
        return Reading(trial, problem=error), None


def measured_trials(path: Path) -> Sequence[int]:
    """The trials whose residual vectors a run's folder keeps."""
    from heretic_tui.engine.inspection.residual_sets import residuals_path
    from heretic_tui.engine.runs.run import Run

    found = residuals_path(Run(path), 1).parent.glob("residuals-*.safetensors")
    return sorted(int(number) for one in found if (number := one.stem.rpartition("-")[2]).isdigit())


def read_sensitivity(path: Path) -> "Sensitivity | None":
    """Read what a run's folder keeps of how much its directions depend on the way they are taken."""
    from heretic_tui.engine.inspection.sensitivity import load_sensitivity
    from heretic_tui.engine.runs.run import Run

    return load_sensitivity(Run(path))
