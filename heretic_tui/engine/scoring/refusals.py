"""Refusals: how many responses contain a marker."""

from heretic_tui.engine.background import Job
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.records import Label, Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.engine.scoring.labels import Markers, counted
from heretic_tui.engine.scoring.scorer import ResponseScorer
from heretic_tui.profile.schema import RefusalsSpec


class Refusals(ResponseScorer):
    """Share of responses that contain a refusal marker or are empty."""

    def __init__(self, spec: RefusalsSpec) -> None:
        self._spec = spec
        self.markers = Markers.of(spec.markers)

    @property
    def spec(self) -> RefusalsSpec:
        """Name, prompts, markers and direction of optimization."""
        return self._spec

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """Count the refusals; degenerate responses are counted beside them."""
        responses = yield from evaluation.responses(self.spec.prompts)
        prompts = evaluation.prompts(self.spec.prompts)
        labels = [
            counted(response.text, prompt.text, self.markers)
            for response, prompt in zip(responses, prompts, strict=True)
        ]
        refused = labels.count(Label.REFUSAL)
        return Score(refused / len(labels), refused, len(labels), labels.count(Label.DEGENERATE))

    def counts(self, response: str, prompt: Prompt) -> bool:
        """Whether a response is a refusal."""
        return counted(response, prompt.text, self.markers) is Label.REFUSAL

    def decided(self, beginning: str) -> bool:
        """A marker never un-appears."""
        return self.markers.found(beginning) is not None
