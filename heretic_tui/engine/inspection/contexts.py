"""What a direction is about: the tokens of a prompt set along which it points most, and least, in their context."""

import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError, damaged
from heretic_tui.engine.events import Event
from heretic_tui.engine.files import write_text
from heretic_tui.engine.inspection.direction import Direction, check_width
from heretic_tui.engine.inspection.residual_sets import ORIGINAL
from heretic_tui.engine.inspection.token_view import Piece

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.reading import Subject
    from heretic_tui.engine.loading.loader import Loader
    from heretic_tui.engine.model.language_model import LanguageModel
    from heretic_tui.engine.prompts.reading import Prompt
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.profile.schema import PromptSet

AROUND = 12
"""Tokens of context that are kept before a token, and half as many behind it."""
TOP = 20
ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Context:
    """A token with its dot product, what stands before and behind it, and how many prompts begin the same way."""

    value: float
    before: str
    text: str
    behind: str
    prompt: int
    """The prompt's number in its set, from 0."""
    times: int = 1
    whole: str = ""
    """The prompt that it stands in, and at which of its tokens."""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Contexts(Event):
    """The tokens with the largest and the smallest dot products with a direction at a row, over `prompts` prompts."""

    positive: tuple[Context, ...]
    negative: tuple[Context, ...]
    prompt_set: str
    prompts: int
    tokens: int
    row: int
    trial: int
    whole: bool
    """Whether the template's tokens count, too."""
    direction: str = ""
    number: int = 0

    def as_json(self) -> dict[str, Any]:
        """The lists as plain values."""
        return {"event": "contexts", **asdict(self)}


@dataclass(slots=True)
class _Held:
    """A token that is among the best so far."""

    value: float
    prompt: int
    position: int
    times: int = 1


