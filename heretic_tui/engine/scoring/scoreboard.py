"""All scorers of a study together: what is measured of every trial."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from heretic_tui.engine.background import Job
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.prompt_sets import SetKey, describe, set_key
from heretic_tui.engine.prompts.reading import check_lengths, load_prompts
from heretic_tui.engine.records import Response, Score
from heretic_tui.engine.scoring.accuracy import Accuracy
from heretic_tui.engine.scoring.evaluation import Evaluation, EvaluationSet
from heretic_tui.engine.scoring.kl_divergence import KLDivergence
from heretic_tui.engine.scoring.labels import label
from heretic_tui.engine.scoring.refusals import Refusals
from heretic_tui.engine.scoring.scorer import ResponseScorer, Scorer
from heretic_tui.engine.storage.early_end import Counted, Tally
from heretic_tui.profile.schema import AccuracySpec, KLDivergenceSpec, Profile, RefusalsSpec, ScorerSpec


@dataclass(frozen=True, slots=True)
class Measurement:
    """Scores by name in the profile's order, and every response that they were read from.

    Of a measurement that ended early the scores are bounds, and responses are missing or not whole. `timing` holds the
    seconds of its parts and the tokens generated a second.
    """

    scores: Mapping[str, Score]
    responses: tuple[Response, ...]
    ended_early: bool = False
    counted: Counted = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)


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

    def measure(
        self,
        model: LanguageModel,
        title: str,
        beaten: Callable[[Mapping[str, Score]], bool] | None = None,
        first: Mapping[SetKey, Sequence[float]] | None = None,
    ) -> Job[Measurement]:
        """Score the model as it stands; what needs no generated text comes first, because it is cheap.

        The measurement ends as soon as `beaten` holds for what its scores can still become at best. `first` ranks the
        prompts of sets: the highest are answered first, so that the bounds come near the scores soon.
        """
        evaluation = Evaluation(model, self.sets, self.profile.max_response_length, title, first=first or {})
        scores: dict[str, Score] = {}

        def bounds() -> dict[str, Score]:
            found = {reader.spec.name: reader.bound(evaluation) for reader in self.readers} | scores
            return {scorer.spec.name: found[scorer.spec.name] for scorer in self.scorers}

        def ended_early() -> bool:
            return evaluation.stopped and any(None in evaluation.settled(one.spec.prompts) for one in self.readers)

        began = time.perf_counter()
        for scorer in self.scorers:
            if not scorer.reads_responses:
                scores[scorer.spec.name] = yield from scorer.measure(evaluation)
        timing = {"divergence": time.perf_counter() - began}
        if beaten is not None:
            evaluation.enough = lambda: beaten(bounds())
            evaluation.stopped = evaluation.enough()
        for reader in self.readers:
            if ended_early():
                break
            score = yield from reader.measure(evaluation)
            if not ended_early():
                scores[reader.spec.name] = score
        timing |= {"decoding": evaluation.seconds, "tokens": evaluation.tokens}
        responses, counted = (
            self._labelled(evaluation),
            {one.spec.name: one.counted(evaluation) for one in self.readers},
        )
        return Measurement(bounds(), tuple(responses), ended_early(), counted, timing)

    @property
    def readers(self) -> list[ResponseScorer]:
        """The scorers that need generated text; those that are optimized come first, since they end a trial."""
        found = [scorer for scorer in self.scorers if isinstance(scorer, ResponseScorer)]
        return sorted(found, key=lambda scorer: scorer.spec.optimization == "none")

    def counted(self, responses: Sequence[Response]) -> Counted:
        """What every scorer counts among the responses of a whole measurement, as they were kept."""
        found = {}
        for scorer in self.readers:
            known = self.sets[set_key(scorer.spec.prompts)]
            own = [response.response for response in responses if response.prompt_set == known.name]
            if len(own) == len(known.prompts):
                found[scorer.spec.name] = [
                    scorer.counts(text, prompt) for text, prompt in zip(own, known.prompts, strict=True)
                ]
        return found

    def first(self, tally: Tally) -> dict[SetKey, list[float]]:
        """How likely each prompt's response is to make an objective worse, by set; the likeliest are answered first."""
        found: dict[SetKey, list[float]] = {}
        for scorer in self.readers:
            shares = tally.shares(scorer.spec.name)
            if shares is None or scorer.spec.optimization == "none":
                continue
            worse = [1 - share for share in shares] if scorer.spec.optimization == "maximize" else shares
            key = set_key(scorer.spec.prompts)
            found[key] = [max(pair) for pair in zip(worse, found.get(key, worse), strict=True)]
        return found

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
                if continuation.ended == "stopped" and not continuation.tokens:
                    continue  # it was never asked
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
