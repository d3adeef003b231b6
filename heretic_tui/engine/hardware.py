"""Devices, memory readings and out-of-memory errors."""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note

if TYPE_CHECKING:
    from heretic_tui.engine.language_model import LanguageModel

T = TypeVar("T")
R = TypeVar("R")

MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
"""What torch's back ends say, in plain RuntimeErrors, when memory ran out."""


def accelerator() -> str | None:
    """The kind of accelerator that torch sees (`cuda`, `mps`, `xpu`, ...), or None."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`: the accelerator's free memory, or the host's available memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on an accelerator or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in MEMORY_SIGNS)


def release_memory() -> None:
    """Give cached memory back after a failure."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_batches(
    model: "LanguageModel", items: Sequence[T], compute: Callable[[Sequence[T], int], Job[list[R]]]
) -> Job[list[R]]:
    """Run `compute(batch, done)` over `items` in batches of the model's size, in order, and join the results.

    Where memory runs out the batch size is halved for the rest of the session, a note says so, and the batch
    is done again; at one item there is nothing left to halve and an `EngineError` is raised.
    """
    results: list[R] = []
    while len(results) < len(items):
        done = len(results)
        size = min(model.batch_size, len(items) - done)
        try:
            results += yield from compute(items[done : done + size], done)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise EngineError(
                    "Memory ran out even with a single prompt at a time.",
                    "Use a smaller model, 4-bit weights, or a device with more memory.",
                ) from error
            model.batch_size = size // 2
            yield Note(f"Out of memory with {size} prompts at a time; going on with {model.batch_size}.", "warning")
        else:
            continue
        # Only here is the failed batch's traceback, and with it its tensors, out of scope.
        release_memory()
    return results


def choose_batch_size(
    model: "LanguageModel", texts: Sequence[str], max_tokens: int, largest: int, patience: float = 4.0
) -> Job[tuple[int, float]]:
    """Find the batch size that decodes fastest, from a few short probes on the longest of `texts`.

    Grows the size until a row gets dearer, memory would run out, or a probe takes over `patience` seconds.
    Returns the size and its estimated speed in tokens per second.
    """
    from heretic_tui.engine.decoding import probe

    longest = sorted(texts, key=len, reverse=True)
    limit = max(1, min(largest, len(longest)))
    sizes = [size for size in (1, 4, 16, 64, 256) if size < limit] + [limit]
    costs: dict[int, float] = {}
    yield from probe(model, model.encode(longest[:1]))  # the first pass of all is slower than any other
    for size in sizes:
        batch = model.encode(longest[:size])
        needed = size * (batch.width + max_tokens) * model.cache_bytes_per_token + size * model.logits_bytes
        if costs and needed > 0.8 * free_memory(model.device):
            break
        began = time.perf_counter()
        try:
            prefill, step = yield from probe(model, batch)
        except Exception as error:
            if not out_of_memory(error) or size == 1:
                raise
            release_memory()
            break
        costs[size] = (prefill + step * max_tokens) / size
        # One bad reading is no reason to stop: another program may have had the processor just then.
        grew_dearer = all(cost > 1.2 * min(costs.values()) for cost in list(costs.values())[-2:])
        if grew_dearer or time.perf_counter() - began > patience:
            break
    if not costs:
        return 1, 0.0
    # Of sizes that are about equally fast the smallest, which takes the least memory.
    best = min(size for size, cost in costs.items() if cost <= 1.05 * min(costs.values()))
    return best, max_tokens / costs[best]


def peak_memory() -> dict[str, int]:
    """Peak bytes in use so far: `host` (resident) and one entry per CUDA device."""
    peaks = {}
    with suppress(ImportError):
        import resource

        peaks["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for index in range(torch.cuda.device_count()):
        peaks[f"cuda:{index}"] = torch.cuda.max_memory_allocated(index)
    return peaks
