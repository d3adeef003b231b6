"""Response prefix: what a model opens every answer with, which a first-token measurement has to skip."""

from collections.abc import Sequence

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.events import Note
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt

SAMPLE = 24
"""Responses looked at, half of them from each set."""
GLANCE = 4
"""Responses whose first token is looked at before all others: where these differ already, nothing is common to all."""
FEW_TOKENS = 6
MORE_TOKENS = 32
"""Looked at only where the first few tokens are the same in all responses."""


def find_response_prefix(
    model: LanguageModel, good: Sequence[Prompt], bad: Sequence[Prompt], skips: Sequence[Sequence[str]]
) -> Job[str]:
    """Find the text that all responses open with, chain-of-thought blocks closed; leaves it set on the model.

    `skips` pairs the opening of a chain of thought with its closed block. After a closed block the responses are
    looked at a second time, since closing it can leave, say, a common newline.
    """
    sample = [*good[: SAMPLE // 2], *bad[: SAMPLE // 2]]
    model.response_prefix = ""
    opened = _opened_by_template(model.template(sample[0].text, sample[0].system_prompt), skips)
    model.response_prefix = opened
    prefix = yield from _common_prefix(model, sample)
    closed = next((block for opening, block in skips if prefix.startswith(opening.strip())), None)
    if closed is not None:
        model.response_prefix = opened + closed
        model.response_prefix += yield from _common_prefix(model, sample)
    else:
        model.response_prefix = opened + prefix
    if model.response_prefix:
        yield Note(f"All responses open with {model.response_prefix!r}; measuring after it.")
    return model.response_prefix


def _opened_by_template(text: str, skips: Sequence[Sequence[str]]) -> str:
    """What closes a chain of thought that the generation prompt itself has opened; empty where it opens none."""
    for opening, closed in skips:
        if text.rstrip().endswith(opening.strip()):
            return closed.strip().removeprefix(opening.strip())
    return ""


def _common_prefix(model: LanguageModel, sample: Sequence[Prompt]) -> Job[str]:
    """The text of the tokens that all responses begin with, special tokens included."""
    texts = [model.template(prompt.text, prompt.system_prompt) for prompt in sample]
    common: tuple[int, ...] = ()
    half = GLANCE // 2
    for asked, tokens in (([*texts[:half], *texts[-half:]], 1), (texts, FEW_TOKENS), (texts, MORE_TOKENS)):
        found = yield from generate(model, asked, tokens, "response prefix")
        common = _shared([response.tokens for response in found])
        if len(common) < tokens:
            break
    text: str = model.tokenizer.decode(list(common), skip_special_tokens=False)
    return text.rstrip(" \ufffd")  # the mark stands for a character of which only the first bytes are common


def _shared(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest beginning that all rows have in common; whole tokens, so that no word is cut in two."""
    first, *others = rows
    for length, token in enumerate(first):
        if any(len(row) <= length or row[length] != token for row in others):
            return first[:length]
    return first if others else ()
