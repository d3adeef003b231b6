"""The lists of the models screen as rows: models known and found, and runs of earlier days."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.formats import size
from heretic_tui.widgets.rows import Column, Row

if TYPE_CHECKING:
    from heretic_tui.engine.checkpoints.catalog import ModelEntry
    from heretic_tui.engine.runs.summary import RunSummary
    from heretic_tui.state import StudyView

MODEL_COLUMNS = (Column("model", least=22), Column("where", 6, drop=1), Column("size", 7, "right"))
RUN_COLUMNS = (
    Column("run", least=24),
    Column("best", 8, "right", drop=1),
    Column("trials", 7, "right"),
    Column("begun", 6, "right"),
)
WHERE = {"demo": "demo", "hub": "cache", "folder": "folder", "gguf": "gguf"}


@dataclass
class Models:
    """All models that the list can show, by the name that loading takes."""

    typed: list[str] = field(default_factory=list)
    """What the person named, newest first."""
    recent: Sequence[str] = ()
    gone: frozenset[str] = frozenset()
    found: dict[str, "ModelEntry"] = field(default_factory=dict)

    def add(self, entries: Sequence["ModelEntry"]) -> list[str]:
        """Take in what was found, and say which of it has changed since it was found before.

        The demonstration model stays what it is when a search finds its folder.
        """
        changed = []
        for entry in entries:
            known = self.found.get(entry.name)
            if known is None or known.kind != "demo":
                self.found[entry.name] = entry
                if known != entry:
                    changed.append(entry.name)
        return changed

    def name(self, text: str) -> None:
        """Put a model first that the person named."""
        self.typed = [text, *(name for name in self.typed if name != text)]

    @property
    def names(self) -> list[str]:
        """What the person named, the models used last, the demonstration model, the rest as found."""
        kinds = sorted(self.found.values(), key=lambda entry: entry.kind != "demo")
        return list(dict.fromkeys([*self.typed, *self.recent, *(entry.name for entry in kinds)]))

    @property
    def shown(self) -> dict[str, str]:
        """Names as the list shows them: hub ids whole, paths by their end, with the folder where two are alike."""
        names = self.names
        short = {name: short_name(name) for name in names}
        often = Counter(short.values())
        return {
            name: f"{Path(name).parent.name}/{short[name]}" if often[short[name]] > 1 and "/" in name else short[name]
            for name in names
        }

    def where(self, name: str) -> str:
        """Where a model is, in a word."""
        entry = self.found.get(name)
        return WHERE[entry.kind] if entry else "gone" if name in self.gone else "" if is_path(name) else "hub"


def is_path(name: str) -> bool:
    """Whether a name says a place on disk rather than on the hub."""
    return name.startswith(("/", ".", "~")) or name.endswith(".gguf")


def short_name(name: str) -> str:
    """A path's last part; a hub id as it is."""
    return Path(name).name or name if is_path(name) else name


def model_rows(models: Models, words: str, loaded: str | None) -> list[Row]:
    """The models that fit every word."""
    rows = []
    wanted = words.casefold().split()
    for name, shown in models.shown.items():
        entry, where = models.found.get(name), models.where(name)
        if not all(word in f"{name} {where}".casefold() for word in wanted):
            continue
        style = "rows--dim" if where == "gone" else "rows--mark" if name == loaded else ""
        mark = "● " if name == loaded else ""
        rows.append(Row(name, (f"{mark}{shown}", where, size(entry.size) if entry else ""), style))
    return rows


def run_rows(
    runs: Sequence[Path], read: Mapping[Path, "RunSummary"], live: "StudyView | None", words: str, now: float
) -> list[Row]:
    """The runs that fit every word, newest first; those that are not read yet by their name alone."""
    wanted = words.casefold().split()
    rows = []
    for path in runs:
        summary = read.get(path)
        if not all(word in f"{path.name} {summary.model if summary else ''}".casefold() for word in wanted):
            continue
        begun = day(summary.begun, now) if summary else ""
        if live is not None and path == live.path:
            done = f"{len(live.records)}/{live.wanted}"
            rows.append(Row(path, (f"● {path.name}", best(summary), done, begun), "rows--mark"))
        elif summary is not None and summary.problem is not None:
            rows.append(Row(path, (path.name, "", "broken", begun), "rows--warning"))
        else:
            state = "" if summary is None else summary.state
            mark = {"running": "○ ", "dead": "✗ "}.get(state, "")
            style = {"running": "rows--mark", "dead": "rows--warning"}.get(state, "")
            rows.append(Row(path, (f"{mark}{path.name}", best(summary), progress(summary), begun), style))
    return rows


def progress(summary: "RunSummary | None") -> str:
    """How many trials of how many."""
    return "…" if summary is None else f"{summary.trials}/{summary.wanted}"


def best(summary: "RunSummary | None") -> str:
    """The first score of the best compromise."""
    if summary is None or summary.best is None:
        return ""
    return next((score.text for score in summary.best.scores.values()), "")


def day(moment: float, now: float) -> str:
    """When something was, as briefly as can be: the time today, else the day, else the year."""
    if not moment:
        return ""
    then, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then.day} {then:%b}" if then.year == today.year else f"{then:%Y}"
