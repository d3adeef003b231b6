"""The one protocol behind which every scorer stands."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.profile.schema import AccuracySpec, RefusalsSpec, ScorerSpec


class Scorer(Protocol):
    """Measures one figure of a model; the first measurement is that of the original model."""

    @property
    def spec(self) -> ScorerSpec:
        """Name, prompts and direction of optimization."""
        ...

    @property
    def reads_responses(self) -> bool:
        """Whether it needs generated text, which is slow."""
        ...

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """The model's score."""
        ...

    def decided(self, beginning: str) -> bool:
        """Whether nothing that follows this beginning of a response can change what it counts for."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What the scorer remembers of the original model."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave in an earlier session."""
        ...


class ResponseScorer:
    """What scorers of responses have in common: each counts responses, and remembers nothing of the original model."""

    reads_responses = True

    @property
    def spec(self) -> RefusalsSpec | AccuracySpec:
        """Name, prompts and direction of optimization."""
        raise NotImplementedError

    def counts(self, response: str, prompt: Prompt) -> bool | None:
        """Whether a response is one that the score counts; None where its prompt is left out."""
        raise NotImplementedError

    def counted(self, evaluation: Evaluation) -> list[bool | None]:
        """What is known of every prompt of the set before all responses are there; None for what is not."""
        found = zip(evaluation.settled(self.spec.prompts), evaluation.prompts(self.spec.prompts), strict=True)
        return [None if response is None else self.counts(response, prompt) for response, prompt in found]

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """The model's score."""
        raise NotImplementedError

    def decided(self, beginning: str) -> bool:
        """Whether nothing that follows this beginning of a response can change what it counts for."""
        raise NotImplementedError

    def bound(self, evaluation: Evaluation) -> Score:
        """The best that the score can still become: all responses that are not there yet turn out well."""
        total = sum(self.counts("", prompt) is not None for prompt in evaluation.prompts(self.spec.prompts))
        known = [one for one in self.counted(evaluation) if one is not None]
        at_most = self.spec.optimization == "maximize"
        count = sum(known) + (total - len(known) if at_most else 0)
        side = "" if len(known) == total else "≤" if at_most else "≥"
        return Score(count / max(1, total), count, total, bound=side)

    def state(self) -> Mapping[str, Tensor]:
        """Nothing to remember."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take over."""
