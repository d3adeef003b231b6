"""Prompts through the model with hooks at every layer: the residual stream at every token."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Progress
from heretic_tui.engine.inspection.pieces import own_span, pieces_of
from heretic_tui.engine.inspection.residual_sets import ORIGINAL
from heretic_tui.engine.inspection.token_view import TokenReading, TokensRead
from heretic_tui.engine.loading.loader import Loader, load
from heretic_tui.engine.memory import out_of_memory
from heretic_tui.engine.model.language_model import Encoded, LanguageModel, positions
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.formats import size

if TYPE_CHECKING:
    from heretic_tui.profile.schema import Profile

MOST_BYTES = 2_000_000_000
"""What the residual stream of one prompt may take in memory."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is inspected: a run with its model and profile, or a model alone with a profile."""

    model_name: str
    profile: "Profile"
    run: Run | None = None

    @staticmethod
    def of_run(run: Run) -> "Subject":
        """A run's own model and profile."""
        return Subject(run.model_name, run.profile, run)


def loaded(subject: Subject, load: Loader = load) -> Job[LanguageModel]:
    """The subject's model, with the batch size and the response prefix that its run has settled."""
    model = yield from load(subject.model_name, subject.profile)
    known = subject.run.model() if subject.run is not None else None
    if known is not None and known[1] is not None:
        model.batch_size, model.response_prefix = known[1].batch_size, known[1].response_prefix
    else:
        model.batch_size = subject.profile.batch_size or 8
        model.response_prefix = subject.profile.response_prefix or ""
    return model


def as_trial(model: LanguageModel, run: Run | None, trial: int) -> AbstractContextManager[None]:
    """Holds the model as a trial of the run ablates it; as it is for the original."""
    if trial == ORIGINAL:
        return nullcontext()
    if run is None or not (run.path / DIRECTIONS).is_file():
        raise EngineError(f"There is no run to take trial {trial} from.", "Choose a run with trials.")
    directions = load_directions(run.path / DIRECTIONS)
    if directions.vectors.shape != (model.facts.layers + 1, model.facts.width):
        raise EngineError(f"{model.name} is not the model of {run.name}.", "Choose a run of this model.")
    return ablated(model, directions, run.record(trial).parameters, style_of(run.profile))


def read_tokens(
    subject: Subject,
    prompt: str,
    trials: Sequence[int] = (ORIGINAL,),
    *,
    system_prompt: str | None = None,
    number: int = 0,
    load: Loader = load,
) -> Job[list[TokenReading]]:
    """One forward pass a state of the model over a templated prompt: its tokens, and the stream at each of them.

    The system prompt is the profile's unless another is given. Raises `EngineError` for an empty prompt, and one that
    is too long.
    """
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to a tokenizer
    if not prompt.strip():
        raise EngineError("There is no prompt to read.", "Type one, or take one from a prompt set.")
    model = yield from loaded(subject, load)
    system = subject.profile.system_prompt if system_prompt is None else system_prompt
    text = model.template(prompt, system)
    pieces = pieces_of(model.tokenizer, text, own_span(text, prompt))
    _check_length(model, len(pieces))
    readings = []
    for done, trial in enumerate(trials):
        yield Progress("tokens", done, len(trials), "forward passes")
        with as_trial(model, subject.run, trial):
            reading = TokenReading(prompt, pieces, streams(model, text).numpy(), trial)
        yield TokensRead(reading, number)
        readings.append(reading)
    return readings


def streams(model: LanguageModel, text: str) -> Tensor:
    """The residual stream `(tokens, layers + 1, d_model)` of one templated text, float32 on the host."""
    batch = model.encode([text])
    try:
        with torch.inference_mode(), _rows_captured(model.layers, range(len(model.layers) + 1)) as rows:
            _forward(model, batch)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise EngineError("Memory ran out while the prompt was read.", "Read a shorter prompt.") from error
    return torch.stack([rows[row][0] for row in sorted(rows)], dim=1)


def stream_at(model: LanguageModel, batch: Encoded, row: int) -> Tensor:
    """The stream `(prompts, tokens, d_model)` at one row, float32 on the host; later layers are not computed."""
    with torch.inference_mode(), _rows_captured(model.layers, [row], stop=True) as rows:
        with suppress(_Reached):
            _forward(model, batch)
        return rows[row]


class _Reached(Exception):
    """Ends a forward pass at the last layer that is wanted."""


@contextmanager
def _rows_captured(
    layers: Sequence[nn.Module], wanted: Sequence[int], *, stop: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Keep the whole stream `(batch, tokens, d_model)` at some rows, float32 on the host; hooks always go again."""
    rows: dict[int, Tensor] = {}

    def keep(row: int, stream: Tensor) -> None:
        rows[row] = stream.detach().float().cpu()
        if stop and len(rows) == len(wanted):
            raise _Reached

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        keep(0, args[0] if args else options["hidden_states"])

    def after(row: int) -> Any:
        return lambda _, __, output: keep(row, output[0] if isinstance(output, tuple) else output)

    handles = []
    try:
        for row in wanted:
            if row == 0:
                handles.append(layers[0].register_forward_pre_hook(before, with_kwargs=True))
            else:
                handles.append(layers[row - 1].register_forward_hook(after(row)))
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _forward(model: LanguageModel, batch: Encoded) -> None:
    options: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if "position_ids" in model.forward_names:
        options["position_ids"] = positions(batch.mask)
    model.network.base_model(**options)


def _check_length(model: LanguageModel, tokens: int) -> None:
    limit = model.facts.context_length
    if limit is not None and tokens > limit:
        raise EngineError(
            f"The prompt is {tokens} tokens long with its template, the model's context {limit}.", "Shorten it."
        )
    needed = tokens * (model.facts.layers + 1) * model.facts.width * 4
    if needed > MOST_BYTES:
        raise EngineError(
            f"The residual stream of {tokens} tokens takes {size(needed)} of memory; {size(MOST_BYTES)} is the most.",
            "Shorten the prompt.",
        )


def templated(model: LanguageModel, prompt: Prompt) -> str:
    """A prompt as the model sees it."""
    return model.template(prompt.text, prompt.system_prompt)
