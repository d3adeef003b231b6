"""The batch size that decodes fastest on this machine, found in seconds."""

import time
from collections.abc import Sequence

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batching import not_even_one
from heretic_tui.engine.decoding.stepper import probe
from heretic_tui.engine.hardware import free_memory, release_memory
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.language_model import Encoded, LanguageModel

PROBED = 16
"""Tokens of each prompt that a probe reads."""


def choose_batch_size(
    model: LanguageModel, texts: Sequence[str], max_tokens: int, largest: int, patience: float = 4.0
) -> Job[tuple[int, float]]:
    """Find the batch size that decodes fastest, from a few short probes on the longest of `texts`.

    Grows the size until a row gets dearer, memory would run out, or a probe takes over `patience` seconds.
    Returns the size and its estimated speed in tokens per second.
    """
    longest = sorted(texts, key=len, reverse=True)
    limit = max(1, min(largest, len(longest)))
    sizes = [size for size in (1, 4, 16, 64, 256) if size < limit] + [limit]
    costs: dict[int, float] = {}
    try:
        yield from probe(model, model.encode(longest[:1]))  # the first pass of all is slower than any other
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise not_even_one() from error
    for size in sizes:
        batch = model.encode(longest[:size])
        width = batch.width
        needed = size * (width + max_tokens) * model.cache_bytes_per_token + size * model.logits_bytes
        if costs and needed > 0.8 * free_memory(model.device):
            break
        began = time.perf_counter()
        try:
            # A row's share of reading prompts hardly depends on the batch, so their ends are enough to compare sizes.
            prefill, step = yield from probe(model, Encoded(batch.ids[:, -PROBED:], batch.mask[:, -PROBED:]))
        except Exception as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise not_even_one() from error
            release_memory()
            break
        costs[size] = (prefill * max(1.0, width / PROBED) + step * max_tokens) / size
        # One bad reading is no reason to stop: another program may have had the processor just then.
        grew_dearer = all(cost > 1.2 * min(costs.values()) for cost in list(costs.values())[-2:])
        if grew_dearer or time.perf_counter() - began > patience:
            break
    if not costs:
        return 1, 0.0
    # Of sizes that are about equally fast the smallest, which takes the least memory.
    best = min(size for size, cost in costs.items() if cost <= 1.05 * min(costs.values()))
    return best, max_tokens / costs[best]
