"""A look at the first prompts of a set, as the model will see them."""

from typing import TYPE_CHECKING

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PromptsPreviewed
from heretic_tui.profile.schema import Profile, PromptSet

if TYPE_CHECKING:
    from heretic_tui.engine.model.language_model import LanguageModel

FIRST = 5
"""How many prompts are shown."""


def preview(name: str, prompt_set: PromptSet, profile: Profile, model: "LanguageModel | None" = None) -> Job[None]:
    """Read a prompt set and tell its first prompts, after the chat template where a model is loaded.

    What is wrong with the set is told in the event, so that looking at it is never a failed job.
    """
    from heretic_tui.engine.prompts.reading import load_prompts

    try:
        prompts = yield from load_prompts(prompt_set, profile.system_prompt)
        first = prompts[:FIRST]
        if model is None:
            texts = tuple(prompt.text for prompt in first)
        else:
            texts = tuple(model.template(prompt.text, prompt.system_prompt) for prompt in first)
    except EngineError as error:
        yield PromptsPreviewed(name, 0, (), templated=False, problem=f"{error.cause} {error.remedy}".strip())
        return
    yield PromptsPreviewed(name, len(prompts), texts, templated=model is not None)
