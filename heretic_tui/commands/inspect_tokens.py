"""`heretic-tui inspect --tokens`: a prompt's tokens along a direction, and what that direction is about."""

import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from heretic_tui.formats import json_line, one_line

if TYPE_CHECKING:
    from heretic_tui.engine.background import Job
    from heretic_tui.engine.inspection.contexts import Contexts
    from heretic_tui.engine.inspection.direction import Direction
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.inspection.residual_sets import ResidualSets
    from heretic_tui.engine.inspection.shelf import Shelf
    from heretic_tui.engine.inspection.words import VocabularyRead
    from heretic_tui.engine.runs.run import Run

T = TypeVar("T")
BAR = 20
"""Characters of the longest bar."""


class Over(StrEnum):
    """A prompt set of the profile."""

    GOOD = "good"
    BAD = "bad"


class Value(StrEnum):
    """What is told of a token."""

    DOT_PRODUCT = "dot product"
    LESS_THE_MEAN = "less the mean"
    COSINE = "cosine"


@dataclass(frozen=True)
class Order:
    """What is wanted: tokens of a prompt, `top` tokens of a prompt set in context, the vocabulary."""

    direction: str = "own"
    layer: str | None = None
    tokens: str | None = None
    top: int | None = None
    over: Over = Over.GOOD
    template: bool = False
    vocabulary: bool = False
    value: Value = Value.DOT_PRODUCT


def show_tokens(subject: "Subject", order: Order, trial: int, to: Path | None, *, as_json: bool) -> None:
    """Load the model, do what was ordered, print it, and write it as CSV and JSON where there is a folder for it."""
    from heretic_tui.engine.loading.session import Session

    if order.tokens is None and order.top is None and not order.vocabulary:
        raise typer.BadParameter("--direction needs something to look at: --tokens PROMPT, --top K or --vocabulary.")
    shelf = _shelf(subject.run)
    rows = shelf.rows
    if order.layer is not None and rows:
        from heretic_tui.engine.inspection.direction import row_of

        row_of(order.layer, rows)  # before a model is loaded for nothing
    if rows:
        shelf.at(order.direction, _row(order, shelf, rows))
    session = Session()
    out = _Out(subject.run, trial, to, as_json)
    if order.tokens is not None:
        _tokens(out, subject, order, shelf, session.load)
    row = _row(order, shelf, rows or subject_rows(out, subject, session.load))
    found = shelf.at(order.direction, row)
    if order.vocabulary:
        from heretic_tui.engine.inspection.vocabulary import read_vocabulary

        out.vocabulary(out.run_job(read_vocabulary(subject, found, top=order.top or 20, load=session.load)))
    if order.top is not None:
        out.contexts(_contexts(out, subject, order, found, row, session.load))


def subject_rows(out: "_Out", subject: "Subject", load: Any) -> int:
    """How many rows the stream of a model without a run has."""
    from heretic_tui.engine.inspection.reading import loaded

    return out.run_job(loaded(subject, load)).facts.layers + 1


def _shelf(run: "Run | None") -> "Shelf":
    from heretic_tui import paths
    from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
    from heretic_tui.engine.inspection.shelf import open_shelf

    sets = None
    if run is not None and residuals_path(run).is_file():
        sets = load_residual_sets(residuals_path(run))
        sets.check()
    return open_shelf(paths.directions_dir(), None if run is None else run.path, sets)


def _row(order: Order, shelf: "Shelf", rows: int) -> int:
    """The layer that is looked at: the one asked for, the direction's own, the rule's first, or one past the middle."""
    from heretic_tui.engine.inspection.direction import row_of

    if order.layer is not None:
        return row_of(order.layer, rows)
    picked = _picked(shelf.sets) if shelf.sets is not None else None
    usual = picked if picked is not None else rows * 2 // 3
    own = shelf.at(order.direction, usual).row
    return own if own is not None and own < rows else usual


def _picked(sets: "ResidualSets") -> int | None:
    from heretic_tui.engine.inspection.geometry import quick_geometry
    from heretic_tui.engine.inspection.layer_rule import pick_layers

    return next(iter(pick_layers(quick_geometry(sets)).rows), None)


def _tokens(out: "_Out", subject: "Subject", order: Order, shelf: "Shelf", load: Any) -> None:
    from heretic_tui.engine.inspection.reading import read_tokens

    prompt = sys.stdin.read() if order.tokens == "-" else str(order.tokens)
    trials = [0, out.trial] if out.trial else [0]
    readings = out.run_job(read_tokens(subject, prompt, trials, load=load))
    row = _row(order, shelf, readings[0].rows)
    found = shelf.at(order.direction, row)
    out.tokens(readings, found, row, order.value.value)


def _contexts(out: "_Out", subject: "Subject", order: Order, found: "Direction", row: int, load: Any) -> "Contexts":
    from heretic_tui.engine.inspection.contexts import find_contexts

    profile = subject.profile
    prompts = profile.bad_prompts if order.over is Over.BAD else profile.good_prompts
    return out.run_job(
        find_contexts(
            subject, found, row, prompts, trial=out.trial, top=order.top or 20, whole=order.template, load=load
        )
    )


