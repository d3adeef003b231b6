"""What the inspector reads, compares and measures; `screen.py` shows it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from heretic_tui.control import MEASURE
from heretic_tui.engine import events
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event
from heretic_tui.formats import one_line, plain
from heretic_tui.inspections import (
    Inspection,
    Reading,
    name_of,
    read_comparison,
    read_inspection,
    whole_geometry,
)
from heretic_tui.screens.dialogs import Confirm, Pick
from heretic_tui.screens.frame import FrameScreen
from heretic_tui.screens.inspector.part import Beside, may_ask
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.worker import JobEnded

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.change import Change
    from heretic_tui.engine.inspection.geometry import Geometry
    from heretic_tui.state import StudyView

STOPPABLE = {MEASURE, "sensitivity"}
"""Jobs of the engine that the inspector asks for, and stops with a key."""


class InspectorDesk(FrameScreen):
    """Keeps the inspection of the run that is shown up to date; subclasses show it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "side", "Before/after", id="inspector.side", tooltip="Original model or the compared trial"),
        Binding("T", "trial", "Trial", id="inspector.trial", tooltip="Choose the trial to compare"),
        Binding("m", "measure", "Measure", id="inspector.measure", tooltip="Measure the residual vectors"),
        Binding("x", "stop", "Stop", show=False, id="inspector.stop", tooltip="Stop what is being computed"),
        Binding(
            "M", "measure_model", show=False, id="inspector.measure-model", tooltip="Measure the loaded model anew"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.problem: EngineError | None = None
        """Why the run cannot be read."""
        self._broken: Path | None = None
        """The run that could not be read."""
        self._reading: Path | None = None
        """The run that is being read."""
        self._completing: Beside[Geometry] | None = None
        self._declined: set[tuple[Path, int]] = set()
        """What was stopped by the person, and is not begun again by itself."""

    def show_all(self) -> None:
        """Show what has changed."""
        raise NotImplementedError

    def stop_front(self) -> None:
        """Stop what the view in front computes."""

    def measure_front(self) -> bool:
        """Measure what the view in front needs beyond the vectors; says whether it did."""
        return False

    @property
    def inspection(self) -> Inspection | None:
        """What was read of the run that is shown."""
        found = self.state.inspection
        return found if found is not None and found.path == self.state.shown else None

    # Following the engine, and reading

    def engine_changed(self, events_: Sequence[Event]) -> None:
        """Read the run that is shown, and again where a job has measured something of it."""
        for event in events_:
            if isinstance(event, events.Measured):
                self._measured(event)
        inspection = self.inspection
        wanting = inspection is None or inspection.readings[0].missing
        unread = inspection is None and self._broken != self.state.shown
        if unread or (wanting and (not events_ or any(_may_have_measured(event) for event in events_))):
            self._read()

    def _measured(self, event: events.Measured) -> None:
        inspection = self.inspection
        if event.path != self.state.shown:
            self.run_worker(partial(self._adopt, event.path), thread=True, group="adopt", exit_on_error=False)
        elif inspection is not None:
            self._declined.discard((event.path, event.trial))
            inspection.measured |= {event.trial}
            if event.trial:
                self._compare(event.trial)
            else:
                self._read()

    def _adopt(self, path: Path) -> None:
        """Show the run that was made to measure a model."""
        from heretic_tui.profile.problems import ProfileError
        from heretic_tui.state import read_study

        try:
            study = read_study(path)
        except (EngineError, ProfileError) as error:
            self.call_later(self.notify, plain(str(error)), severity="error", markup=False)
            return
        self.call_later(self._adopted, study)

    def _adopted(self, study: "StudyView") -> None:
        self.control.show(study)
        self.notify(one_line(f"The run {study.name} is shown now."), markup=False)
        self._read()

    def _read(self) -> None:
        path = self.state.shown
        if path is not None and path != self._reading:
            self._reading = path
            self.run_worker(partial(self._read_now, path), thread=True, group="read", exit_on_error=False)

    def _read_now(self, path: Path) -> None:
        from heretic_tui.profile.problems import ProfileError

        try:
            found = read_inspection(path)
        except EngineError as error:
            self.call_later(self._unread, path, error)
        except ProfileError as error:
            self.call_later(self._unread, path, EngineError(str(error)))
        else:
            self.call_later(self._opened, found)

    def _opened(self, inspection: Inspection) -> None:
        self._reading = self._broken = self.problem = None
        if inspection.path != self.state.shown:
            self._read()
            return
        before = self.inspection
        found_more = before is not None and before.readings[0].missing and not inspection.readings[0].missing
        if before is not None and before.rows == inspection.rows and not found_more:
            inspection.row = before.row
        self.state.inspection = inspection
        # The trial to compare: the one that was compared, else the one that is selected, else one that was measured.
        trial = (before.trial if before is not None else self.control.trial) or max(inspection.measured, default=0)
        if trial:
            self._compare(trial, turn=before is not None and before.side == "trial")
        self._complete_tables()
        self.show_all()

    def _unread(self, path: Path, error: EngineError) -> None:
        self._reading = None
        if path == self.state.shown:
            self.problem, self._broken = error, path
            self.show_all()

    # Before and after

    def _compare(self, trial: int, *, turn: bool = True) -> None:
        """Read a trial, to compare it with the original model; with `turn` it is the side that is shown."""
        inspection = self.inspection
        if inspection is not None:
            work = partial(self._compare_now, inspection, trial, turn)
            self.run_worker(work, thread=True, group="compare", exclusive=True, exit_on_error=False)

    def _compare_now(self, inspection: Inspection, trial: int, turn: bool) -> None:
        reading, change = read_comparison(inspection.path, trial, inspection.original)
        self.call_later(self._compared, inspection, reading, change, turn)

    def _compared(self, inspection: Inspection, reading: Reading, change: "Change | None", turn: bool) -> None:
        if inspection is self.inspection:
            inspection.compare(reading, change)
            inspection.side = "trial" if turn else inspection.side
            self._complete_tables()
            self.show_all()

    def action_side(self) -> None:
        """Change between the original model and the compared trial."""
        inspection = self.inspection
        if inspection is None:
            self.notify("There is no run to compare a trial of. Press 1 to open one.", markup=False)
        elif inspection.trial is not None:
            inspection.side = "original" if inspection.side == "trial" else "trial"
            self.show_all()
        elif self.control.trial:
            self._compare(self.control.trial)
        else:
            self.action_trial()

    def action_trial(self) -> None:
        """Choose the trial to compare, from the front or all others."""
        from heretic_tui import candidates

        inspection, study = self.inspection, self.state.study
        if inspection is None or study is None or not study.records:
            self.notify("This run has no trials yet: 3 shows the study, which makes some.", markup=False)
            return
        figures = [Column(title, 9, "right") for title in candidates.titles(study)]
        rows = [
            Row(
                one.key.trial,
                (*one.cells, "measured" if one.key.trial in inspection.measured else ""),
                "rows--mark" if one.best else "",
            )
            for one in candidates.trials(study)
        ]
        question = "Compare which trial with the original model?"
        columns = [Column("trial", least=12), *figures, Column("", 9)]
        self.app.push_screen(Pick(question, columns, rows, key=inspection.trial), self._chosen)

    def _chosen(self, trial: int | None) -> None:
        if trial is not None:
            self._compare(trial)

    # Medians and silhouettes, which take a while

    def _complete_tables(self) -> None:
        """Compute what the tables lack, one after the other."""
        inspection = self.inspection
        if inspection is None or (self._completing is not None and not self._completing.over):
            return
        for reading in inspection.readings.values():
            known = reading.geometry
            declined = (inspection.path, reading.trial) in self._declined
            if known is not None and not known.whole and reading.unfinished is None and not declined:
                self._completing = Beside(
                    self,
                    f"geometry, {name_of(reading.trial)}",
                    partial(whole_geometry, inspection.path, reading),
                    partial(self._completed, reading),
                    partial(self._incomplete, reading),
                )
                return

    def _completed(self, reading: Reading, geometry: "Geometry") -> None:
        reading.geometry = geometry
        self._complete_tables()
        self.show_all()

    def _incomplete(self, reading: Reading, error: EngineError) -> None:
        reading.unfinished = error
        self.notify(plain(str(error)), severity="warning", markup=False, timeout=8)
        self._complete_tables()

    # Measuring

    def action_measure(self) -> None:
        """Measure what is shown: the original model or a trial, or without a run the model that is loaded."""
        inspection = self.inspection
        if self.state.shown is None:
            self.action_measure_model()
            return
        if inspection is None or self.measure_front():
            return
        number = inspection.number
        if inspection.shown.missing or self.control.studying:
            self._measure(inspection.path, number)
            return
        self.app.push_screen(
            Confirm(
                f"Measure {the(number)} again?",
                "Its residual vectors are in the run's folder already. Measuring replaces them.",
                "Measure",
            ),
            lambda yes: self._measure(inspection.path, number) if yes else None,
        )

    def action_measure_model(self) -> None:
        """Measure the loaded model in a new run, without trials."""
        if self.control.model_name is None:
            self.notify("No model is loaded. Press 1 to choose one.", markup=False)
        else:
            self._measure(None, 0)

    def _measure(self, path: Path | None, trial: int) -> None:
        if self.control.worker.current == MEASURE:
            self.notify("Something is being measured already. x stops it.", markup=False)
        elif may_ask(self):
            self.control.measure(path, trial)
            self.show_all()

    def action_stop(self) -> None:
        """Stop measuring, or what is computed beside the engine."""
        if self.control.worker.current in STOPPABLE:
            self.control.stop()
            return
        inspection = self.inspection
        if self._completing is not None and not self._completing.over and inspection is not None:
            self._declined |= {(inspection.path, trial) for trial in inspection.readings}
            self._completing.stop()
        self.stop_front()


def the(trial: int) -> str:
    """A state of a model in a sentence."""
    return name_of(trial) if trial else f"the {name_of(trial)}"


def _may_have_measured(event: Event) -> bool:
    return isinstance(event, JobEnded | events.PhaseFinished | events.RunOpened)
