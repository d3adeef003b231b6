"""All that ever leaves a job: frozen facts made of plain values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from heretic_tui.engine.records import ModelFacts, Score, TrialRecord
from heretic_tui.masking import masked


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a job; `as_json` gives the same fact as one JSON object."""

    replaceable: ClassVar[bool] = False
    """Whether a newer event of the same kind makes this one worthless to a slow listener."""

    def as_json(self) -> dict[str, Any]:
        """The event as plain JSON values, named by `event`."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        return {"event": name} | {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "as_json"):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, ModelFacts):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value


@dataclass(frozen=True, slots=True)
class Tick(Event):
    """Nothing new: a chance for the listener to stop the job."""

    replaceable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far a phase has come; `total` is None where it is not known, `done` counts `unit`s."""

    replaceable: ClassVar[bool] = True

    phase: str
    done: float
    total: float | None
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseFinished(Event):
    """A phase is over."""

    phase: str
    seconds: float
    result: str = ""


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something that the user should know and that does not stop the job."""

    text: str
    level: Literal["info", "warning"] = "info"

    def __post_init__(self) -> None:
        """Hide what a library's words may hold."""
        object.__setattr__(self, "text", masked(self.text))


@dataclass(frozen=True, slots=True)
class ModelLoaded(Event):
    """A model is in memory and ready."""

    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class RunOpened(Event):
    """The run's folder is there; `finished` of `trials` trials were done before."""

    run: str
    path: Path
    resumed: bool
    finished: int
    trials: int


@dataclass(frozen=True, slots=True)
class BaselineMeasured(Event):
    """The original model's scores."""

    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class TrialStarted(Event):
    """Trial number `trial` of `trials` begins."""

    trial: int
    trials: int


@dataclass(frozen=True, slots=True)
class TrialFinished(Event):
    """A trial was scored and stands in the journal."""

    record: TrialRecord
    on_front: bool

    def as_json(self) -> dict[str, Any]:
        """The record's fields beside the event's name, so that a line is one flat object."""
        return {"event": "trial_finished", **self.record.as_json(), "on_front": self.on_front}


@dataclass(frozen=True, slots=True)
class StudyFinished(Event):
    """The wanted number of trials is reached; `front` holds the trials of the Pareto front.

    `timing` tells in seconds where time went: loading and start of this session, the parts of all trials, and the
    tokens that these generated.
    """

    run: str
    path: Path
    trials: int
    front: tuple[int, ...]
    seconds: float
    timing: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exported(Event):
    """A model or an adapter was written; `error` is the adapter's worst relative error against the exact edit."""

    trial: int
    to: Path
    form: Literal["merged", "adapter"]
    size: int
    rank: int | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """A merged export is in order: `changed` tensors are the exact edit, `identical` ones are bit for bit the source's.

    `tied` and `unknown` name tensors of the source's files that the export lacks: those that stand in it under another
    name, and those that the loaded class does not know. A merge of the source's own files lacks none: it has
    `kept` those that the loaded class does not know, such as a vision part.
    """

    trial: int
    tensors: int
    changed: int
    identical: int
    tied: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated(Event):
    """Scores of a model against its base; of an export also its trial's, and what the weights of both were.

    Where those differ, because the trial's were in 4 bits, so do the scores a little; that is no fault.
    """

    model: str
    base: str
    scores: Mapping[str, Score]
    base_scores: Mapping[str, Score]
    trial_scores: Mapping[str, Score] = field(default_factory=dict)
    trial_weights: str = ""
    weights: str = ""


@dataclass(frozen=True, slots=True)
class TextGenerated(Event):
    """A piece of a streamed answer; `column` counts the answers of one chat job from 0."""

    text: str
    column: int = 0


@dataclass(frozen=True, slots=True)
class AnswerFinished(Event):
    """A streamed answer is whole: `ended` tells whether by itself (`eos`) or at the limit of tokens (`length`)."""

    column: int
    text: str
    tokens: int
    seconds: float
    ended: str


@dataclass(frozen=True, slots=True)
class PromptsPreviewed(Event):
    """The first prompts of a set of `total`: `templated` after the model's chat template, else as they stand.

    `problem` says why the set cannot be read; empty where it can.
    """

    prompt_set: str
    total: int
    texts: tuple[str, ...]
    templated: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Measured(Event):
    """Residual vectors of both prompt sets were measured and stand in the run's folder; trial 0 is the original model.

    `places` counts where in the stream they were taken, `size` the bytes that they take.
    """

    run: str
    path: Path
    trial: int
    prompts: tuple[int, int]
    places: int
    width: int
    size: int


@dataclass(frozen=True, slots=True)
class GeometryMeasured(Event):
    """The geometry of a run's original model was measured, as its profile asks for, and stands in its folder."""

    run: str
    path: Path