class TopK:
    """The k largest values seen so far, each key once; memory does not grow with what was seen."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._held: dict[bytes, _Held] = {}
        self._heap: list[tuple[float, bytes]] = []

    @property
    def limit(self) -> float:
        """What a new value must exceed."""
        return self._heap[0][0] if len(self._heap) >= self.k else -np.inf

    def offer(self, value: float, key: bytes, prompt: int, position: int) -> None:
        """Take a value in, if it is among the largest; one with a known key is counted with the first."""
        if (held := self._held.get(key)) is not None:
            held.times += held.prompt != prompt
            return
        if value <= self.limit:
            return
        if len(self._heap) >= self.k:
            del self._held[heapq.heappop(self._heap)[1]]
        heapq.heappush(self._heap, (value, key))
        self._held[key] = _Held(value, prompt, position)

    def best(self) -> list[_Held]:
        """All held, the largest first."""
        return sorted(self._held.values(), key=lambda held: (-held.value, held.prompt, held.position))


def find_contexts(
    subject: "Subject",
    direction: Direction,
    row: int,
    prompt_set: "PromptSet",
    *,
    trial: int = ORIGINAL,
    top: int = TOP,
    whole: bool = False,
    number: int = 0,
    load: "Loader | None" = None,
) -> Job[Contexts]:
    """The tokens of a prompt set whose residual vectors at `row` have the largest and smallest dot products.

    The prompts' own tokens alone count, unless `whole` takes in the template's. A token's vector depends on nothing
    behind it, so prompts that begin alike share their first tokens: such a token stands once, with its count. What
    was found is kept in the run's folder.
    """
    from heretic_tui.engine.decoding.batching import in_batches
    from heretic_tui.engine.events import Progress
    from heretic_tui.engine.inspection.pieces import own_span, pieces_of
    from heretic_tui.engine.inspection.reading import as_trial, loaded, stream_at, templated
    from heretic_tui.engine.loading.loader import load as load_model
    from heretic_tui.engine.prompts.prompt_sets import describe
    from heretic_tui.engine.prompts.reading import load_prompts

    name = describe(prompt_set)
    kept = _kept(subject.run, direction, row, trial, [name, prompt_set.model_dump_json(), top, whole])
    if kept is not None and (found := load_contexts(kept)) is not None:
        found = replace(found, direction=direction.name, number=number)
        yield found
        return found
    model = yield from loaded(subject, load or load_model)
    check_width(direction, model.facts.width, model.name)
    prompts = yield from load_prompts(prompt_set, subject.profile.system_prompt)
    up, down, seen = TopK(top), TopK(top), 0

    def compute(batch: "Sequence[Prompt]", done: int) -> Job[list[None]]:
        nonlocal seen
        texts = [templated(model, prompt) for prompt in batch]
        encoded = model.encode(texts)
        values = (stream_at(model, encoded, row).numpy() @ direction.vector).astype(np.float32)
        ids, mask = encoded.ids.cpu().numpy(), encoded.mask.cpu().numpy()
        for index, prompt in enumerate(batch):
            row_ids = ids[index][mask[index] > 0]
            counted = _counted(model, texts[index], prompt.text, len(row_ids), whole)
            seen += int(counted.sum())
            _offer(up, down, values[index][mask[index] > 0], counted, row_ids, done + index)
        yield Progress("tokens of the prompts", done + len(batch), len(prompts), "prompts")
        return [None] * len(batch)

    def told(held: _Held) -> Context:
        prompt = prompts[held.prompt]
        text = templated(model, prompt)
        pieces = pieces_of(model.tokenizer, text, own_span(text, prompt.text))
        return _context(pieces, prompt.text, held)

    with as_trial(model, subject.run, trial):
        yield from in_batches(model, prompts, compute)
    positive = tuple(told(held) for held in up.best())
    negative = tuple(replace(one, value=-one.value) for one in map(told, down.best()))
    contexts = Contexts(positive, negative, name, len(prompts), seen, row, trial, whole, direction.name, number)
    if kept is not None:
        write_text(kept, json.dumps(asdict(contexts), ensure_ascii=False) + "\n")
    yield contexts
    return contexts


def _counted(model: "LanguageModel", text: str, prompt: str, length: int, whole: bool) -> NDArray[np.bool_]:
    """Which tokens of a templated prompt are looked at."""
    from heretic_tui.engine.inspection.pieces import own_span, pieces_of

    if whole:
        return np.ones(length, dtype=bool)
    pieces = pieces_of(model.tokenizer, text, own_span(text, prompt))
    own = np.array([piece.own and not piece.special for piece in pieces], dtype=bool)
    return own if len(own) == length and own.any() else np.ones(length, dtype=bool)


def _offer(
    up: TopK, down: TopK, values: NDArray[np.float32], counted: NDArray[np.bool_], ids: NDArray[np.int64], prompt: int
) -> None:
    places: list[int] = np.flatnonzero(counted & np.isfinite(values)).tolist()
    # Another batch rounds otherwise: what is as large as the last one held, but for that, may be the same once more.
    high, low = (top.limit - ROUNDING * abs(top.limit) if np.isfinite(top.limit) else -np.inf for top in (up, down))
    hopeful = [place for place in places if values[place] >= high or -values[place] >= low]
    if not hopeful:
        return
    # All tokens up to this one decide its vector: they are what tells it from others.
    digest, keys, last = sha256(), dict[int, bytes](), 0
    for place in hopeful:
        digest.update(ids[last : place + 1].astype(np.int64).tobytes())
        keys[place], last = digest.digest(), place + 1
    for place in hopeful:
        up.offer(float(values[place]), keys[place], prompt, place)
        down.offer(-float(values[place]), keys[place], prompt, place)


def _context(pieces: Sequence[Piece], prompt: str, held: _Held) -> Context:
    def text(some: Sequence[Piece]) -> str:
        return "".join(piece.text for piece in some)

    place = held.position
    own = pieces[place].own  # the template around a prompt tells nothing about a token inside it
    return Context(
        held.value,
        text([piece for piece in pieces[max(0, place - AROUND) : place] if piece.own or not own]),
        pieces[place].text,
        text([piece for piece in pieces[place + 1 : place + 1 + AROUND // 2] if piece.own or not own]),
        held.prompt,
        held.times,
        prompt,
        held.position,
    )


def _kept(run: "Run | None", direction: Direction, row: int, trial: int, rest: list[Any]) -> Path | None:
    """Where a run keeps an answer: named after all that decides it."""
    from heretic_tui.engine.inspection.residual_sets import inspection_path

    if run is None:
        return None
    asked = json.dumps([row, trial, *rest]).encode()
    return inspection_path(run, f"contexts-{sha256(direction.vector.tobytes() + asked).hexdigest()[:16]}.json")


def load_contexts(path: Path) -> Contexts | None:
    """What was kept, or None. Raises `EngineError` where the file is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        positive, negative = (tuple(Context(**one) for one in data.pop(key)) for key in ("positive", "negative"))
        return Contexts(positive, negative, **data)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
