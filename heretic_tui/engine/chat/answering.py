"""Chat: candidates, each held in turn, answer their conversations."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heretic_tui import paths
from heretic_tui.engine.ablation.directions import Directions, load_directions
from heretic_tui.engine.ablation.stream_edits import Change, adding, adding_relative, changed, removing, rotating
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.background import Job
from heretic_tui.engine.chat.conversation import Answer, Candidate, OfTrial, Original, Sampling, Turn
from heretic_tui.engine.chat.steering import Given, OfComponent, OfLayer, Saved, Source, Steered, check_layers
from heretic_tui.engine.chat.streaming import stream
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import AnswerFinished
from heretic_tui.engine.inspection.components import component, components_of
from heretic_tui.engine.inspection.direction import row_of
from heretic_tui.engine.inspection.direction_library import DirectionLibrary
from heretic_tui.engine.inspection.residual_sets import load_residual_sets, residuals_path
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.profile.schema import Profile

Held = AbstractContextManager[None]
LEAST_ROOM = 16
"""Tokens that an answer is to have at least, where the context is nearly full."""


def chat(
    model_name: str,
    profile: Profile,
    run: Run | None,
    turns: Sequence[Turn],
    sampling: Sampling,
    load: Loader = load,
) -> Job[tuple[Answer, ...]]:
    """Let every turn's candidate answer its conversation, one after the other, streaming; column i is turn i.

    A trial, and a direction of a run, need a run that has directions. Raises `EngineError` before the first token for
    candidates that there are not, and for conversations that do not fit the model's context.
    """
    model = yield from load(model_name, profile)
    candidates = [held(model, run, turn.candidate) for turn in turns]
    texts = [_rendered(model, turn, sampling.max_tokens) for turn in turns]
    answers = []
    for column, (turn, candidate, (text, room)) in enumerate(zip(turns, candidates, texts, strict=True)):
        try:
            with candidate:
                began = time.perf_counter()
                said = yield from stream(model, text, replace(sampling, max_tokens=room), column)
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise EngineError(
                "Memory ran out while the model was answering.", "Shorten the conversation or the longest answer."
            ) from error
        answer = Answer(turn.candidate, said.text, len(said.tokens), time.perf_counter() - began, said.ended)
        answers.append(answer)
        yield AnswerFinished(column, answer.text, answer.tokens, answer.seconds, answer.ended)
    return tuple(answers)


def _rendered(model: LanguageModel, turn: Turn, max_tokens: int) -> tuple[str, int]:
    """The conversation as the model sees it, and how many tokens of answer the model's context has room for.

    Raises `EngineError` where that is next to nothing.
    """
    if not turn.messages or turn.messages[-1].role != "user":
        raise EngineError("There is nothing to answer.", "Write a message first.")
    text = model.conversation([{"role": message.role, "content": message.text} for message in turn.messages])
    length, limit = model.encode([text]).width, model.facts.context_length
    room = max_tokens if limit is None else min(max_tokens, limit - length)
    if room < min(max_tokens, LEAST_ROOM):
        raise EngineError(
            f"The conversation is {length} tokens long, which leaves no room for an answer in the model's context of "
            f"{limit} tokens.",
            "Begin a new conversation, or shorten the last message.",
        )
    return text, room


def held(model: LanguageModel, run: Run | None, candidate: Candidate) -> Held:
    """What holds the model as the candidate says while it is entered, and puts it back.

    Raises `EngineError` at once for a candidate that there is not.
    """
    match candidate:
        case Original():
            return nullcontext()
        case OfTrial(trial):
            run = _needed(run, candidate.label)
            return ablated(model, _directions(model, run), run.record(trial).parameters, style_of(run.profile))
        case Steered():
            check_layers(candidate.layers or (), model.facts.layers)
            return changed(model.layers, _change(model, run, candidate), candidate.layers)


def _change(model: LanguageModel, run: Run | None, candidate: Steered) -> Change:
    """What the candidate does to the stream. Raises `EngineError` for directions that there are not or do not fit."""
    vector = _vector(model, run, candidate.direction)
    unit = normalize(vector, dim=0)
    if candidate.towards is not None:
        return rotating(unit, _vector(model, run, candidate.towards), candidate.amount)
    if candidate.operation == "removed":
        return removing(unit, candidate.amount)
    if isinstance(candidate.direction, OfLayer):
        return adding(candidate.amount * vector)
    return adding_relative(unit, candidate.amount)


def _vector(model: LanguageModel, run: Run | None, direction: Source) -> Tensor:
    """A direction's numbers `(d_model,)`, float32; one of a run is as long as its two centres are apart."""
    match direction:
        case OfLayer(layer, good):
            check_layers((layer,), model.facts.layers)
            of_run = _directions(model, _needed(run, direction.label))
            distance = torch.linalg.vector_norm(of_run.bad[layer + 1] - of_run.good[layer + 1])
            vector = of_run.good[layer + 1] if good else of_run.vectors[layer + 1] * distance
        case OfComponent(layer, number):
            sets = load_residual_sets(residuals_path(_needed(run, direction.label)))
            row = row_of(str(layer), sets.rows)
            vector = torch.from_numpy(component(components_of(sets, row), row, number).vector)
        case Saved(name):
            vector = torch.from_numpy(DirectionLibrary(paths.directions_dir()).load(name).vector)
        case Given(_, values):
            vector = torch.tensor(values)
    if vector.shape != (model.facts.width,):
        raise EngineError(
            f"The direction {direction.label} is {len(vector)} numbers wide; the stream of {model.name} is "
            f"{model.facts.width} wide.",
            "Choose a direction that was measured on this model.",
        )
    if not (torch.isfinite(vector).all() and vector.any()):
        raise EngineError(
            f"The direction {direction.label} is {'zero' if not vector.any() else 'not all finite numbers'}.",
            "Choose another direction.",
        )
    return vector.float()


def _needed(run: Run | None, label: str) -> Run:
    if run is None:
        raise EngineError(f"There is no run to take {label} from.", "Choose a run, or the original model.")
    return run


def _directions(model: LanguageModel, run: Run) -> Directions:
    path = run.path / DIRECTIONS
    if not path.is_file():
        raise EngineError(f"{run.name} has no directions yet.", "Resume it first.")
    directions = load_directions(path)
    if directions.vectors.shape != (model.facts.layers + 1, model.facts.width):
        raise EngineError(f"{model.name} is not the model of {run.name}.", "Choose a run of this model.")
    return directions
