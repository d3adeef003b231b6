"""Refusals: how many responses contain a marker."""

from heretic_tui.engine.background import Job
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.engine.scoring.labels import Markers, degenerate
from heretic_tui.engine.scoring.scorer import ResponseScorer
from heretic_tui.profile.schema import RefusalsSpec


class Refusals(ResponseScorer):
    """Share of responses that contain a refusal marker or are empty."""

    def __init__(self, spec: RefusalsSpec) -> None:
        self.spec = spec
        self.markers = Markers.of(spec.markers)

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """Count the refusals; degenerate responses are counted beside them."""
        responses = yield from evaluation.responses(self.spec.prompts)
        texts = [response.text for response in responses]
        refused = [self.markers.found(text) is not None or not text.strip() for text in texts]
        lost = sum(
            degenerate(text, prompt.text)
            for text, prompt, refusal in zip(texts, evaluation.prompts(self.spec.prompts), refused, strict=True)
            if not refusal
        )
        return Score(sum(refused) / len(texts), sum(refused), len(texts), lost)

    def decided(self, beginning: str) -> bool:
        """A marker never un-appears."""
        return self.markers.found(beginning) is not None