@dataclass(frozen=True)
class _Out:
    """Prints for people or as JSON, and writes files."""

    run: "Run | None"
    trial: int
    to: Path | None
    as_json: bool
    told: set[str] = field(default_factory=set)

    def run_job(self, job: "Job[T]") -> T:
        from heretic_tui.commands.console import show_job

        return show_job(self._once(job), as_json=self.as_json)

    def _once(self, job: "Job[T]") -> "Job[T]":
        """The job's events, the model told only once though every job asks for it."""
        from heretic_tui.engine.events import ModelLoaded

        while True:
            try:
                event = next(job)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if not isinstance(event, ModelLoaded) or event.facts.name not in self.told:
                yield event
            if isinstance(event, ModelLoaded):
                self.told.add(event.facts.name)

    def write(self, name: str, text: str) -> list[Path]:
        """Write into the folder that was asked for, else into the run's; nowhere where there is neither."""
        from heretic_tui.engine.files import write_text
        from heretic_tui.engine.inspection.residual_sets import inspection_path

        if self.to is None and self.run is None:
            return []
        if self.to is not None:
            folder = self.to.expanduser()
        else:
            assert self.run is not None
            folder = inspection_path(self.run, "tables")
        write_text(folder / name, text, private=self.to is None)
        return [folder / name]

    def say(self, *lines: str) -> None:
        if not self.as_json:
            sys.stdout.write("".join(f"{line}\n" for line in lines))

    def tokens(self, readings: Any, found: "Direction", row: int, value: str) -> None:
        """The tokens with their values; beside them those of the trial, if one was asked for."""
        from heretic_tui.engine.inspection.direction import layer_name
        from heretic_tui.engine.inspection.token_files import tokens_as_csv, tokens_as_json, tokens_as_values
        from heretic_tui.engine.inspection.token_view import scale_of, signed

        columns = [reading.values(found, row, value) for reading in readings]
        files = []
        for reading, values in zip(readings, columns, strict=True):
            end = f"-{reading.trial:04}" if reading.trial else ""
            files += self.write(f"tokens{end}.csv", tokens_as_csv(reading, found, row, values))
            files += self.write(f"tokens{end}.json", tokens_as_json(reading, found, row, values, value))
            if self.as_json:
                content = tokens_as_values(reading, found, row, values, value)
                sys.stdout.write(json_line({"event": "tokens", **content, "files": [str(path) for path in files]}))
        giant = value != "cosine" and readings[0].giant(row)
        scale = scale_of(*columns, without_first=giant)
        self.say(f"{one_line(found.name)} at layer {layer_name(row)}, {value}; the longest bar is ±{scale.limit:.4g}")
        if scale.about:
            self.say(f"({scale.about})")
        for place, piece in enumerate(readings[0].pieces):
            shares = [scale.share(float(values[place])) for values in columns]
            numbers = "".join(f"{signed(float(values[place])):>10}" for values in columns)
            bar = ("+" if shares[-1] > 0 else "-") * round(abs(shares[-1]) * BAR)
            self.say(f"{place + 1:>4}{numbers}  {_shown(piece):<20} {bar}".rstrip())
        for path in files:
            self.say(f"written: {path}")

    def contexts(self, found: "Contexts") -> None:
        """Tokens in context."""
        from heretic_tui.engine.inspection.direction import layer_name
        from heretic_tui.engine.inspection.token_view import signed

        end = f"-{self.trial:04}" if self.trial else ""
        paths = self.write(f"contexts{end}.json", json_line(found.as_json()))
        self.say("", f"{one_line(found.direction)} at layer {layer_name(found.row)}, tokens of {found.prompts} prompts")
        for title, side in (("highest", found.positive), ("lowest", found.negative)):
            self.say(title)
            for one in side:
                before = one_line(one.before)[-40:]
                times = f" ×{one.times}" if one.times > 1 else ""
                text, behind = one_line(one.text), one_line(one.behind)
                self.say(f"{signed(one.value):>10}  {before:>40}[{text}]{behind[:30]}{times}".rstrip())
        for path in paths:
            self.say(f"written: {path}")

    def vocabulary(self, read: "VocabularyRead") -> None:
        """What is promoted and suppressed."""
        paths = self.write("vocabulary.json", json_line(read.as_json()))
        norm = f"after the gain of {read.through}" if read.through else "there is no final norm"
        self.say("", f"{one_line(read.direction)} through the unembedding, {norm}; spread {read.spread:.3g}")
        self.say(f"{'promotes':<34}suppresses")
        for up, down in zip(read.promoted, read.suppressed, strict=True):
            left = f"{up.value:+8.3f}  {one_line(up.text)}"
            self.say(f"{left:<34}{down.value:+8.3f}  {one_line(down.text)}".rstrip())
        for path in paths:
            self.say(f"written: {path}")


def _shown(piece: Any) -> str:
    text = one_line(piece.text.replace(" ", "·"))
    return f"{text}…" if piece.parts > 1 else text
