"""What is said of a model or a run beside the lists: facts, whether it fits, and what to do next."""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.records import ModelFacts
from heretic_tui.formats import ago, brief, clock, heading, size
from heretic_tui.screens.models.lists import short_name
from heretic_tui.screens.study.watching import SILENT
from heretic_tui.widgets.sheet import Fact, Line, Meter, Words

if TYPE_CHECKING:
    from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts
    from heretic_tui.engine.checkpoints.fit import Fit
    from heretic_tui.engine.memory import MemoryReading
    from heretic_tui.engine.runs.live import Running, Worker
    from heretic_tui.engine.runs.summary import RunSummary
    from heretic_tui.profile.schema import Profile
    from heretic_tui.state import StudyView

PROMPT_TOKENS = 128
"""Tokens that a prompt with its template is taken to have; most are shorter."""
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}
WELCOME = (
    Words("Take a behaviour out of a language model, and see what it costs."),
    Words(),
    Fact("d", "try the embedded demo, offline, in about a minute", "bold", "bold $accent"),
    Fact("i", "name a model: a hub id or a path", mark="bold $accent"),
    Fact("s", "study the model that is selected", mark="bold $accent"),
    Fact("?", "help, here and everywhere", mark="bold $accent"),
)
"""What a person sees who has no runs yet."""
DEMO = "The embedded demo answers small questions, and politely refuses them when they come from a sealed archive."


def count(number: int) -> str:
    """A number of parameters: 4.02 B, 135 M."""
    for unit, one in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= one:
            return f"{number / one:.3g} {unit}"
    return str(number)


def facts_lines(facts: "CheckpointFacts") -> list[Line]:
    """What the files of a model say before it is loaded."""
    known = count(facts.parameters) if facts.parameters else "only loading would tell"
    lines: list[Line] = [
        Fact("parameters", known),
        Fact("architecture", facts.architecture),
        Fact("layers", f"{facts.layers}, {facts.width} wide"),
        Fact("weights", f"{facts.dtype}, {size(facts.size)}" if facts.size else facts.dtype),
    ]
    if facts.experts:
        lines.append(Fact("experts", str(facts.experts)))
    lines.append(Fact("context", f"{facts.context_length:,} tokens" if facts.context_length else "not told"))
    lines.append(Fact("writers", writers(facts.writers_expected)))
    if facts.chat_template:
        lines.append(Fact("template", "yes, a chat model"))
    else:
        lines.append(Fact("template", "none: a base model, which cannot be studied", "$warning"))
    lines.append(Fact("licence", facts.licence or "not told"))
    if facts.needs_code:
        lines.append(Fact("code", "needs Python code of its repository; you are asked before it runs", "$warning"))
    if facts.pickled:
        lines.append(Fact("pickled", "weights that can run code; you are asked before they are loaded", "$warning"))
    return lines


def writers(found: Mapping[str, int]) -> str:
    """Residual writers by component: 36 × attn.o_proj, 36 × mlp.down_proj."""
    return ",\n".join(f"{number} × {component}" for component, number in found.items()) or "none known"


def loaded_lines(model: ModelFacts) -> list[Line]:
    """What is known of the model in memory."""
    return [
        Fact("in memory", f"{_loaded_as(model)} on {model.device}", "$success"),
        Fact("parameters", count(model.parameters)),
        Fact("architecture", model.architecture),
        Fact("layers", f"{model.layers}, {model.width} wide"),
        Fact("context", f"{model.context_length:,} tokens" if model.context_length else "not told"),
        Fact("writers", model.coverage, "$warning" if model.leaking else ""),
        *([Fact("commit", model.revision)] if model.revision else []),
    ]


def _loaded_as(model: "ModelFacts") -> str:
    dtype = SHORT.get(model.dtype, model.dtype)
    return f"{model.quantization}, the rest {dtype}," if model.quantization else dtype


def fit_lines(facts: "CheckpointFacts", profile: "Profile", memory: Sequence["MemoryReading"]) -> list[Line]:
    """Whether the model fits on each card, or on the host where there is none."""
    from heretic_tui.engine.checkpoints.fit import value_bytes_of

    if not memory:
        return []
    packed = facts.dtype == "bitsandbytes 4-bit"
    chosen = "4-bit" if packed or profile.quantization == "bnb_4bit" else ""
    asked = value_bytes_of(facts, profile.dtypes[0])
    forms = {"4-bit": (True, asked)} if packed else {"bf16": (False, 2), "4-bit": (True, asked)}
    if facts.name.endswith(".gguf"):
        chosen = ""
        del forms["4-bit"]  # it is unpacked while loading
    if asked != 2 and not packed:
        forms = {{4: "fp32", 8: "fp64"}.get(asked, "asked"): (False, asked), **forms}
    chosen = chosen or next(iter(forms))
    lines: list[Line] = []
    for reading in _devices(memory):
        lines += [Words(), Fact("will it fit", f"{reading.name}, {size(reading.free)} free", mark="bold")]
        batches = {}
        for name, (four_bit, value_bytes) in forms.items():
            try:
                batch, fit = _fit(facts, profile, reading, four_bit=four_bit, value_bytes=value_bytes)
            except EngineError as error:
                return [*lines, Words(f"{error.cause} {error.remedy}", "$warning")]
            batches[name] = batch
            lines.append(_meter(f"{name}{'*' if name == chosen else ''}", fit))
        lines.append(Words(_together(batches, profile), "$foreground-muted"))
    return [*lines, Words("* what the profile asks for", "$foreground-muted")]


