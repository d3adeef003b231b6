"""Reading a run's log back: what happened to it, as the events that were told, from its end on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from heretic_tui.engine.events import (
    BaselineMeasured,
    Event,
    Note,
    PhaseFinished,
    RunOpened,
    StudyFinished,
    TrialFinished,
)
from heretic_tui.engine.parameters import AblationParameters
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.run import LOG

TAIL = 128_000
"""Bytes before the log's end at which reading begins: some hundred events."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An event that was logged; `time` is in seconds since the epoch."""

    time: float
    event: Event


class LogReader:
    """Reads the end of a run's log, and from then on what is added to it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self._place: int | None = None

    def read(self) -> list[Logged]:
        """The events that were added since the last time; none where there is no log."""
        try:
            size = self._path.stat().st_size
            begins = self._place is None or self._place > size
            start = max(0, size - TAIL) if begins else self._place or 0
            with self._path.open("rb") as file:
                file.seek(start)
                content = file.read(size - start)
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self._place = start + whole
        lines = content[:whole].split(b"\n")[1 if begins and start else 0 :]  # the first one may be half a line
        return [found for line in lines if (found := _logged(line)) is not None]


def _logged(line: bytes) -> Logged | None:
    """A line of the log; None for one that is torn, or of a kind that is not read back."""
    time, _, text = line.decode("utf-8", errors="replace").partition(" ")
    try:
        event = _event(json.loads(text))
        return None if event is None else Logged(datetime.fromisoformat(time).timestamp(), event)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _event(told: Mapping[str, Any]) -> Event | None:
    match told["event"]:
        case "note":
            return Note(str(told["text"]), "warning" if told["level"] == "warning" else "info")
        case "phase_finished":
            return PhaseFinished(str(told["phase"]), float(told["seconds"]), str(told["result"]))
        case "run_opened":
            counts = int(told["finished"]), int(told["trials"])
            return RunOpened(str(told["run"]), Path(told["path"]), bool(told["resumed"]), *counts)
        case "baseline_measured":
            return BaselineMeasured(_scores(told))
        case "trial_finished":
            parameters = AblationParameters.from_json(told["direction_index"], told["parameters"])
            record = TrialRecord(int(told["trial"]), parameters, _scores(told), float(told["seconds"]))
            return TrialFinished(record, bool(told["on_front"]))
        case "study_finished":
            front, seconds = tuple(map(int, told["front"])), float(told["seconds"])
            return StudyFinished(str(told["run"]), Path(told["path"]), int(told["trials"]), front, seconds)
        case _:
            return None


def _scores(told: Mapping[str, Any]) -> dict[str, Score]:
    return {str(name): Score.from_json(fields) for name, fields in told["scores"].items()}
