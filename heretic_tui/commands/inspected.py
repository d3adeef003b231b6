"""What a view of `heretic-tui inspect` looks at, and where it prints and writes."""

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heretic_tui.formats import json_line

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.residual_sets import ResidualSets
    from heretic_tui.engine.runs.run import Run


@dataclass(frozen=True)
class Inspected:
    """A run whose residual vectors are there, what of it is looked at, and where files go.

    Trial 0 is the original model.
    """

    run: "Run"
    trial: int
    to: Path | None
    as_json: bool

    @cached_property
    def sets(self) -> "ResidualSets":
        """The residual vectors of the trial; raises `EngineError` where there are none, with what to do."""
        from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path

        sets = load_residual_sets(residuals_path(self.run, self.trial))
        sets.check()
        return sets

    def of(self, trial: int) -> "Inspected":
        """The same of another trial."""
        return replace(self, trial=trial)

    @cached_property
    def folder(self) -> Path:
        """Where files are written: the folder that was asked for, or the run's own for what is found out about it."""
        from heretic_tui.engine.inspection.residual_sets import inspection_path

        return inspection_path(self.run, "tables") if self.to is None else self.to.expanduser()

    def named(self, name: str) -> Path:
        """The path of a file to write; a trial's files carry its number."""
        stem, dot, suffix = name.rpartition(".")
        return self.folder / (f"{stem}-{self.trial:04}{dot}{suffix}" if self.trial else name)

    def write(self, name: str, text: str) -> Path:
        """Write a text file and give its path."""
        from heretic_tui.engine.files import write_text

        path = self.named(name)
        write_text(path, text, private=self.to is None)
        return path

    def say(self, text: str) -> None:
        """Print lines for people, broken between words on a terminal; nothing where JSON is asked for."""
        if self.as_json:
            return
        from heretic_tui.commands.inspect_tables import print_text

        print_text(text)

    def tell(self, event: str, content: dict[str, Any]) -> None:
        """Print one JSON object where JSON is asked for."""
        if self.as_json:
            named = {"event": event, "run": self.run.name, "trial": self.trial}
            sys.stdout.write(json_line({**named, **content}))
