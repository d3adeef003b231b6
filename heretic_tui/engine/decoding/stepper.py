"""One batch being decoded: the prompts' pass, then a token for each row a step."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.products import Products
from heretic_tui.engine.events import Tick
from heretic_tui.engine.model.language_model import Encoded, LanguageModel, positions

SHORTEST_OPENING = 4
"""Tokens that all prompts must begin with for a pass of their own over them to pay."""


class Stepper:
    """One batch being decoded: the key-value cache, the mask, and the next-token logits of the rows still in it.

    Where no step is to follow (`steps`), nothing is prepared for them.
    """

    def __init__(self, model: LanguageModel, batch: Encoded, *, steps: bool = True) -> None:
        from heretic_tui.engine.decoding.roomy_cache import roomy_cache

        self.model = model
        self.mask = batch.mask
        self.prompt = batch.ids
        self.cache = roomy_cache(model.network.config)
        self.products = Products(model.network, len(batch.ids) if steps else 0)
        self.process = logits_processor(model)
        self.logits = self._read(batch)

    @torch.inference_mode()
    def next_tokens(self, rows: Sequence[Sequence[int]], active: Sequence[int]) -> Tensor:
        """The likeliest next token `(rows,)` of the active rows, given what they have written so far."""
        return self.scores(rows, active).argmax(dim=-1)

    @torch.inference_mode()
    def scores(self, rows: Sequence[Sequence[int]], active: Sequence[int]) -> Tensor:
        """Next-token logits `(rows, vocabulary)` of the active rows, after the model's own generation settings."""
        if self.process is None:
            return self.logits
        processed: Tensor = self.process(_history(self.prompt, rows, active), self.logits)
        return processed

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> None:
        """Append one token `(rows,)` to every row, which gives the next logits `(rows, vocabulary)`."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward(tokens[:, None], positions(self.mask)[:, -1:])

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """Let only these rows go on."""
        self.cache.batch_select_indices(rows)
        self.mask, self.prompt, self.logits = self.mask[rows], self.prompt[rows], self.logits[rows]

    @torch.inference_mode()
    def _read(self, batch: Encoded) -> Tensor:
        """Next-token logits after the prompts; tokens that all begin with are read once, in one row."""
        from heretic_tui.engine.decoding.roomy_cache import attends_to_all, rows_of_one

        opening = _opening(batch) if attends_to_all(self.cache) and "position_ids" in self.model.forward_names else []
        if len(opening) < SHORTEST_OPENING:
            return self._forward(batch.ids, positions(batch.mask))
        shared = torch.tensor([opening], device=batch.ids.device)
        self.mask = torch.ones_like(shared)
        self._forward(shared, positions(self.mask))
        self.cache.batch_select_indices(rows_of_one(len(batch.ids), shared.device))
        rest = _without_opening(batch, len(opening))
        self.mask = torch.cat([rest.mask.new_ones(len(rest.ids), len(opening)), rest.mask], dim=1)
        return self._forward(rest.ids, positions(self.mask)[:, len(opening) :])

    @torch.inference_mode()
    def _forward(self, ids: Tensor, position_ids: Tensor) -> Tensor:
        options: dict[str, Any] = {"position_ids": position_ids, "logits_to_keep": 1}
        with self.products.used():
            output = self.model.network(
                input_ids=ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                **{name: value for name, value in options.items() if name in self.model.forward_names},
            )
        logits: Tensor = output.logits[:, -1]
        return logits


def _opening(batch: Encoded) -> list[int]:
    """The tokens that every row begins with, at least one of each row left out: template and system prompt."""
    if len(batch.ids) < 2:
        return []
    rows: list[list[int]] = [ids[mask.bool()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    least, greatest = min(rows), max(rows)
    shared = next((place for place, token in enumerate(least) if greatest[place : place + 1] != [token]), len(least))
    return least[: min(shared, min(len(row) for row in rows) - 1)]


def _without_opening(batch: Encoded, length: int) -> Encoded:
    """The rows without their first `length` tokens, padded on the left to the longest of what is left."""
    width = int(batch.mask.sum(dim=1).max()) - length
    ids, mask = batch.ids[:, -width:], batch.mask[:, -width:].clone()
    left = batch.mask.sum(dim=1, keepdim=True) - length
    mask[torch.arange(width, device=mask.device).expand_as(mask) < width - left] = 0
    return Encoded(ids, mask)


def _history(prompt: Tensor, rows: Sequence[Sequence[int]], active: Sequence[int]) -> Tensor:
    """Prompt and response tokens `(rows, width)` of the active rows; an ended row is filled up with zeros."""
    width = max(len(rows[row]) for row in active)
    written = [[*rows[row], *[0] * (width - len(rows[row]))] for row in active]
    return torch.cat([prompt, torch.tensor(written, dtype=torch.long, device=prompt.device)], dim=1)


def logits_processor(model: LanguageModel) -> Any | None:
    """What the model's own generation settings do to greedy decoding; None where they do nothing.

    A repetition penalty, for instance, changes greedy answers, and the exported model will be run with it.
    """
    from transformers import LogitsProcessorList
    from transformers.generation import (
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SuppressTokensLogitsProcessor,
    )

    settings = model.network.generation_config
    steps: list[Any] = []
    if getattr(settings, "repetition_penalty", None) not in (None, 1.0):
        steps.append(RepetitionPenaltyLogitsProcessor(penalty=settings.repetition_penalty))
    if getattr(settings, "no_repeat_ngram_size", None):
        steps.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if getattr(settings, "suppress_tokens", None):
        steps.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=model.device))
    return LogitsProcessorList(steps) if steps else None


def probe(model: LanguageModel, batch: Encoded, steps: int = 4) -> Job[tuple[float, float]]:
    """Seconds that a batch takes to be read, and for one decoding step after it (the quickest of `steps`)."""
    began = _now(model)
    stepper = Stepper(model, batch)
    prefill = _now(model) - began
    yield Tick()
    times = []
    for _ in range(steps):
        began = _now(model)
        stepper.step(stepper.logits.argmax(dim=-1))
        times.append(_now(model) - began)
        yield Tick()
    return prefill, min(times)


def _now(model: LanguageModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
