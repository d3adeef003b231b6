"""What a study starts from: its prompts, batch size, response prefix, directions, and the original model's scores.

What the run's folder has is taken from it; of several workers one measures, and the others wait for that.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heretic_tui.engine.background import Job
from heretic_tui.engine.batch_size import choose_batch_size
from heretic_tui.engine.direction_finding import find_directions, residual_sets
from heretic_tui.engine.directions import Directions, load_directions, save_directions
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import BaselineMeasured, GeometryMeasured, Note, PhaseFinished, Progress
from heretic_tui.engine.inspection.geometry import geometry_of
from heretic_tui.engine.inspection.pictures import plot_run
from heretic_tui.engine.inspection.residual_sets import residuals_path, save_residual_sets
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.loading import Loader
from heretic_tui.engine.pinning import pin
from heretic_tui.engine.prompt_sets import describe
from heretic_tui.engine.prompts import Prompt, check_lengths, load_prompts
from heretic_tui.engine.records import Score
from heretic_tui.engine.response_prefix import find_response_prefix
from heretic_tui.engine.reuse import fingerprint, take_over
from heretic_tui.engine.run import DIRECTIONS, Run, Settled
from heretic_tui.engine.scoring.scoreboard import Scoreboard, load_scoreboard
from heretic_tui.engine.style import style_of
from heretic_tui.engine.timing import in_words
from heretic_tui.profile.schema import Profile, PromptSet

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


def begin(model_name: str, profile: Profile, load: Loader) -> Job[tuple[LanguageModel, Profile]]:
    """Load the model of a new run, and freeze in the profile what decides what the run measures."""
    seed = secrets.randbelow(2**31) if profile.seed is None else profile.seed
    local = Path(model_name).expanduser()
    model_name = str(local.resolve()) if local.exists() else model_name
    profile = yield from pin(profile.model_copy(update={"model": model_name, "seed": seed}))
    model = yield from load(model_name, profile)
    if model.facts.revision is not None:
        profile = profile.model_copy(update={"model_commit": model.facts.revision})
    return model, profile


def check_coverage(model: LanguageModel, profile: Profile) -> None:
    """Raise `EngineError` where the model cannot be ablated as the profile asks, or not whole without its leave."""
    facts, style = model.facts, style_of(profile)
    style.check(facts)
    if style.embeddings and not model.embeddings:
        raise EngineError(
            f"{facts.name} has no table of embeddings that is as wide as its residual stream.",
            "Set ablate_embeddings to false.",
        )
    if any(writer.unreadable for writer in model.writers):
        raise EngineError(
            f"The weights of {facts.name} are packed in a few bits, and of packed weights only those of bitsandbytes "
            "with 4 bits can be read and ablated.",
            'Use a checkpoint that is not quantized; with quantization = "bnb_4bit" it is packed while loading.',
        )
    if facts.leaking and not profile.allow_leak:
        layers = ", ".join(map(str, facts.leaking[:8])) + (", ..." if len(facts.leaking) > 8 else "")
        raise EngineError(
            f"Not all that writes into the residual stream of {facts.name} ({facts.architecture}) is known. Found: "
            f"{facts.coverage}. With all of these ablated, {facts.leak:.1%} of an update still lies along the "
            f"direction, in layers {layers}.",
            "An ablation would be incomplete. To study the model all the same, add --set allow_leak=true.",
        )


def read_material(model: LanguageModel, profile: Profile) -> Job[Material]:
    """Read every prompt set of a profile. Raises `EngineError` for what cannot be read or does not fit the model."""
    good, bad = yield from read_prompts(model, profile)
    scoreboard = yield from load_scoreboard(model, profile)
    return Material(good, bad, scoreboard)


def read_prompts(model: LanguageModel, profile: Profile) -> Job[tuple[list[Prompt], list[Prompt]]]:
    """Read the two sets that directions are measured from. Raises `EngineError` like `read_material`."""
    good = yield from _prompts(model, profile.good_prompts, profile)
    bad = yield from _prompts(model, profile.bad_prompts, profile)
    return good, bad


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


def _prompts(model: LanguageModel, prompt_set: PromptSet, profile: Profile) -> Job[list[Prompt]]:
    prompts = yield from load_prompts(prompt_set, profile.system_prompt)
    check_lengths(model, prompts, describe(prompt_set), 1)
    return prompts


def settle(model: LanguageModel, profile: Profile, good: Sequence[Prompt], bad: Sequence[Prompt]) -> Job[Settled]:
    """Find the batch size and the response prefix, unless the profile states them."""
    texts = templated(model, [*good, *bad])
    began = time.perf_counter()
    if profile.batch_size:
        model.batch_size = profile.batch_size
    else:
        size, speed = yield from choose_batch_size(model, texts, profile.max_response_length, profile.max_batch_size)
        model.batch_size = size
        yield PhaseFinished("batch size", time.perf_counter() - began, f"{size} prompts, about {speed:.0f} tokens/s")
    began = time.perf_counter()
    if profile.response_prefix is not None:
        model.response_prefix = profile.response_prefix
    else:
        prefix = yield from find_response_prefix(model, good, bad, profile.chain_of_thought_skips)
        yield PhaseFinished("response prefix", time.perf_counter() - began, repr(prefix) if prefix else "none")
    return Settled(model.batch_size, model.response_prefix)


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


def templated(model: LanguageModel, prompts: Sequence[Prompt]) -> list[str]:
    """The texts that the model sees for prompts."""
    return [model.template(prompt.text, prompt.system_prompt) for prompt in prompts]


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
