"""The model as it stands at one moment, asked what the scorers need: each prompt set is answered once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding import Continuation, Decided, generate
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.prompt_sets import SetKey, describe, set_key
from heretic_tui.engine.prompts import Prompt
from heretic_tui.profile.schema import PromptSet


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Prompts of one set, and when a response to them is decided for everyone who reads it."""

    name: str
    prompts: tuple[Prompt, ...]
    decided: Decided | None

    @staticmethod
    def of(prompt_set: PromptSet, prompts: Sequence[Prompt], decided: Decided | None) -> "EvaluationSet":
        """Join a set's settings and its prompts."""
        return EvaluationSet(describe(prompt_set), tuple(prompts), decided)


@dataclass
class Evaluation:
    """One measurement of one state of the weights; `title` names it in progress events."""

    model: LanguageModel
    sets: Mapping[SetKey, EvaluationSet]
    max_tokens: int
    title: str
    _responses: dict[SetKey, list[Continuation]] = field(default_factory=dict)

    def prompts(self, prompt_set: PromptSet) -> tuple[Prompt, ...]:
        """The prompts of a set."""
        return self.sets[set_key(prompt_set)].prompts

    def texts(self, prompt_set: PromptSet) -> list[str]:
        """The set's prompts after the chat template."""
        return [self.model.template(prompt.text, prompt.system_prompt) for prompt in self.prompts(prompt_set)]

    def responses(self, prompt_set: PromptSet) -> Job[list[Continuation]]:
        """What the model answers to a set, in its order; generated at the first call only."""
        key = set_key(prompt_set)
        if key not in self._responses:
            decided = self.sets[key].decided
            phase = f"{self.title}: responses"
            self._responses[key] = yield from generate(
                self.model, self.texts(prompt_set), self.max_tokens, phase, decided
            )
        return self._responses[key]

    @property
    def answered(self) -> Mapping[SetKey, list[Continuation]]:
        """All responses so far."""
        return self._responses
