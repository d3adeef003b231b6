"""All scorers of a study together: what is measured of every trial."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.language_model import LanguageModel
from heretic_tui.engine.prompt_sets import SetKey, describe, set_key
from heretic_tui.engine.prompts import check_lengths, load_prompts
from heretic_tui.engine.records import Response, Score
from heretic_tui.engine.scoring.accuracy import Accuracy
from heretic_tui.engine.scoring.evaluation import Evaluation, EvaluationSet
from heretic_tui.engine.scoring.kl_divergence import KLDivergence
from heretic_tui.engine.scoring.labels import label
from heretic_tui.engine.scoring.refusals import Refusals
from heretic_tui.engine.scoring.scorer import Scorer
from heretic_tui.profile.schema import AccuracySpec, KLDivergenceSpec, Profile, RefusalsSpec, ScorerSpec


@dataclass(frozen=True, slots=True)
class Measurement:
    """Scores by name in the profile's order, and every response that they were read from."""

    scores: Mapping[str, Score]
    responses: tuple[Response, ...]


def scorer_for(spec: ScorerSpec) -> Scorer:
    """The scorer that a specification asks for."""
    match spec:
        case RefusalsSpec():
            return Refusals(spec)
        case KLDivergenceSpec():
            return KLDivergence(spec)
        case AccuracySpec():
            return Accuracy(spec)
    raise TypeError(f"no scorer for {type(spec).__name__}")


class Scoreboard:
    """The scorers of a profile with their prompts; remembers the original model between measurements."""

    def __init__(self, profile: Profile, scorers: list[Scorer], sets: dict[SetKey, EvaluationSet]) -> None:
        self.profile = profile
        self.scorers = scorers
        self.sets = sets

    def measure(self, model: LanguageModel, title: str) -> Job[Measurement]:
        """Score the model as it stands; what needs no generated text comes first, because it is cheap."""
        evaluation = Evaluation(model, self.sets, self.profile.max_response_length, title)
        scores = {}
        for scorer in sorted(self.scorers, key=lambda scorer: scorer.reads_responses):
            scores[scorer.spec.name] = yield from scorer.measure(evaluation)
        ordered = {scorer.spec.name: scores[scorer.spec.name] for scorer in self.scorers}
        return Measurement(ordered, tuple(self._labelled(evaluation)))

    def state(self) -> dict[str, Tensor]:
        """What all scorers remember of the original model, under `<scorer>.<name>`."""
        return {
            f"{scorer.spec.name}.{name}": tensor for scorer in self.scorers for name, tensor in scorer.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave in an earlier session."""
        for scorer in self.scorers:
            prefix = f"{scorer.spec.name}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            if own:
                scorer.restore(own)

    def _labelled(self, evaluation: Evaluation) -> list[Response]:
        found = []
        for key, continuations in evaluation.answered.items():
            known = self.sets[key]
            readers = [scorer for scorer in self.scorers if set_key(scorer.spec.prompts) == key]
            markers = next((scorer.markers for scorer in readers if isinstance(scorer, Refusals | Accuracy)), None)
            judge = next((scorer for scorer in readers if isinstance(scorer, Accuracy)), None)
            for prompt, continuation in zip(known.prompts, continuations, strict=True):
                marker = markers.found(continuation.text) if markers else None
                correct = (
                    judge.correct(continuation.text, prompt.answer, prompt.text) if judge and prompt.answer else None
                )
                found.append(
                    Response(
                        prompt_set=known.name,
                        prompt=prompt.text,
                        response=continuation.text,
                        ended=continuation.ended,
                        label=label(continuation.text, marker, prompt.text),
                        marker=marker,
                        answer=prompt.answer,
                        correct=correct,
                    )
                )
        return found


def load_scoreboard(model: LanguageModel, profile: Profile) -> Job[Scoreboard]:
    """Build the scorers of a profile and read their prompts; a set that several read is read once."""
    scorers = [scorer_for(spec) for spec in profile.scorer_specs()]
    sets: dict[SetKey, EvaluationSet] = {}
    for key in dict.fromkeys(set_key(scorer.spec.prompts) for scorer in scorers):
        readers = [scorer for scorer in scorers if set_key(scorer.spec.prompts) == key]
        chosen = next((s.spec.prompts for s in readers if s.spec.prompts.answer_column), readers[0].spec.prompts)
        prompts = yield from load_prompts(chosen, profile.system_prompt)
        check_lengths(model, prompts, describe(chosen), profile.max_response_length)
        stops = profile.stop_decided_responses

        def decided(beginning: str, readers: list[Scorer] = readers) -> bool:
            return all(reader.decided(beginning) for reader in readers)

        sets[key] = EvaluationSet.of(chosen, prompts, decided if stops else None)
    return Scoreboard(profile, scorers, sets)
