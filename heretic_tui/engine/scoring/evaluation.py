"""The model as it stands at one moment, asked what the scorers need: each prompt set is answered once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.greedy import Continuation, Decided, generate
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.prompt_sets import SetKey, describe, set_key
from heretic_tui.engine.prompts.reading import Prompt
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
    """One measurement of one state of the weights; `title` names it in progress events.

    Whenever responses came to their end, `enough` is asked whether the rest is not needed; `stopped` holds from then
    on, and no set is answered any more. `first` ranks a set's prompts: the highest are answered first.
    """

    model: LanguageModel
    sets: Mapping[SetKey, EvaluationSet]
    max_tokens: int
    title: str
    enough: Callable[[], bool] | None = None
    first: Mapping[SetKey, Sequence[float]] = field(default_factory=dict)
    stopped: bool = False
    seconds: float = 0.0
    """Seconds spent on generating responses."""
    _responses: dict[SetKey, list[Continuation]] = field(default_factory=dict)
    _settled: dict[SetKey, dict[int, Continuation]] = field(default_factory=dict)

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
            settled = self._settled.setdefault(key, {})

            def over(found: Mapping[int, Continuation]) -> bool:
                settled.update(found)
                self.stopped = self.enough is not None and self.enough()
                return self.stopped

            began = time.perf_counter()
            self._responses[key] = yield from generate(
                self.model,
                self.texts(prompt_set),
                self.max_tokens,
                f"{self.title}: responses",
                self.sets[key].decided,
                over,
                self.first.get(key),
            )
            self.seconds += time.perf_counter() - began
        return self._responses[key]

    def settled(self, prompt_set: PromptSet) -> list[str | None]:
        """The responses to a set that came to their end, in its order; None for those that did not."""
        found = self._settled.get(set_key(prompt_set), {})
        count = len(self.prompts(prompt_set))
        return [found[index].text if index in found else None for index in range(count)]

    @property
    def answered(self) -> Mapping[SetKey, list[Continuation]]:
        """All responses so far."""
        return self._responses

    @property
    def tokens(self) -> int:
        """Tokens that were generated."""
        return sum(len(one.tokens) for found in self._responses.values() for one in found)
