"""Batches: work through prompts as many at a time as memory allows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note
from heretic_tui.engine.hardware import release_memory
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.language_model import LanguageModel

T = TypeVar("T")
R = TypeVar("R")


def in_batches(
    model: LanguageModel, items: Sequence[T], compute: Callable[[Sequence[T], int], Job[list[R]]]
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
                raise not_even_one() from error
            model.batch_size = size // 2
            model.static_steps = None  # those of the smaller batch take less
            yield Note(f"Out of memory with {size} prompts at a time; going on with {model.batch_size}.", "warning")
        else:
            continue
        # Only here is the failed batch's traceback, and with it its tensors, out of scope.
        release_memory()
    return results


def not_even_one() -> EngineError:
    """Say that there is no smaller batch to try."""
    return EngineError(
        "Memory ran out even with a single prompt at a time. All that was done before is kept.",
        "Free some memory, or use a device with more of it, and go on; or use a smaller model or 4-bit weights.",
    )


@contextmanager
def one_at_a_time(model: LanguageModel) -> Iterator[None]:
    """Hold the model at a batch size of one, so that nothing is padded."""
    before, model.batch_size = model.batch_size, 1
    try:
        yield
    finally:
        model.batch_size = before
