"""What a study starts from: its prompts, batch size, response prefix, directions, and the original model's scores.

What the run's folder has is taken from it; of several workers one measures, and the others wait for that.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from heretic_tui.engine.ablation.directions import Directions, load_directions, save_directions
from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import BaselineMeasured, GeometryMeasured, Note, PhaseFinished, Progress
from heretic_tui.engine.inspection.direction_finding import find_directions, residual_sets
from heretic_tui.engine.inspection.geometry import geometry_of
from heretic_tui.engine.inspection.pictures import plot_run
from heretic_tui.engine.inspection.residual_sets import residuals_path, save_residual_sets
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Score
from heretic_tui.engine.runs.beginning import read_prompts, settle, templated
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.engine.scoring.scoreboard import Scoreboard, load_scoreboard
from heretic_tui.engine.study.reuse import fingerprint, take_over
from heretic_tui.engine.timing import in_words
from heretic_tui.profile.schema import Profile

MOMENT = 0.2
"""Seconds between two looks at what other workers do, while there is nothing to do but wait."""


@dataclass(frozen=True)
class Material:
    """All prompts of a study, read and checked against the model, and the scorers with theirs."""

    good: list[Prompt]
    bad: list[Prompt]
    scoreboard: Scoreboard

    @property
    def sets(self) -> list[Sequence[Prompt]]:
        """All prompt sets in a fixed order."""
        return [self.good, self.bad, *(known.prompts for known in self.scoreboard.sets.values())]


def read_material(model: LanguageModel, profile: Profile) -> Job[Material]:
    """Read every prompt set of a profile. Raises `EngineError` for what cannot be read or does not fit the model."""
    good, bad = yield from read_prompts(model, profile)
    scoreboard = yield from load_scoreboard(model, profile)
    return Material(good, bad, scoreboard)


def measure_start(model: LanguageModel, run: Run, material: Material) -> Job[tuple[Directions, dict[str, Score]]]:
    """Measure what a study starts from, or wait while another worker does, and take it from the run's folder."""
    while True:
        with run.starting() as first:
            if first:
                earlier = None
                if not run.started:
                    earlier = take_over(run, model, fingerprint(model, run.profile, material.sets))
                if earlier is not None:
                    yield Note(
                        f"Batch size, directions and baseline are taken from {earlier.name}, which measured the same."
                    )
                directions = yield from prepare(model, run, material, taken_over=earlier is not None)
                base = yield from measure_baseline(model, run, material.scoreboard)
                return directions, base
        yield Progress("waiting for the worker that measures the original model", 0, None)
        time.sleep(MOMENT)


def prepare(model: LanguageModel, run: Run, material: Material, *, taken_over: bool = False) -> Job[Directions]:
    """Settle batch size and response prefix, and measure the directions; what the run's folder has is taken from it."""
    profile = run.profile
    known = run.model()
    settled = known[1] if known else None
    if settled is None:
        settled = yield from settle(model, profile, material.good, material.bad)
        run.save_model(model.facts, settled)
    model.batch_size, model.response_prefix = settled.batch_size, settled.response_prefix
    path = run.path / DIRECTIONS
    if path.is_file():
        directions = load_directions(path)
        if not taken_over:
            return directions
    else:
        directions = yield from _directions(model, run, material.good, material.bad)
        save_directions(path, directions)
    if run.profile.print_residual_geometry:
        yield from geometry_of(run)
        yield GeometryMeasured(run.name, run.path)
    if run.profile.plot_residuals:
        yield from plot(run)
    return directions


def keep_batch_size(run: Run, model: LanguageModel) -> None:
    """Keep a batch size that memory has made smaller: a resumed study then rounds as one that was never interrupted.

    What is not the same then: the one trial in which memory ran out, if the study is interrupted in it, rounds as its
    batches come to be cut. In float32 that is the seventh digit of a divergence; in 16 bits it may change a word.
    """
    known = run.model()
    settled = known[1] if known else None
    if known and settled and model.batch_size < settled.batch_size:
        run.save_model(known[0], replace(settled, batch_size=model.batch_size))


def _directions(model: LanguageModel, run: Run, good: Sequence[Prompt], bad: Sequence[Prompt]) -> Job[Directions]:
    """Measure the residual vectors of both sets and the directions between their centres."""
    profile = run.profile
    began = time.perf_counter()
    texts, sets = (templated(model, good), templated(model, bad)), None
    if profile.save_residuals or profile.plot_residuals or profile.print_residual_geometry:
        sets = yield from residual_sets(model, texts, profile)
        save_residual_sets(residuals_path(run), sets)
    directions = yield from find_directions(model, texts, profile, sets)
    result = f"{len(good)} + {len(bad)} prompts, {model.facts.layers} layers"
    yield PhaseFinished("directions", time.perf_counter() - began, result)
    return directions


def plot(run: Run) -> Job[None]:
    """Draw the plots that the profile asks for; a run goes on without those that fail."""
    began = time.perf_counter()
    try:
        files = yield from plot_run(run)
    except EngineError as error:
        yield Note(f"There are no plots of residual vectors: {error}", "warning")
    else:
        yield PhaseFinished("plots", time.perf_counter() - began, str(files[-1].parent))


def measure_baseline(model: LanguageModel, run: Run, scoreboard: Scoreboard) -> Job[dict[str, Score]]:
    """Score the original model, or take its scores from the run's folder."""
    scores = run.base_scores()
    if scores is not None:
        scoreboard.restore(run.baseline_tensors())
    else:
        began = time.perf_counter()
        measurement = yield from scoreboard.measure(model, "original model")
        scores = dict(measurement.scores)
        run.save_responses(0, measurement.responses)
        run.save_baseline(scores, scoreboard.state())
        yield PhaseFinished("original model", time.perf_counter() - began, in_words(measurement.timing))
    yield BaselineMeasured(scores)
    return scores
