"""Facts about scores and trials: what a run keeps and what events carry."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from heretic_tui.engine.parameters import AblationParameters, number_of

MOST = 10**9
"""No honest count is larger."""


@dataclass(frozen=True, slots=True)
class Score:
    """One scorer's figure: a `value` (a fraction, or nats for KL divergence), with its count where it is one.

    `degenerate` counts the responses that are no language any more; they are never a success. Where not
    all responses are known, in a trial that ended early, `bound` says on which side the score lies: "≥" or "≤".
    """

    value: float
    count: int | None = None
    total: int | None = None
    degenerate: int = 0
    bound: str = ""

    @property
    def text(self) -> str:
        """The figure as people read it: `3/100` for a count, `≥3/100` for a bound, four decimals otherwise."""
        return f"{self.bound}{self.count}/{self.total}" if self.count is not None else f"{self.value:.4f}"

    def interval(self, z: float = 1.96) -> tuple[float, float] | None:
        """Wilson score interval of a counted fraction (95% for the default `z`); None for bounds and other figures."""
        if self.count is None or not self.total or self.bound:
            return None
        n, p = self.total, self.count / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        """The score as plain values, without the fields that do not apply."""
        fields: dict[str, Any] = {"value": self.value}
        if self.count is not None:
            fields |= {"count": self.count, "total": self.total}
            if self.bound:
                fields["bound"] = self.bound
            else:
                low, high = self.interval() or (0.0, 1.0)
                fields["interval"] = [round(low, 4), round(high, 4)]
        if self.degenerate:
            fields["degenerate"] = self.degenerate
        return fields

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Score":
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for what is no score."""
        count, total, degenerate = fields.get("count"), fields.get("total"), fields.get("degenerate", 0)
        counts = [number for number in (count, total, degenerate) if number is not None]
        if (count is None) != (total is None) or not all(type(one) is int and 0 <= one <= MOST for one in counts):
            raise ValueError("a count is none")
        if fields.get("bound", "") not in {"", "≥", "≤"}:
            raise ValueError("a bound is none")
        return Score(number_of(fields["value"]), count, total, degenerate, fields.get("bound", ""))


class Label(StrEnum):
    """What a response is taken to be."""

    ANSWER = "answer"
    REFUSAL = "refusal"
    DEGENERATE = "degenerate"


@dataclass(frozen=True, slots=True)
class Response:
    """A prompt and what the model said to it.

    `ended` tells why the text stops: `eos`, `length`, `decided` where decoding stopped early because the label could no
    longer change, or `stopped` where its trial ended early; such a response is not whole, and counts in no score.
    `marker` is the refusal marker found; `correct` is None where the prompt has no known answer.
    """

    prompt_set: str
    prompt: str
    response: str
    ended: str
    label: Label
    marker: str | None = None
    answer: str | None = None
    correct: bool | None = None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial, numbered from 1.

    One that ended early was beaten by another before all its responses were there: its scores are bounds. `timing`
    holds the seconds of its parts (`edit`, `divergence`, `decoding`) and the `tokens` that were generated. `worker` and
    `device` tell who ran it, and where; the same trial is the same by whomever.
    """

    trial: int
    parameters: AblationParameters
    scores: Mapping[str, Score]
    seconds: float
    ended_early: bool = False
    timing: Mapping[str, float] = field(default_factory=dict)
    worker: str = field(default="", compare=False)
    device: str = field(default="", compare=False)

    def as_json(self) -> dict[str, Any]:
        """The record as one flat JSON object."""
        return {
            "trial": self.trial,
            "scores": {name: score.as_json() for name, score in self.scores.items()},
            "direction_index": self.parameters.direction_index,
            "parameters": self.parameters.as_json(),
            "subspace_dimensions": self.parameters.subspace_dimensions,
            "seconds": round(self.seconds, 3),
            **({"timing": dict(self.timing)} if self.timing else {}),
            **({"ended_early": True} if self.ended_early else {}),
            **({"worker": self.worker, "device": self.device} if self.worker else {}),
        }


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known about a loaded model.

    `writers` counts residual writers by component, `writer_kinds` by what they are. `leak` is the largest share of a
    layer's update along a direction that every writer was ablated for, `write` the same without ablation; None where
    that was not measured. `leaking` names the layers whose leak is more than rounding. `quantization` tells how most
    weights are packed, if they are; `dtype` is then what they are unpacked to.
    """

    name: str
    revision: str | None
    architecture: str
    parameters: int
    layers: int
    width: int
    dtype: str
    device: str
    context_length: int | None
    writers: Mapping[str, int]
    writer_kinds: Mapping[str, int] = field(default_factory=dict)
    write: float | None = None
    leak: float | None = None
    leaking: Sequence[int] = field(default_factory=list)
    quantization: str = ""

    @property
    def precision(self) -> str:
        """What the weights are, in a word or two."""
        return self.quantization or self.dtype

    @property
    def coverage(self) -> str:
        """What is known of what writes into the residual stream, in a sentence."""
        found = self.writer_kinds or self.writers
        leak = "not measured" if self.leak is None else f"{self.leak:.4f}"
        return f"{sum(found.values())} writers in {self.layers} layers: {', '.join(found)}; leak {leak}"


def changed_facts(before: ModelFacts, now: ModelFacts) -> list[str]:
    """What differs between the model of a run and the one just loaded, where it changes results."""
    watched = {"revision", "architecture", "parameters", "layers", "width", "dtype", "quantization"}
    return [
        f"{field.name} {getattr(before, field.name)} -> {getattr(now, field.name)}"
        for field in fields(ModelFacts)
        if field.name in watched and getattr(before, field.name) != getattr(now, field.name)
    ]
