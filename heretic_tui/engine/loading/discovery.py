"""Discovery by probing: residual writers of an architecture that the table does not know.

Every weight in the layers whose output is as wide as the stream may be one. With all of them ablated nothing must
leak any more; then those are let go without which nothing leaks either. What is left writes.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.ablation.residuals import batch_residuals
from heretic_tui.engine.background import Job
from heretic_tui.engine.events import Progress
from heretic_tui.engine.loading.coverage import Coverage, probe
from heretic_tui.engine.model.language_model import Encoded, LanguageModel
from heretic_tui.engine.model.writers import Writer, candidates, norm_gain
from heretic_tui.engine.parameters import ATTENTION, MLP

FOUND = "found by probing"
_MIXES_TOKENS = re.compile(r"att|mixer|conv|mamba|ssm|rnn|recurrent|temporal", re.IGNORECASE)


def discover(model: LanguageModel, coverage: Coverage) -> Job[tuple[list[Writer], Coverage]]:
    """Add writers to those that the model has until nothing leaks; gives all of them and what still leaks.

    `coverage` is that of the model's own writers. Where not even all candidates together stop the leak, those are
    given whose ablation makes it smaller. The weights are put back.
    """
    groups = _groups(model)
    chosen = dict(groups)
    steps = iter(range(1, 2 * len(groups) + 2))

    def tried(names: Sequence[str]) -> Job[Coverage]:
        yield Progress("search for writers", next(steps), len(groups) + 1, "probes")
        return probe(model, [*model.writers, *(writer for name in names for writer in groups[name])])

    best = yield from tried(list(chosen))
    if best.whole:
        for name in groups:
            rest = [other for other in chosen if other != name]
            found = yield from tried(rest)
            if found.whole:
                del chosen[name]
                best = found
    else:
        chosen, best = {}, coverage
        for name in groups:
            found = yield from tried([*chosen, name])
            if sum(found.leak) < 0.9 * sum(best.leak):
                chosen[name], best = groups[name], found
    writers = [*model.writers, *(writer for group in chosen.values() for writer in group)]
    return sorted(writers, key=lambda writer: writer.layer), best


def _groups(model: LanguageModel) -> dict[str, list[Writer]]:
    """Candidates that are no writers yet, by their place with the numbers left out."""
    known = {writer.weight_name for writer in model.writers}
    gains = _gains(model)
    found: dict[str, list[Writer]] = {}
    for candidate in candidates(model.network, model.layers, model.facts.width):
        component = ATTENTION if _MIXES_TOKENS.search(candidate.place) else MLP
        writer = candidate.writer(component, FOUND, gains.get(id(candidate.owner)))
        if writer.weight_name not in known and not writer.unreadable:
            found.setdefault(candidate.group, []).append(writer)
    return found


def _gains(model: LanguageModel) -> dict[int, Tensor]:
    """The gain of the norm that takes a module's very output, by the module's id, as a pass over a text shows."""
    ids = model.encode([model.template("Hello")]).ids
    with _followed(model.layers, model.facts.width) as norms:
        batch_residuals(model, Encoded(ids, torch.ones_like(ids)))
    return {maker: gain for maker, norm in norms.items() if (gain := norm_gain(norm)) is not None}


@contextmanager
def _followed(layers: Sequence[nn.Module], width: int) -> Iterator[dict[int, nn.Module]]:
    """The norm behind each module, by the module's id, in the passes made meanwhile."""
    norms: dict[int, nn.Module] = {}
    produced: dict[int, tuple[Tensor, list[nn.Module]]] = {}  # by address; held, so that no address is used again

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        taken = args[0] if args else None
        if _is_norm(module, width) and isinstance(taken, Tensor):
            _, makers = produced.get(taken.data_ptr(), (taken, []))
            norms.update({id(maker): module for maker in makers})
        made = output[0] if isinstance(output, tuple) and output else output
        if isinstance(made, Tensor) and made.shape[-1] == width:
            produced.setdefault(made.data_ptr(), (made, []))[1].append(module)

    handles = [module.register_forward_hook(after) for layer in layers for module in layer.modules()]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


def _is_norm(module: nn.Module, width: int) -> bool:
    own = list(module.parameters())
    return len(own) == 1 and own[0].shape == (width,)
