"""The tokens that a chat template puts after every prompt."""

from collections.abc import Sequence

from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt

MOST_POSITIONS = 8
"""How many of a template's last positions are looked at."""


def template_tail(model: LanguageModel, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[str]:
    """The tokens that every templated text ends with, whatever the prompt says, as texts; at least the last one."""
    systems = {prompt.system_prompt for prompt in prompts}
    # Prompts that all end alike are no part of the template: two that end otherwise tell them apart.
    others = [model.template(text, system) for text in ("x", "7") for system in sorted(systems)]
    rows: list[list[int]] = model.tokenizer([*texts, *others], add_special_tokens=False)["input_ids"]
    shared = 1
    while shared < min(MOST_POSITIONS, *(len(row) for row in rows)) and len({row[-shared - 1] for row in rows}) == 1:
        shared += 1
    return [str(model.tokenizer.decode([token])) for token in rows[-1][-shared:]]