def _devices(memory: Sequence["MemoryReading"]) -> list["MemoryReading"]:
    """The cards, of many the one with most room, and all together; the host where there is none."""
    from heretic_tui.engine.memory import HOST, MemoryReading

    named = [MemoryReading(one.device, one.device, one.used, one.total) for one in memory]
    cards = [one for one in named if one.device != HOST]
    if len(cards) < 2:
        return cards or named
    used, total = sum(one.used for one in cards), sum(one.total for one in cards)
    together = MemoryReading("cuda", f"all {len(cards)} cards", used, total)
    return [*(cards if len(cards) == 2 else [max(cards, key=lambda one: one.free)]), together]


def _fit(
    facts: "CheckpointFacts", profile: "Profile", reading: "MemoryReading", *, four_bit: bool, value_bytes: int
) -> tuple[int, "Fit"]:
    """The fit at the profile's batch size; where that is found by itself, at the largest that fits."""
    from heretic_tui.engine.checkpoints.fit import estimate_fit

    sizes = [profile.batch_size] if profile.batch_size else _tried(profile.max_batch_size)
    tokens = PROMPT_TOKENS + profile.max_response_length
    for batch in sizes:
        fit = estimate_fit(facts, batch, tokens, reading, four_bit=four_bit, value_bytes=value_bytes)
        if fit.fits:
            break
    return batch, fit


def _tried(largest: int) -> list[int]:
    """Batch sizes that are tried when the size is found by itself, from the largest."""
    return [largest, *(size for size in (256, 128, 64, 32, 16, 8, 4, 2, 1) if size < largest)]


def _meter(label: str, fit: "Fit") -> Meter:
    share = fit.needed / fit.free if fit.free else 2.0
    style = "$error" if not fit.fits else "$warning" if share > 0.9 else "$success"
    return Meter(label, share, size(fit.needed), "✓ fits" if fit.fits else "✗ too large", style)


def _together(batches: Mapping[str, int], profile: "Profile") -> str:
    tokens = PROMPT_TOKENS + profile.max_response_length
    if len(set(batches.values())) == 1:
        number = next(iter(batches.values()))
        return f"for {number} prompt{'s' if number > 1 else ''} × {tokens} tokens"
    each = ", ".join(f"{name} {number}" for name, number in batches.items())
    return f"prompts of {tokens} tokens at once: {each}"


def offer(running: "Running", read: Mapping[Path, "RunSummary"]) -> list[str]:
    """What is said of the runs that other processes work on, the key that opens them second."""
    if len(running) > 1:
        return [f"{len(running)} studies are running", "a: watch one", ", ".join(run.name for run in running)]
    run, workers = next(iter(running.items()))
    summary = read.get(run)
    trials = f"{summary.trials}/{summary.wanted} trials" if summary else ""
    since = min(worker.owner.since for worker in workers)
    return [f"{run.name} is running", "a: watch it", trials, f"since {clock(since, time.time())}", workers[0].place]


def worker_lines(workers: Sequence["Worker"]) -> list[Line]:
    """Who works on a run: process, machine and device, since when, and when they were heard of."""
    now = time.time()
    lines: list[Line] = []
    for worker in workers:
        device = f", {worker.device}" if worker.device else ""
        since = worker.owner.since
        lines += [
            Fact("run by", f"process {worker.owner.process} on {worker.owner.host}{device}"),
            Fact("since", f"{clock(since, now)} ({brief(now - since)})"),
            Fact("heard of", ago(now - worker.heard), "$warning" if now - worker.heard > SILENT else ""),
        ]
    return lines


def run_lines(summary: "RunSummary", live: "StudyView | None", workers: Sequence["Worker"] = ()) -> list[Line]:
    """What is said of a run; `live` is what is known of it while the engine works on it, `workers` do so elsewhere."""
    begun = f"{datetime.fromtimestamp(summary.begun):%Y-%m-%d %H:%M}" if summary.begun else "nobody knows when"
    if summary.problem is not None:
        return [
            Words("This run cannot be read.", "bold $warning"),
            Words(),
            Words(summary.problem, "$warning"),
            Words(),
            Fact("begun", begun),
            Fact("folder", at_home(summary.path)),
        ]
    state = "running" if live or workers else summary.told
    style = {"running": "$success", "dead": "$warning"}.get("running" if live or workers else summary.state, "")
    trials, wanted = (len(live.records), live.wanted) if live else (summary.trials, summary.wanted)
    lines: list[Line] = [
        Fact("model", short_name(summary.model)),
        Fact("state", f"{state}, {trials} of {wanted} trials", style),
        *worker_lines(workers),
    ]
    if summary.state == "dead" and not live:
        lines.append(Fact("", "Its process ended without a word; what was finished is there."))
    if summary.best is not None:
        scores = "\n".join(f"{heading(name)} {score.text}" for name, score in summary.best.scores.items())
        lines += [Fact("best", f"trial {summary.best.trial}", "$accent"), Fact("", scores)]
    return [*lines, Fact("begun", begun), Fact("folder", at_home(summary.path))]


def at_home(path: Path | str) -> str:
    """A path as briefly as a shell takes it."""
    home = os.environ.get("HOME", "").rstrip("/")
    text = str(path)
    return f"~{text.removeprefix(home)}" if home and text.startswith(f"{home}/") else text


def next_lines(*keys: tuple[str, str]) -> list[Line]:
    """Keys and what they do, one a line."""
    return [Words(), *(Fact(key, what, mark="bold $accent") for key, what in keys)]
