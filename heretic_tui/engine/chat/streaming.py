"""One response, streamed as it comes, for the chat."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.chat.conversation import Sampling
from heretic_tui.engine.decoding.greedy import Continuation
from heretic_tui.engine.decoding.stepper import Stepper
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import TextGenerated, Tick
from heretic_tui.engine.model.language_model import LanguageModel

GREEDY_BELOW = 1e-4
"""Temperature at which the likeliest token is as good as certain; dividing by less would overflow."""


def stream(model: LanguageModel, text: str, sampling: Sampling, column: int = 0) -> Job[Continuation]:
    """Continue one templated text, yielding whole characters as they come; `column` marks the events.

    Raises `EngineError` where the model's output is not finite and tokens are to be drawn from it.
    """
    rows: list[list[int]] = [[]]
    said, ended = "", "length"
    choose = chooser(sampling, model.device)
    stepper = Stepper(model, model.encode([text]))
    for count in range(1, sampling.max_tokens + 1):
        token = choose(stepper.scores(rows, [0]))
        if int(token) in model.end_tokens:
            ended = "eos"
            break
        rows[0].append(int(token))
        whole = model.decode(rows)[0]
        # A character may need several tokens: until it is whole it decodes to the replacement mark.
        if len(whole) > len(said) and not whole.endswith("\ufffd"):
            yield TextGenerated(whole[len(said) :], column)
            said = whole
        else:
            yield Tick()
        if count < sampling.max_tokens:
            stepper.step(token)
    whole = model.decode(rows)[0]
    if whole != said:
        yield TextGenerated(whole[len(said) :], column)
    return Continuation(whole, tuple(rows[0]), ended)


def chooser(sampling: Sampling, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What picks the next tokens `(rows,)` from scores `(rows, vocabulary)`: the best, or one drawn by chance."""
    if sampling.temperature < GREEDY_BELOW:
        return lambda scores: scores.argmax(dim=-1)
    from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(float(sampling.top_p))] if sampling.top_p < 1 else []
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)

    @torch.inference_mode()
    def draw(scores: Tensor) -> Tensor:
        warped = scores.float()
        for warper in warpers:
            warped = warper(None, warped)
        probabilities = torch.softmax(warped, dim=-1)
        if not torch.isfinite(probabilities).all():
            raise EngineError(
                "The model's output is not finite, so no token can be drawn from it.",
                "Choose a weaker ablation, or load the model in bfloat16 or float32.",
            )
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return draw
