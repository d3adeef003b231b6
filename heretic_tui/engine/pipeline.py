"""The jobs: generators of events that the command line and the app iterate alike.

Closing a job stops it: every `finally` puts weights back and leaves the run's folder ready to be resumed.
"""

import shutil
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.background import Job
from heretic_tui.engine.chat.answering import chat
from heretic_tui.engine.checkpoints.origins import UnknownOrigin
from heretic_tui.engine.dtypes import EXPORT_DTYPES, export_size
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import (
    Evaluated,
    Exported,
    Note,
    RunOpened,
    StudyFinished,
)
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.export.aside import clear_leftovers
from heretic_tui.engine.export.merged import export_merged, shard_bytes
from heretic_tui.engine.export.scores import measure_export
from heretic_tui.engine.export.target import Written, check_target
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.loading.outline import Outliner
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import changed_facts
from heretic_tui.engine.runs.attending import attended
from heretic_tui.engine.runs.beginning import begin, check_coverage, settle
from heretic_tui.engine.runs.listing import create_run
from heretic_tui.engine.runs.mending import mend
from heretic_tui.engine.runs.ownership import Owner
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.engine.study.crew import check_kinship, search_of
from heretic_tui.engine.study.kinship import sketch
from heretic_tui.engine.study.optimizing import optimize
from heretic_tui.engine.study.search import StudyExists
from heretic_tui.engine.study.start import Material, keep_batch_size, measure_start, read_material
from heretic_tui.engine.timing import totals
from heretic_tui.profile.schema import Profile

__all__ = ["Loader", "chat", "evaluate", "export", "join_study", "resume_study", "start_study"]


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
    try:
        return (yield from attended(run, job, model.facts.device))
    except StudyExists:
        shutil.rmtree(run.path, ignore_errors=True)  # nothing is in it yet
        raise


def resume_study(run: Run, trials: int | None = None, load: Loader = load) -> Job[StudyFinished]:
    """Go on with a run, with its own settings; `trials` changes how many it is to have in all."""
    return (yield from attended(run, _resumed(run, run.locked(), load, trials=trials)))


def join_study(run: Run, storage: str | None = None, load: Loader = load) -> Job[StudyFinished]:
    """Work on a run beside others, or alone; leaves when all its trials are done.

    With a `storage` the study is reached by that URL, as through a proxy, and not by the one that the run was begun
    with. Raises `EngineError` where this worker's model, prompts, settings or dtype are not the study's.
    """
    return (yield from attended(run, _resumed(run, run.joined(), load, joining=True, storage=storage)))


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
        for word in () if joining else mend(run):
            yield Note(word, "warning")
        model = yield from load(run.model_name, run.profile)
        check_coverage(model, run.profile)
        material = yield from read_material(model, run.profile)
        had = nullcontext(owner)
        return (
            yield from _study(
                model, run, material, began, had, resumed=True, trials=trials, joining=joining, storage=storage
            )
        )


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
        search_of(run, owner, model.facts.device, alone=not joining, new=not resumed, storage=storage) as search,
    ):
        own = sketch(model, run.profile, material.sets)
        if joining:
            check_kinship(run, search, own)
        elif search.sketch is None:
            search.set_sketch(own)
        if trials is not None:
            search.want(trials)
        yield RunOpened(run.name, run.path, resumed, len(search.records), search.wanted)
        known = run.model()
        if known is not None and (changed := changed_facts(known[0], model.facts)):
            yield Note(f"The model is not the one that the run began with: {', '.join(changed)}.", "warning")
        if run.profile.ablate_embeddings and (both := [one.weight_name for one in model.embeddings if one.tied]):
            yield Note(f"The embeddings are the output head too: the head is ablated with them ({', '.join(both)}).")
        directions, base = yield from measure_start(model, run, material)
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
