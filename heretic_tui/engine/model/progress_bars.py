"""The model library's progress bars: nothing of them may reach the terminal, and what they tell can become events."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Bar = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Makes a bar in place of the library's `factory(*args, **options)`."""

_hook = threading.Lock()


@contextmanager
def bars_made_by(bar: Bar) -> Iterator[None]:
    """Let `bar` make the library's bars until this is left.

    The hook is one for the whole process, so a second thread waits here for the first: the load or the export of a
    job that was closed may still be at its last tensor.
    """
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as transformers_logging

    with _hook:
        # The reader of GGUF files makes its bar past the library's own, which alone knows the hook.
        unhooked, gguf.tqdm = gguf.tqdm, transformers_logging.tqdm
        previous = transformers_logging.set_tqdm_hook(bar)
        level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()
        try:
            yield
        finally:
            gguf.tqdm = unhooked
            transformers_logging.set_tqdm_hook(previous)
            transformers_logging.set_verbosity(level)


def reported(
    factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], report: Callable[[int, int, Any], None]
) -> Any:
    """In a bar's place: the items that it would run over, `report(done, total, item)` called after each."""
    items = list(args[0] if args else options.get("iterable") or ())
    return _each(items, report) if items else factory(*args, **{**options, "disable": True})


def _each(items: list[Any], report: Callable[[int, int, Any], None]) -> Iterator[Any]:
    for done, item in enumerate(items, start=1):
        yield item
        report(done, len(items), item)
