"""Greedy batch decoding that stops early where nothing can change any more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batching import in_batches
from heretic_tui.engine.events import Progress
from heretic_tui.engine.model.language_model import Encoded, LanguageModel

DECIDE_EVERY = 8
"""Steps between two looks at the texts so far."""
COMPACT_BELOW = 0.9
"""Rows that are done leave the batch once the share still running falls below this; copying the cache costs time."""

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
    from heretic_tui.engine.decoding.static_stepper import StaticStepper

    rows: list[list[int]] = [[] for _ in range(len(batch.ids))]
    ended: dict[int, str] = {}
    stepper = StaticStepper(model, batch, max_tokens)
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
