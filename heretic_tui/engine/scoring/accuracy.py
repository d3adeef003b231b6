"""Accuracy: how many responses hold the known answer."""

from heretic_tui.engine.background import Job
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.engine.scoring.labels import Markers, contains_answer, degenerate
from heretic_tui.engine.scoring.scorer import ResponseScorer
from heretic_tui.profile.schema import AccuracySpec


class Accuracy(ResponseScorer):
    """Share of prompts with a known answer whose response holds it and is neither a refusal nor degenerate."""

    def __init__(self, spec: AccuracySpec) -> None:
        self._spec = spec
        self.markers = Markers.of(spec.markers)

    @property
    def spec(self) -> AccuracySpec:
        """Name, prompts, markers and direction of optimization."""
        return self._spec

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """Count the correct responses."""
        responses = yield from evaluation.responses(self.spec.prompts)
        prompts = evaluation.prompts(self.spec.prompts)
        found = (self.counts(response.text, prompt) for response, prompt in zip(responses, prompts, strict=True))
        correct = [one for one in found if one is not None]
        return Score(sum(correct) / max(1, len(correct)), sum(correct), len(correct))

    def counts(self, response: str, prompt: Prompt) -> bool | None:
        """Whether a response is correct; None where no answer is known."""
        return None if prompt.answer is None else self.correct(response, prompt.answer, prompt.text)

    def correct(self, response: str, answer: str, prompt: str) -> bool:
        """Whether one response counts."""
        return (
            contains_answer(response, answer)
            and self.markers.found(response) is None
            and not degenerate(response, prompt)
        )

    def decided(self, beginning: str) -> bool:
        """A response with a marker is never correct, whatever follows."""
        return self.markers.found(beginning) is not None
