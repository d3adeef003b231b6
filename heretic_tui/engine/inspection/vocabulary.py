"""A direction through the unembedding: the vocabulary that it promotes, and that it suppresses."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress
from heretic_tui.engine.inspection.direction import Direction, check_width
from heretic_tui.engine.inspection.reading import loaded
from heretic_tui.engine.inspection.words import VocabularyRead, Word
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.model.language_model import LanguageModel

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.reading import Subject

TOP = 20
ROWS = 8192
"""Rows of the unembedding that are multiplied at a time, in float32."""


def read_vocabulary(
    subject: "Subject", direction: Direction, *, top: int = TOP, number: int = 0, load: Loader = load
) -> Job[VocabularyRead]:
    """Multiply a direction with the unembedding, after the final norm's gain. Raises `EngineError`."""
    model = yield from loaded(subject, load)
    check_width(direction, model.facts.width, model.name)
    yield Progress("vocabulary", 0, 1)
    values, through = logit_changes(model, torch.from_numpy(direction.vector))
    values = values - values.mean()
    top = min(top, len(values))
    promoted = _words(model, values, torch.topk(values, top).indices)
    suppressed = _words(model, values, torch.topk(-values, top).indices)
    found = VocabularyRead(promoted, suppressed, direction.name, through, float(values.std()), number)
    yield found
    return found


def logit_changes(model: LanguageModel, vector: Tensor) -> tuple[Tensor, str]:
    """Change of every logit `(vocabulary,)` for a unit step along `vector` `(d_model,)`; and the final norm's name.

    The norm's division is left out, for it is the same for all tokens; its gain is not. Tokens that the tokenizer does
    not know (rows that only pad the matrix) are left out.
    """
    head = model.network.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise EngineError(f"{model.name} has no unembedding that can be read.")
    norm, name = final_norm(model)
    through = vector.float() if norm is None else gained(norm, vector)
    return _unembedded(head, through, len(model.tokenizer)), name


def _unembedded(head: nn.Module, through: Tensor, known: int) -> Tensor:
    weight = getattr(head, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2 and weight.device.type != "meta":
        known = min(len(weight), known)
        through = through.to(weight.device)
        parts = [weight[row : min(row + ROWS, known)].detach().float() @ through for row in range(0, known, ROWS)]
        return torch.cat(parts).cpu()
    # Packed in 4 bits, or not in memory: only the module itself knows its values. A bias falls away in the difference.
    kind = torch.bfloat16
    with torch.inference_mode():
        high, low = head(through.to(kind)[None, None]), head(-through.to(kind)[None, None])
    changes: Tensor = (high - low)[0, 0, :known].float().cpu() / 2
    return changes


def gained(norm: nn.Module, vector: Tensor) -> Tensor:
    """What a norm makes of a step along `vector`, but for a common factor: the gain, and centring if it centres.

    Read off the norm itself, half the difference of its answers to `x` and `-x`, so that a bias falls away and it does
    not matter how the gain is stored. `x` has a mean square of 1, so that the norm's epsilon counts next to nothing.
    """
    weight = next(norm.parameters(), None)
    size = len(vector) ** 0.5
    held = weight is not None and weight.device.type != "meta"
    step = (vector.float() * size).to(weight.device if weight is not None and held else vector.device)[None, None]
    with torch.inference_mode():
        try:
            high, low = norm(step), norm(-step)
        except RuntimeError:  # some norms take their weights' dtype alone
            kind = torch.float32 if weight is None else weight.dtype
            high, low = norm(step.to(kind)), norm(-step.to(kind))
    change: Tensor = (high - low)[0, 0].float().cpu() / (2 * size)
    return change


def final_norm(model: LanguageModel) -> tuple[nn.Module | None, str]:
    """The norm before the unembedding, found by what one pass hands on; None where there is none."""
    inside = {id(part) for layer in model.layers for part in layer.modules()}
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: (
                outputs.append((name, module, output)) if isinstance(output, Tensor) else None
            )
        )
        for name, module in model.network.named_modules()
        if id(module) not in inside and "norm" in type(module).__name__.casefold()
    ]
    try:
        batch = model.encode(["a"])
        with torch.inference_mode():
            answer = model.network.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    last = answer[0] if isinstance(answer, tuple) else answer.last_hidden_state
    for name, module, output in reversed(outputs):
        if output.shape == last.shape and torch.equal(output, last):
            return module, name
    return None, ""


def _words(model: LanguageModel, values: Tensor, places: Tensor) -> tuple[Word, ...]:
    return tuple(Word(_text(model, token), token, float(values[token])) for token in places.tolist())


def _text(model: LanguageModel, token: int) -> str:
    """A token as text; one that is only a part of a character as the tokenizer writes it."""
    shown = str(model.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return str(model.tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in shown or not shown else shown
