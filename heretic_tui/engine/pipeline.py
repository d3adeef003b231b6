"""The jobs: generators of events that the command line and the app iterate alike.

Closing a job stops it: every `finally` puts weights back and leaves the run's folder ready to be resumed.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from heretic_tui.engine.ablation import ablated
from heretic_tui.engine.answering import chat
from heretic_tui.engine.aside import clear_leftovers
from heretic_tui.engine.background import Job
from heretic_tui.engine.batch_size import choose_batch_size
from heretic_tui.engine.crew import check_kinship, search_of
from heretic_tui.engine.direction_finding import find_directions, residual_sets
from heretic_tui.engine.directions import Directions, load_directions, save_directions
from heretic_tui.engine.dtypes import EXPORT_DTYPES, export_size
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import (
    BaselineMeasured,
    Evaluated,
    Event,
    Exported,
    GeometryMeasured,
    Note,
    PhaseFinished,
    Progress,
    RunOpened,
    StudyFinished,
    TrialFinished,
    TrialStarted,
)
from heretic_tui.engine.export import Written, check_target, export_adapter, export_merged, shard_bytes
from heretic_tui.engine.export_scores import measure_export
from heretic_tui.engine.inspection.geometry import geometry_of
from heretic_tui.engine.inspection.pictures import plot_run
from heretic_tui.engine.inspection.residual_sets import residuals_path, save_residual_sets
from heretic_tui.engine.kinship import sketch
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.live import Announcer
from heretic_tui.engine.loading import Loader, load
from heretic_tui.engine.origins import UnknownOrigin
from heretic_tui.engine.outline import Outliner
from heretic_tui.engine.ownership import Owner, Pulse, this_process
from heretic_tui.engine.pinning import pin
from heretic_tui.engine.prompt_sets import describe
from heretic_tui.engine.prompts import Prompt, check_lengths, load_prompts
from heretic_tui.engine.records import Score
from heretic_tui.engine.requests import Listener
from heretic_tui.engine.response_prefix import find_response_prefix
from heretic_tui.engine.reuse import fingerprint, take_over
from heretic_tui.engine.run import DIRECTIONS, Run, Settled, changed_facts, create_run
from heretic_tui.engine.scoring.scoreboard import Scoreboard, load_scoreboard
from heretic_tui.engine.search import Search
from heretic_tui.engine.stopping import why
from heretic_tui.engine.style import style_of
from heretic_tui.engine.timing import in_words, totals
from heretic_tui.formats import json_line
from heretic_tui.profile.schema import Profile, PromptSet

__all__ = ["Loader", "chat", "evaluate", "export", "join_study", "resume_study", "start_study"]

T = TypeVar("T")
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


def start_study(
    model_name: str, profile: Profile, profile_name: str, runs_dir: Path, load: Loader = load
) -> Job[StudyFinished]:
    """Begin a new run: load the model, measure it, search.

    The run's folder is made once the model is loaded and all prompts are read, so that a wrong path leaves none.
    """
    began = time.perf_counter()
    model, profile = yield from begin(model_name, profile, load)
    check_coverage(model, profile)
    material = yield from read_material(model, profile)
    run = create_run(runs_dir, str(profile.model), profile_name, profile)
    job = _study(model, run, material, began, run.locked(), resumed=False)
    return (yield from logged(run, job, model.facts.device))


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


def resume_study(run: Run, trials: int | None = None, load: Loader = load) -> Job[StudyFinished]:
    """Go on with a run, with its own settings; `trials` changes how many it is to have in all."""
    return (yield from logged(run, _resumed(run, run.locked(), load, trials=trials)))


def join_study(run: Run, storage: str | None = None, load: Loader = load) -> Job[StudyFinished]:
    """Work on a run beside others, or alone; leaves when all its trials are done.

    With a `storage` the study is reached by that URL, as through a proxy, and not by the one that the run was begun
    with. Raises `EngineError` where this worker's model, prompts, settings or dtype are not the study's.
    """
    return (yield from logged(run, _resumed(run, run.joined(), load, joining=True, storage=storage)))


def _resumed(
    run: Run,
    held: AbstractContextManager[Owner],
    load: Loader,
    *,
    trials: int | None = None,
    joining: bool = False,
    storage: str | None = None,
) -> Job[StudyFinished]:
    """Take a run, and only then load its model, so that others see at once that it is worked on."""
    began = time.perf_counter()
    with held as owner:
        model = yield from load(run.model_name, run.profile)
        check_coverage(model, run.profile)
        material = yield from read_material(model, run.profile)
        had = nullcontext(owner)
        return (
            yield from _study(
                model, run, material, began, had, resumed=True, trials=trials, joining=joining, storage=storage
            )
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


def _study(
    model: LanguageModel,
    run: Run,
    material: Material,
    began: float,
    held: AbstractContextManager[Owner],
    *,
    resumed: bool,
    trials: int | None = None,
    joining: bool = False,
    storage: str | None = None,
) -> Job[StudyFinished]:
    loaded = time.perf_counter()
    with (
        held as owner,
        search_of(run, owner, model.facts.device, alone=not joining, storage=storage) as (search, mended),
    ):
        own = sketch(model, run.profile, material.sets)
        if joining:
            check_kinship(run, search, own)
        else:
            search.set_sketch(own)
        if trials is not None:
            search.want(trials)
        yield RunOpened(run.name, run.path, resumed, len(search.records), search.wanted)
        for word in mended:
            yield Note(word, "warning")
        known = run.model()
        if known is not None and (changed := changed_facts(known[0], model.facts)):
            yield Note(f"The model is not the one that the run began with: {', '.join(changed)}.", "warning")
        if run.profile.ablate_embeddings and (both := [one.weight_name for one in model.embeddings if one.tied]):
            yield Note(f"The embeddings are the output head too: the head is ablated with them ({', '.join(both)}).")
        directions, base = yield from _start(model, run, material)
        keep_batch_size(run, model)
        with suppress(EngineError):  # without its responses, those of the trials alone tell which prompts come first
            search.tally.add(material.scoreboard.counted(run.responses(0)))
        ready = time.perf_counter()
        yield from optimize(model, run, material.scoreboard, directions, base, search)
        front = tuple(record.trial for record in search.front())
        timing = {"loading": round(loaded - began, 3), "start": round(ready - loaded, 3), **totals(search.records)}
        finished = StudyFinished(run.name, run.path, len(search.records), front, time.perf_counter() - began, timing)
        yield finished
        return finished


def _start(model: LanguageModel, run: Run, material: Material) -> Job[tuple[Directions, dict[str, Score]]]:
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


def logged(run: Run, job: Job[T], device: str = "") -> Job[T]:
    """Pass a job's events on as signs of life, keep those that last in the run's log, and hear requests to pause."""
    pulse, announcer, listener = Pulse(run.path), Announcer(run.path, device), Listener(run.path)
    name = this_process().name

    def kept(event: Event) -> Event:
        # A trial stands once in the log, as the worker tells it that ran it.
        others = isinstance(event, TrialFinished) and event.record.worker not in {"", name}
        if not event.replaceable and not others:
            run.log(json_line(event.as_json()).rstrip())
        return event

    try:
        while True:
            pulse.beat()
            for request in listener.requests():
                yield kept(Note(request.told))
                if request.kind == "pause":
                    raise EngineError("The run was paused from another process.", f"Go on with: --resume {run.name}")
            try:
                event = kept(next(job))
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except Exception as error:
                told = why(run, error)
                if told is error:
                    raise
                raise told from error
            announcer.tell(event)
            yield event
    finally:
        job.close()
        announcer.end()


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


def optimize(
    model: LanguageModel,
    run: Run,
    scoreboard: Scoreboard,
    directions: Directions,
    base: Mapping[str, Score],
    search: Search,
) -> Job[None]:
    """Run trials until the wanted number is reached; each stands in the journal before its event is seen."""
    profile = run.profile
    if not search.done:
        search.set_finished(False)
    while not search.done:
        if search.asked_to_pause():
            raise EngineError("The run was paused from elsewhere.", f"Go on with: --resume {run.name}")
        suggestion = search.ask(list(model.facts.writers), model.facts.layers)
        yield from _news(search)
        if suggestion is None:
            if not search.done:
                yield Progress("waiting for other workers", len(search.records), search.wanted, "trials")
                time.sleep(MOMENT)
            continue
        told = False
        try:
            yield TrialStarted(suggestion.trial, search.wanted)
            started = time.perf_counter()
            beaten = search.beaten if profile.end_dominated_trials else None
            with ablated(model, directions, suggestion.parameters, style_of(profile)):
                edited = time.perf_counter() - started
                title, first = f"trial {suggestion.trial}", scoreboard.first(search.tally)
                measurement = yield from scoreboard.measure(model, title, beaten, first if beaten else None)
            if search.holds(suggestion):
                run.save_responses(suggestion.trial, measurement.responses)
            record = search.tell(
                suggestion,
                measurement.scores,
                base,
                time.perf_counter() - started,
                ended_early=measurement.ended_early,
                counted=measurement.counted,
                timing={"edit": edited, **measurement.timing},
            )
            told = True
        finally:
            if not told:
                with suppress(EngineError):  # on a full disk: what is left open is closed when the study is resumed
                    search.drop(suggestion)
        if record is None:
            yield Note(f"This worker was silent too long: trial {suggestion.trial} was given to another.", "warning")
            continue
        keep_batch_size(run, model)
        yield TrialFinished(record, search.on_front(record))
    search.set_finished(True)


def _news(search: Search) -> Job[None]:
    """What other workers have finished."""
    for record in search.news():
        yield TrialFinished(record, search.on_front(record))


def export(
    run: Run,
    trial: int,
    to: Path,
    *,
    adapter: bool = False,
    overwrite: bool = False,
    dtype: str | None = None,
    max_shard_size: str | int | None = None,
    verify: bool = True,
    verify_scores: bool = False,
    load: Loader = load,
    outline: Outliner | None = None,
) -> Job[Exported]:
    """Write a trial's model, or its adapter, to a folder. Raises `EngineError` before loading where it cannot be.

    `dtype` casts what is written, not the live model. A merged model is verified before it takes its place, unless
    `verify` is off; with `verify_scores` it is then loaded afresh and measured like a trial. With an `outline` a merged
    model is written without loading its weights, where its files tell enough for that.
    """
    if dtype is not None and dtype not in EXPORT_DTYPES:
        raise EngineError(f"A model cannot be exported as {dtype}.", f"Choose one of {', '.join(EXPORT_DTYPES)}.")
    if max_shard_size is not None:
        shard_bytes(max_shard_size)
    if (beside := to.expanduser().resolve().parent).is_dir():
        for word in clear_leftovers(beside):
            yield Note(word, "warning")
    if adapter and verify_scores:
        raise EngineError("An adapter cannot be loaded and measured by itself.", "Export the merged model to do that.")
    record = run.record(trial)
    known = run.model()
    path = run.path / DIRECTIONS
    if known is None or not path.is_file():
        raise EngineError(f"{run.name} has no directions yet.", "Resume it first.")
    check_target(to, 0 if adapter else export_size(known[0], dtype), overwrite=overwrite)
    directions = load_directions(path)

    def written_by(load: Loader) -> Job[Written]:
        model = yield from load(run.model_name, run.profile)
        if changed := changed_facts(known[0], model.facts):
            yield Note(f"The model is not the one that the run began with: {', '.join(changed)}.", "warning")
        check_target(to, 0 if adapter else export_size(model.facts, dtype), overwrite=overwrite)
        if adapter:
            return (yield from export_adapter(model, directions, record, run.profile, to, dtype=dtype))
        return (
            yield from export_merged(
                model,
                directions,
                record,
                run.profile,
                to,
                dtype=dtype,
                max_shard_size=max_shard_size,
                verify=verify,
            )
        )

    try:
        written = yield from written_by(load if adapter or outline is None else partial(outline, known[0]))
    except UnknownOrigin as error:
        yield Note(f"The model is loaded for the export, because {error}.")
        written = yield from written_by(load)
    exported = Exported(
        trial, to.absolute(), "adapter" if adapter else "merged", written.size, written.rank, written.error
    )
    yield exported
    if verify_scores:
        yield from measure_export(run, record, to.absolute())
    return exported


def evaluate(model_name: str, base_name: str, profile: Profile) -> Job[Evaluated]:
    """Score any model against its base: the base is measured first, as a study measures the original model."""
    base = yield from load(base_name, profile)
    material = yield from read_material(base, profile)
    settled = yield from settle(base, profile, material.good, material.bad)
    scoreboard = material.scoreboard
    before = yield from scoreboard.measure(base, "base model")
    del base
    model = yield from load(model_name, profile)
    model.batch_size, model.response_prefix = settled.batch_size, settled.response_prefix
    after = yield from scoreboard.measure(model, "evaluated model")
    evaluated = Evaluated(model_name, base_name, after.scores, before.scores)
    yield evaluated
    return evaluated
