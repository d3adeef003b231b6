"""What names a prompt set, and what makes two settings the same set; known without reading it."""

from heretic_tui.profile.schema import PromptSet

SetKey = tuple[str | None, ...]


def describe(prompt_set: PromptSet) -> str:
    """The set's source and slice on one line; responses name their set so."""
    return f"{prompt_set.dataset} {prompt_set.split or ''}".strip()


def set_key(prompt_set: PromptSet) -> SetKey:
    """What makes two prompt sets the same set of prompts, whatever their answers and plot labels."""
    return (
        prompt_set.dataset,
        prompt_set.commit,
        prompt_set.split,
        prompt_set.column,
        prompt_set.prefix,
        prompt_set.suffix,
        prompt_set.system_prompt,
    )
