"""KL divergence of the ablated model from the original one."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.greedy import generate
from heretic_tui.engine.decoding.log_probabilities import answer_log_probabilities, first_token_log_probabilities
from heretic_tui.engine.records import Score
from heretic_tui.engine.scoring.evaluation import Evaluation
from heretic_tui.profile.schema import KLDivergenceSpec


class KLDivergence:
    """`KL(original || model)` in nats, averaged over prompts and, with `kl_tokens`, over positions of an answer.

    With one token it compares the distribution of the first response token; with more, the original model's own
    greedy answer is forced on the model, since first-token divergence misses damage further on.
    """

    reads_responses = False

    def __init__(self, spec: KLDivergenceSpec) -> None:
        self.spec = spec
        self.base: Tensor | None = None
        self.answers: Tensor | None = None

    def measure(self, evaluation: Evaluation) -> Job[Score]:
        """The divergence; the first measurement remembers the original model and gives 0."""
        texts = evaluation.texts(self.spec.prompts)
        title = f"{evaluation.title}: KL divergence"
        if self.answers is None and self.spec.kl_tokens > 1:
            answers = yield from generate(evaluation.model, texts, self.spec.kl_tokens, f"{title}, answers")
            self.answers = _padded([answer.tokens for answer in answers], self.spec.kl_tokens)
        found = yield from self._log_probabilities(evaluation, texts, title)
        if self.base is None:
            self.base = found
            return Score(0.0)
        # Summed over the vocabulary: the mean over positions of one KL divergence each.
        return Score(float(kl_div(found.double(), self.base.double(), log_target=True, reduction="batchmean")))

    def _log_probabilities(self, evaluation: Evaluation, texts: list[str], title: str) -> Job[Tensor]:
        """Log-probabilities `(positions, vocabulary)` over all prompts, float32."""
        if self.answers is None:
            return (yield from first_token_log_probabilities(evaluation.model, texts, title))
        answers = [tuple(row[row >= 0].tolist()) for row in self.answers]
        return torch.cat((yield from answer_log_probabilities(evaluation.model, texts, answers, title)))

    def decided(self, beginning: str) -> bool:
        """It reads no responses, so none keeps it waiting."""
        return True

    def state(self) -> Mapping[str, Tensor]:
        """The original model's log-probabilities, and its answers where they are compared."""
        state = {"base": self.base, "answers": self.answers}
        return {name: tensor for name, tensor in state.items() if tensor is not None}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Compare with the original model of an earlier session."""
        self.base, self.answers = state["base"], state.get("answers")


def _padded(answers: list[tuple[int, ...]], width: int) -> Tensor:
    """Token rows `(prompts, width)`, -1 behind an answer's end."""
    return torch.tensor([[*answer, *[-1] * (width - len(answer))] for answer in answers])
