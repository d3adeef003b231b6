"""The job that takes the residual vectors in other ways, and compares the directions with the run's own.

A published replication found sequential extraction marginally but consistently better than batches, template or none
to matter, and positions before the last to carry directions of their own; here each run sees what holds for it.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.ablation.directions import centre, load_directions, measure_directions
from heretic_tui.engine.ablation.residuals import batch_positions, winsorized
from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.decoding.batching import in_batches, one_at_a_time
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished, Progress
from heretic_tui.engine.inspection.direction_finding import taking
from heretic_tui.engine.inspection.reading import Subject, loaded
from heretic_tui.engine.inspection.sensitivity import PROMPTS, Sensitivity, Variant, save_sensitivity
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.prompts.template_tail import template_tail
from heretic_tui.engine.runs.attending import attended
from heretic_tui.engine.runs.beginning import read_prompts, templated
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.profile.schema import Profile

Sets = tuple[list[str], list[str]]
"""The texts of the good and of the bad prompts, as the model sees them."""


def measure_sensitivity(run: Run, prompts: int = PROMPTS, load: Loader = load) -> Job[Sensitivity]:
    """Take the residual vectors of some prompts of each set in every way, and keep what comes of it.

    Raises `EngineError` for a run without directions.
    """
    if prompts < 1:
        raise EngineError(f"No direction lies between sets of {prompts} prompts.", "Ask for one prompt at least.")
    if not (run.path / DIRECTIONS).is_file():
        raise EngineError(f"{run.name} has no directions yet.", "Measure it (m in the inspector), or resume it.")
    model = yield from loaded(Subject.of_run(run), load)
    return (yield from attended(run, _measure(model, run, prompts)))


def _measure(model: LanguageModel, run: Run, prompts: int) -> Job[Sensitivity]:
    own, began = load_directions(run.path / DIRECTIONS).vectors, time.perf_counter()
    if own.shape != (model.facts.layers + 1, model.facts.width):
        raise EngineError(f"{model.name} is not the model of {run.name}.", "Choose a run of this model.")
    all_good, all_bad = yield from read_prompts(model, run.profile)
    good, bad = all_good[:prompts], all_bad[:prompts]
    found = yield from _variants(model, run.profile, good, bad, own)
    sensitivity = Sensitivity(tuple(found), max(len(good), len(bad)))
    save_sensitivity(run, sensitivity, [one.text for one in good], [one.text for one in bad])
    result = f"{len(found)} variants, {len(good)} + {len(bad)} prompts"
    yield PhaseFinished("sensitivity", time.perf_counter() - began, result)
    return sensitivity


def _variants(
    model: LanguageModel, profile: Profile, good: Sequence[Prompt], bad: Sequence[Prompt], own: Tensor
) -> Job[list[Variant]]:
    texts = templated(model, good), templated(model, bad)
    tail = template_tail(model, [*good, *bad], [*texts[0], *texts[1]])
    usual = -profile.token_position - 1
    at = yield from _directions(model, texts, "as measured", profile, max(len(tail), usual + 1))
    meaning = "the run's own way with these prompts alone: what the sample changes"
    found = [_variant("as measured", meaning, at[usual], own)]
    with one_at_a_time(model):
        alone = yield from _directions(model, texts, "one at a time", profile, usual + 1)
    found.append(_variant("one at a time", "a batch of one, so that nothing is padded", alone[usual], own))
    found += [
        _variant(f"position -{place + 1} {piece!r}", "another position of the template's end", at[place], own)
        for place, piece in enumerate(reversed(tail))
        if place != usual
    ]
    if any(prompt.system_prompt for prompt in (*good, *bad)):
        bare = [model.template(one.text) for one in good], [model.template(one.text) for one in bad]
        unasked = yield from _directions(model, bare, "no system prompt", profile, usual + 1)
        found.append(_variant("no system prompt", "the template without the system prompt", unasked[usual], own))
    begin = _beginning(model)
    plain = [f"{begin}{one.text}" for one in good], [f"{begin}{one.text}" for one in bad]
    (vectors,) = yield from _directions(model, plain, "no template", profile)
    found.append(_variant("no template", "the bare prompt, at its own last position", vectors, own))
    return found


def _variant(name: str, meaning: str, vectors: Tensor, own: Tensor) -> Variant:
    products = (vectors.double() * own.double()).sum(dim=1)
    cosines = products / (vectors.double().norm(dim=1) * own.double().norm(dim=1))  # NaN where a row has no direction
    return Variant(name, meaning, tuple(cosines.tolist()))


def _beginning(model: LanguageModel) -> str:
    """The text that a tokenizer of its own accord puts before a bare text."""
    first = model.tokenizer.bos_token_id
    ids = model.tokenizer("x")["input_ids"]
    return str(model.tokenizer.bos_token) if first is not None and ids and ids[0] == first else ""


def _directions(model: LanguageModel, texts: Sets, phase: str, profile: Profile, count: int = 1) -> Job[list[Tensor]]:
    """Directions `(layers + 1, d_model)` at the last `count` positions, the last one first, as the profile wants them.

    A row without a direction is zero, and all are where the sets do not differ.
    """
    centres = []
    for name, kind in zip(("good", "bad"), texts, strict=True):
        vectors = yield from _last_positions(model, kind, f"{phase}: {name} prompts", profile, count)
        centres.append((yield from in_background(partial(_centres, vectors, profile.direction_estimator))))
        del vectors
    return [
        measure_directions(good, bad, projected=profile.orthogonalize_direction).vectors
        if not torch.equal(good[1:], bad[1:])
        else torch.zeros_like(good)
        for good, bad in zip(*centres, strict=True)
    ]


def _centres(vectors: Tensor, estimator: Any, _: object) -> list[Tensor]:
    return [centre(vectors[:, place], estimator) for place in reversed(range(vectors.shape[1]))]


def _last_positions(
    model: LanguageModel, texts: Sequence[str], phase: str, profile: Profile, count: int
) -> Job[Tensor]:
    """The stream at the last `count` positions `(prompts, count, layers + 1, d_model)`, float32 on the host."""
    found = torch.empty(len(texts), count, len(model.layers) + 1, model.facts.width)

    def compute(batch: Sequence[str], done: int) -> Job[list[None]]:
        streams = batch_positions(model, model.encode(batch), count)
        for place in range(count):
            found[done : done + len(batch), place] = winsorized(streams[:, place], profile.winsorization_quantile)
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return [None] * len(batch)

    with taking(model, profile):
        yield from in_batches(model, texts, compute)
    return found
