"""Greedy batch decoding that stops early where nothing can change any more, and streaming for chat."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.batching import in_batches
from heretic_tui.engine.chat import Sampling
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress, TextGenerated, Tick
from heretic_tui.engine.language_model import Encoded, LanguageModel, positions
from heretic_tui.engine.products import Products

DECIDE_EVERY = 8
"""Steps between two looks at the texts so far."""
COMPACT_BELOW = 0.75
"""Rows that are done leave the batch once the share still running falls below this; copying the cache costs time."""

SHORTEST_OPENING = 4
"""Tokens that all prompts must begin with for a pass of their own over them to pay."""

GREEDY_BELOW = 1e-4
"""Temperature at which the likeliest token is as good as certain; dividing by less would overflow."""

Decided = Callable[[str], bool]
"""Whether nothing that follows this beginning of a response can change what it is taken for."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote: text, token ids, and why it ends (`eos`, `length`, `decided` or `stopped`).

    `stopped` is a response that was not needed to its end; without tokens it was not begun.
    """

    text: str
    tokens: tuple[int, ...]
    ended: str


Enough = Callable[[Mapping[int, Continuation]], bool]
"""Told of responses that came to their end, by the place of their text: whether the others are not needed any more."""


class Stepper:
    """One batch being decoded: the key-value cache, the mask, and the next-token logits of the rows still in it."""

    def __init__(self, model: LanguageModel, batch: Encoded) -> None:
        from heretic_tui.engine.roomy_cache import roomy_cache

        self.model = model
        self.mask = batch.mask
        self.prompt = batch.ids
        self.cache = roomy_cache(model.network.config)
        self.products = Products(model.network, len(batch.ids))
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
        from heretic_tui.engine.roomy_cache import attends_to_all, rows_of_one

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


def generate(
    model: LanguageModel,
    texts: Sequence[str],
    max_tokens: int,
    phase: str,
    decided: Decided | None = None,
    enough: Enough | None = None,
    first: Sequence[float] | None = None,
) -> Job[list[Continuation]]:
    """Continue every templated text greedily, at most `max_tokens` tokens each; results in the order of `texts`.

    Prompts of like length share a batch; with `first` those come into the first batches whose number is highest. A row
    leaves its batch at an end token, or as soon as `decided` holds; all end where `enough` says so.
    """
    rank = first or [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: (rank[index], len(texts[index])), reverse=True)
    stopped = False

    def compute(batch: Sequence[int], done: int) -> Job[list[Continuation]]:
        if stopped:
            return [Continuation("", (), "stopped")] * len(batch)

        def over(rows: Mapping[int, Continuation]) -> bool:
            nonlocal stopped
            stopped = enough is not None and enough({batch[row]: found for row, found in rows.items()})
            return stopped

        encoded = model.encode([texts[index] for index in batch])
        return (yield from _decode(model, encoded, max_tokens, decided, over, lambda ended: report(done + ended)))

    def report(done: int) -> Progress:
        return Progress(phase, done, len(texts), "prompts")

    continuations = yield from in_batches(model, order, compute)
    return [found for _, found in sorted(zip(order, continuations, strict=True), key=lambda pair: pair[0])]


def _decode(
    model: LanguageModel,
    batch: Encoded,
    max_tokens: int,
    decided: Decided | None,
    enough: Enough,
    report: Callable[[int], Progress],
) -> Job[list[Continuation]]:
    rows: list[list[int]] = [[] for _ in range(len(batch.ids))]
    ended: dict[int, str] = {}
    stepper = Stepper(model, batch)
    active = list(range(len(rows)))
    told: set[int] = set()
    stopped = False
    for step in range(1, max_tokens + 1):
        tokens = stepper.next_tokens(rows, active)
        for row, token in zip(active, tokens.tolist(), strict=True):
            if row in ended:
                continue
            if token in model.end_tokens:
                ended[row] = "eos"
            else:
                rows[row].append(token)
        if decided is not None and step % DECIDE_EVERY == 0:
            open_rows = [row for row in active if row not in ended]
            beginnings = model.decode([rows[row] for row in open_rows])
            ended |= {row: "decided" for row, text in zip(open_rows, beginnings, strict=True) if decided(text)}
        if step == max_tokens:
            ended |= {row: "length" for row in active if row not in ended}
        if fresh := [row for row in ended if row not in told]:
            told.update(fresh)
            stopped = enough(_continuations(model, rows, ended, fresh))
        yield report(len(ended))
        running = [place for place, row in enumerate(active) if row not in ended]
        if stopped or not running:
            break
        if len(running) < COMPACT_BELOW * len(active):
            kept = torch.tensor(running, device=tokens.device)
            stepper.keep(kept)
            tokens, active = tokens[kept], [active[place] for place in running]
        stepper.step(tokens)
    return list(_continuations(model, rows, ended, range(len(rows))).values())


def _continuations(
    model: LanguageModel, rows: Sequence[Sequence[int]], ended: Mapping[int, str], wanted: Sequence[int]
) -> dict[int, Continuation]:
    texts = model.decode([rows[row] for row in wanted])
    return {
        row: Continuation(text, tuple(rows[row]), ended.get(row, "stopped"))
        for row, text in zip(wanted, texts, strict=True)
    }


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


def first_token_log_probabilities(model: LanguageModel, texts: Sequence[str], phase: str) -> Job[Tensor]:
    """Log-probabilities `(prompts, vocabulary)` of the first response token, float32 on the host, from raw logits."""

    def compute(batch: Sequence[str], done: int) -> Job[list[Tensor]]:
        with torch.inference_mode():
            rows = list(torch.log_softmax(Stepper(model, model.encode(batch)).logits.float(), dim=-1).cpu())
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
