"""Log-probabilities of responses: of their first token, and of every token of a given answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batching import in_batches
from heretic_tui.engine.decoding.products import Products
from heretic_tui.engine.decoding.stepper import Stepper
from heretic_tui.engine.events import Progress
from heretic_tui.engine.model.language_model import Encoded, LanguageModel, positions


def first_token_log_probabilities(model: LanguageModel, texts: Sequence[str], phase: str) -> Job[Tensor]:
    """Log-probabilities `(prompts, vocabulary)` of the first response token, float32 on the host, from raw logits."""

    def compute(batch: Sequence[str], done: int) -> Job[list[Tensor]]:
        with torch.inference_mode():
            rows = list(
                torch.log_softmax(Stepper(model, model.encode(batch), steps=False).logits.float(), dim=-1).cpu()
            )
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return rows

    return torch.stack((yield from in_batches(model, texts, compute)))


def answer_log_probabilities(
    model: LanguageModel, texts: Sequence[str], answers: Sequence[tuple[int, ...]], phase: str
) -> Job[list[Tensor]]:
    """Log-probabilities of every token of a given answer and of the one before it begins: teacher forcing.

    One tensor `(max(1, answer tokens), vocabulary)` a prompt: row i is the distribution that token i comes from.
    """
    pairs = list(zip(texts, answers, strict=True))

    def compute(batch: Sequence[tuple[str, tuple[int, ...]]], done: int) -> Job[list[Tensor]]:
        with torch.inference_mode():
            # The last token of an answer predicts nothing that is compared, so it is not fed.
            encoded = _with_answers(
                model, model.encode([text for text, _ in batch]), [answer[:-1] for _, answer in batch]
            )
            longest = max(1, *(len(answer) for _, answer in batch)) if batch else 1
            logits = _raw_logits(model, encoded, longest)
            rows = [
                torch.log_softmax(logits[row, -max(1, len(answer)) :].float(), dim=-1).cpu()
                for row, (_, answer) in enumerate(batch)
            ]
        yield Progress(phase, done + len(batch), len(texts), "prompts")
        return rows

    return (yield from in_batches(model, pairs, compute))


def _with_answers(model: LanguageModel, prompts: Encoded, answers: Sequence[tuple[int, ...]]) -> Encoded:
    """Prompt rows with their answers behind them, padded on the left again so that all end together."""
    rows = [
        ids[mask.bool()].tolist() + list(answer)
        for ids, mask, answer in zip(prompts.ids, prompts.mask, answers, strict=True)
    ]
    width = max(len(row) for row in rows)
    pad = int(model.tokenizer.pad_token_id)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=prompts.ids.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=prompts.ids.device)
    return Encoded(ids, mask)


def _raw_logits(model: LanguageModel, batch: Encoded, keep: int) -> Tensor:
    options: dict[str, Any] = {"position_ids": positions(batch.mask), "logits_to_keep": keep}
    with Products(model.network, 0).used():
        output = model.network(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            use_cache=False,
            **{name: value for name, value in options.items() if name in model.forward_names},
        )
    logits: Tensor = output.logits
    return logits[:, -keep:]
