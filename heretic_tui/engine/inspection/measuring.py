"""The jobs that measure what the inspector shows: residual vectors of both prompt sets, and what leaks.

`measure` makes a run of a model that has none, which can become a study later; `measure_run` adds to a run's folder,
for its original model or for one of its trials.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from heretic_tui.engine.ablation.directions import Directions, load_directions, save_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Measured, Note
from heretic_tui.engine.inspection.direction_finding import find_directions, residual_sets
from heretic_tui.engine.inspection.leak import PROMPTS, Leak, leak_path, measure_leak, measure_write, save_leak
from heretic_tui.engine.inspection.residual_sets import (
    ORIGINAL,
    ResidualSets,
    residuals_path,
    save_residual_sets,
)
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import TrialRecord, changed_facts
from heretic_tui.engine.runs.attending import attended
from heretic_tui.engine.runs.beginning import begin, read_prompts, settle, templated
from heretic_tui.engine.runs.listing import create_run
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.profile.schema import Profile


def measure(model_name: str, profile: Profile, profile_name: str, runs_dir: Path, load: Loader = load) -> Job[Run]:
    """Measure a model in a new run without trials, which a study can go on with.

    The run's folder is made once all is measured, so that a job that fails or is stopped leaves none.
    """
    model, profile = yield from begin(model_name, profile, load)
    good, bad = yield from read_prompts(model, profile)
    settled = yield from settle(model, profile, good, bad)
    texts = _templated(model, good, bad)
    sets = yield from _captured(model, texts, profile)
    directions = yield from find_directions(model, texts, profile, sets)
    leak = yield from measure_leak(model, _few(texts), directions, gain_aware=profile.gain_aware)
    run = create_run(runs_dir, str(profile.model), profile_name, profile)
    run.save_model(model.facts, settled)
    save_directions(run.path / DIRECTIONS, directions)
    yield from attended(run, _kept(run, ORIGINAL, sets, leak))
    return run


def measure_run(run: Run, trial: int = ORIGINAL, load: Loader = load) -> Job[Path]:
    """Measure a run's original model, or a trial: the weights are ablated as its study did, and put back.

    Returns where the residual vectors are. Raises `EngineError` where there is no such trial.
    """
    record = None if trial == ORIGINAL else run.record(trial)
    if record is not None and not (run.path / DIRECTIONS).is_file():
        raise EngineError(f"{run.name} has no directions any more.", "Measure its original model first.")
    model = yield from load(run.model_name, run.profile)
    yield from attended(run, _measure_run(model, run, record))
    return residuals_path(run, trial)


def _measure_run(model: LanguageModel, run: Run, record: TrialRecord | None) -> Job[None]:
    known = run.model()
    if known is not None and (changed := changed_facts(known[0], model.facts)):
        yield Note(f"The model is not the one that the run began with: {', '.join(changed)}.", "warning")
    good, bad = yield from read_prompts(model, run.profile)
    settled = known[1] if known else None
    path = run.path / DIRECTIONS
    # What a study measures first is measured here where it is missing; the study must not do so at the same time.
    with nullcontext() if settled is not None and path.is_file() else run.locked():
        if settled is None:
            settled = yield from settle(model, run.profile, good, bad)
            run.save_model(model.facts, settled)
        model.batch_size, model.response_prefix = settled.batch_size, settled.response_prefix
        texts = _templated(model, good, bad)
        if record is not None:
            directions = load_directions(path)
            with _as_trial(model, run.profile, directions, record):
                sets = yield from _captured(model, texts, run.profile)
                leak = yield from measure_write(model, _few(texts), directions)
        else:
            sets = yield from _captured(model, texts, run.profile)
            if path.is_file():
                directions = load_directions(path)
            else:
                directions = yield from find_directions(model, texts, run.profile, sets)
                save_directions(path, directions)
            leak = yield from measure_leak(model, _few(texts), directions, gain_aware=run.profile.gain_aware)
        yield from _kept(run, record.trial if record else ORIGINAL, sets, leak)


@contextmanager
def _as_trial(model: LanguageModel, profile: Profile, directions: Directions, record: TrialRecord) -> Iterator[None]:
    """Hold the model ablated as its study had it for this trial."""
    with ablated(model, directions, record.parameters, style_of(profile)):
        yield


def _templated(model: LanguageModel, good: Sequence[Prompt], bad: Sequence[Prompt]) -> tuple[list[str], list[str]]:
    return templated(model, good), templated(model, bad)


def _few(texts: tuple[list[str], list[str]]) -> list[str]:
    return [text for kind in texts for text in kind[:PROMPTS]]


def _captured(model: LanguageModel, texts: tuple[list[str], list[str]], profile: Profile) -> Job[ResidualSets]:
    sets = yield from residual_sets(model, texts, profile)
    sets.check()
    return sets


def _kept(run: Run, trial: int, sets: ResidualSets, leak: Leak) -> Job[None]:
    save_leak(leak_path(run, trial), leak)
    save_residual_sets(residuals_path(run, trial), sets)
    yield Measured(run.name, run.path, trial, (len(sets.good), len(sets.bad)), sets.rows, sets.width, sets.bytes)
