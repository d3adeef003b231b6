"""Chat: candidates, each held in turn, answer their conversations."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.ablation import ablated
from heretic_tui.engine.background import Job
from heretic_tui.engine.chat import Added, Answer, Candidate, OfTrial, Original, Removed, Sampling, Turn
from heretic_tui.engine.decoding import stream
from heretic_tui.engine.directions import Directions, load_directions
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import AnswerFinished
from heretic_tui.engine.hardware import out_of_memory
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.loading import Loader, load
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.run import DIRECTIONS, Run
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

    Only `Original` can answer without a run that has directions. Raises `EngineError` before the first token for
    candidates that there are not, and for conversations that do not fit the model's context.
    """
    model = yield from load(model_name, profile)
    held = [_held(model, run, turn.candidate) for turn in turns]
    texts = [_rendered(model, turn, sampling.max_tokens) for turn in turns]
    answers = []
    for column, (turn, candidate, (text, room)) in enumerate(zip(turns, held, texts, strict=True)):
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


def _held(model: LanguageModel, run: Run | None, candidate: Candidate) -> Held:
    """What holds the model as the candidate says while it is entered, and puts it back."""
    if isinstance(candidate, Original):
        return nullcontext()
    if run is None:
        raise EngineError(f"There is no run to take {candidate.label} from.", "Choose a run, or the original model.")
    directions = _directions(model, run)
    match candidate:
        case OfTrial(trial):
            profile, parameters = run.profile, run.record(trial).parameters
            return ablated(
                model,
                directions,
                parameters,
                row_normalization=profile.row_normalization,
                gain_aware=profile.gain_aware,
            )
        case Removed(layer, strength):
            _check(model, layer, strength)
            everywhere = Kernel(strength, 0.0, strength, math.inf)
            return ablated(
                model, directions, AblationParameters(float(layer), dict.fromkeys(model.facts.writers, everywhere))
            )
        case Added(layer, strength):
            _check(model, layer, strength)
            difference = directions.bad[layer + 1] - directions.good[layer + 1]
            return added(model.layers[layer], strength * difference)


def _directions(model: LanguageModel, run: Run) -> Directions:
    path = run.path / DIRECTIONS
    if not path.is_file():
        raise EngineError(f"{run.name} has no directions yet.", "Resume it first.")
    directions = load_directions(path)
    if directions.vectors.shape != (model.facts.layers + 1, model.facts.width):
        raise EngineError(f"{model.name} is not the model of {run.name}.", "Choose a run of this model.")
    return directions


def _check(model: LanguageModel, layer: int, strength: float) -> None:
    if not 0 <= layer < model.facts.layers:
        raise EngineError(f"There is no layer {layer}.", f"The layers are numbered 0 to {model.facts.layers - 1}.")
    if not math.isfinite(strength):
        raise EngineError(f"The strength cannot be {strength}.", "Give a finite number.")


@contextmanager
def added(layer: nn.Module, vector: Tensor) -> Iterator[None]:
    """Add a vector `(d_model,)` to the stream after a decoder layer at every position, as long as this is entered.

    Activation addition, after Turner et al. 2023 ("Steering Language Models With Activation Engineering").
    """

    def add(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        with torch.no_grad():
            if isinstance(output, tuple):
                return (output[0] + vector.to(output[0]), *output[1:])
            return output + vector.to(output)

    handle = layer.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
