"""Accuracy: how many responses hold the known answer."""

from heretic_tui.engine.background import Job
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.engine.scoring.labels import Markers, contains_answer, degenerate
from heretic_tui.engine.scoring.scorer import ResponseScorer
from heretic_tui.profile.schema import AccuracySpec


class Accuracy(ResponseScorer):
    """Share of prompts with a known answer whose response holds it and is neither a refusal nor degenerate."""

    def __init__(self, spec: AccuracySpec) -> None:
        self.spec = spec
        self.markers = Markers.of(spec.markers)

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """Count the correct responses."""
        responses = yield from evaluation.responses(self.spec.prompts)
        prompts = evaluation.prompts(self.spec.prompts)
        correct = [
            self.correct(response.text, prompt.answer, prompt.text)
            for response, prompt in zip(responses, prompts, strict=True)
            if prompt.answer is not None
        ]
        return Score(sum(correct) / max(1, len(correct)), sum(correct), len(correct))

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
