"""The one protocol behind which every scorer stands."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.profile.schema import ScorerSpec


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
    """What scorers of responses have in common: they remember nothing of the original model."""

    reads_responses = True

    def state(self) -> Mapping[str, Tensor]:
        """Nothing to remember."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take over."""
