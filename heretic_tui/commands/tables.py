"""Tables of the command line, each with its JSON form."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.summary import summarize
from heretic_tui.engine.storage.front import Objective, best_compromise, pareto_front
from heretic_tui.formats import ago, brief, clock, duration, heading, json_line, plain
from heretic_tui.profile.store import ProfileEntry

WHOLE_NAME = 32
"""Characters up to which a run's name stays on one line of the list, to be copied; longer ones leave no room beside."""


def show_trials(
    name: str, records: Sequence[TrialRecord], objectives: Sequence[Objective], *, front_only: bool, as_json: bool
) -> None:
    """Print the trials of a study, those on the front marked."""
    front = {record.trial for record in pareto_front(records, objectives)}
    shown = [record for record in records if not front_only or record.trial in front]
    if as_json:
        _json_lines({**record.as_json(), "on_front": record.trial in front} for record in shown)
        return
    if not records:
        _say(f"{name} has no finished trials yet.")
        return
    _print(_trials_table(f"{name}: {len(records)} trials, {len(front)} on the front", shown, front))


def front_table(records: Sequence[TrialRecord], objectives: Sequence[Objective], base: Mapping[str, Score]) -> Table:
    """The Pareto front, best first objective first, with the original model above it."""
    front = pareto_front(records, objectives)
    table = _trials_table("Pareto front", front, set())
    if base and front:
        table.add_row("original", *(base[name].text for name in front[0].scores), "", "", style="dim")
        table.caption = f"best compromise: trial {best_compromise(front, objectives).trial}"
        table.caption_justify = "left"
    return table


def _trials_table(title: str, records: Sequence[TrialRecord], marked: set[int]) -> Table:
    table = Table(title=Text(plain(title)), title_justify="left", box=None, header_style="bold")
    table.add_column("trial", justify="right")
    names = list(records[0].scores) if records else []
    for name in names:
        table.add_column(Text(plain(heading(name))), justify="right", overflow="fold")
    table.add_column("direction", justify="right")
    table.add_column("time", justify="right")
    table.add_column("")
    for record in records:
        index, more = record.parameters.direction_index, record.parameters.subspace_dimensions - 1
        cells = [
            f"{'*' if record.trial in marked else ''}{record.trial}",
            *(record.scores[name].text for name in names),
            f"{'per layer' if index is None else f'{index:.1f}'}{f' +{more}' if more else ''}",
            duration(record.seconds),
            "early" if record.ended_early else "",
        ]
        table.add_row(*cells, style="bold" if record.trial in marked else "dim" if record.ended_early else None)
    if any(record.ended_early for record in records):
        table.caption = "early: another trial is certainly better, so this one was ended; ≥ and ≤ are bounds"
        table.caption_justify = "left"
    return table


def show_runs(runs: Sequence[Run], folder: Path, *, as_json: bool) -> None:
    """Print the runs of a folder, newest first; one that cannot be read says why in its row."""
    rows = [_run_row(run) for run in runs]
    if as_json:
        _json_lines(rows)
        return
    if not rows:
        _say(f"There are no runs in {folder} yet. Begin one with: heretic-tui run MODEL")
        return
    table, now = Table(box=None, header_style="bold"), time.time()
    short = max(len(row["run"]) for row in rows) <= WHOLE_NAME
    for name in ("run", "state", "model", "trials", "best", "begun"):
        whole = name == "begun" or (name == "run" and short)
        table.add_column(name, justify="right" if name == "trials" else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        model = Path(row["model"]).name if Path(row["model"]).is_absolute() else row["model"]
        cells = (
            row["run"],
            row["state"].partition(",")[0],
            model,
            f"{row['trials']}/{row['wanted']}",
            row["best"],
            clock(datetime.fromisoformat(row["begun"]).timestamp(), now),
        )
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    _print(table)
    for row in rows:
        for worker in row["workers"]:
            _say(_worked_on(row["run"], worker))
    if any(row["workers"] for row in rows):
        _say("Watch one with: heretic-tui attach RUN")


def _worked_on(run: str, worker: Mapping[str, Any]) -> str:
    """Who works on a run, in a line."""
    now = time.time()
    since, heard = (datetime.fromisoformat(worker[key]).timestamp() for key in ("since", "heard"))
    device = f", {worker['device']}" if worker["device"] else ""
    return (
        f"{run}: process {worker['process']} on {worker['host']}{device}, since {clock(since, now)} "
        f"({brief(now - since)}), heard of {ago(now - heard)}"
    )


def _run_row(run: Run) -> dict[str, Any]:
    summary = summarize(run)
    best = summary.problem or ""
    if summary.best is not None:
        scores = [(objective.name, summary.best.scores[objective.name]) for objective in run.profile.objectives]
        best = f"trial {summary.best.trial}: {', '.join(f'{heading(name)} {score.text}' for name, score in scores)}"
    return {
        "run": summary.name,
        "state": summary.told,
        "model": summary.model,
        "trials": summary.trials,
        "wanted": summary.wanted,
        "best": best,
        "begun": datetime.fromtimestamp(summary.begun).isoformat(" ", "minutes"),
        "workers": [
            {
                "host": worker.owner.host,
                "process": worker.owner.process,
                "device": worker.device,
                "since": datetime.fromtimestamp(worker.owner.since).isoformat(" ", "seconds"),
                "heard": datetime.fromtimestamp(worker.heard).isoformat(" ", "seconds"),
            }
            for worker in summary.alive
        ],
    }


def show_profiles(entries: Sequence[ProfileEntry], *, as_json: bool) -> None:
    """Print the profiles that can be asked for by name."""
    if as_json:
        _json_lines(
            {
                "name": entry.name,
                "path": None if entry.path is None else str(entry.path),
                "builtin": entry.builtin,
                "summary": entry.summary,
            }
            for entry in entries
        )
        return
    table = Table(box=None, header_style="bold")
    for name in ("profile", "kept in", "summary"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(*(Text(plain(str(cell))) for cell in (entry.name, entry.path or "built in", entry.summary)))
    _print(table)


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        sys.stdout.write(json_line(row))


def _print(table: Table) -> None:
    Console(highlight=False).print(table)


def _say(text: str) -> None:
    sys.stdout.write(plain(text) + "\n")
