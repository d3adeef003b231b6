"""What a new run fixes before it measures anything: model and revision, seed, prompts, batch size, response prefix."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.background import Job
from heretic_tui.engine.decoding.batch_size import choose_batch_size
from heretic_tui.engine.decoding.response_prefix import find_response_prefix
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import PhaseFinished
from heretic_tui.engine.loading.loader import Loader
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.pinning import pin
from heretic_tui.engine.prompts.prompt_sets import describe
from heretic_tui.engine.prompts.reading import Prompt, check_lengths, load_prompts
from heretic_tui.engine.runs.run import Settled
from heretic_tui.profile.schema import Profile, PromptSet


def begin(model_name: str, profile: Profile, load: Loader) -> Job[tuple[LanguageModel, Profile]]:
    """Load the model of a new run, and freeze in the profile what decides what the run measures."""
    seed = secrets.randbelow(2**31) if profile.seed is None else profile.seed
    local = Path(model_name).expanduser()
    model_name = str(local.resolve()) if local.exists() else model_name
    profile = yield from pin(profile.model_copy(update={"model": model_name, "seed": seed}))
    model = yield from load(model_name, profile)
    if model.facts.revision is not None:
        profile = profile.model_copy(update={"model_commit": model.facts.revision})
    return model, profile


def check_coverage(model: LanguageModel, profile: Profile) -> None:
    """Raise `EngineError` where the model cannot be ablated as the profile asks, or not whole without its leave."""
    facts, style = model.facts, style_of(profile)
    style.check(facts)
    if style.embeddings and not model.embeddings:
        raise EngineError(
            f"{facts.name} has no table of embeddings that is as wide as its residual stream.",
            "Set ablate_embeddings to false.",
        )
    if any(writer.unreadable for writer in model.writers):
        raise EngineError(
            f"The weights of {facts.name} are packed in a few bits, and of packed weights only those of bitsandbytes "
            "with 4 bits can be read and ablated.",
            'Use a checkpoint that is not quantized; with quantization = "bnb_4bit" it is packed while loading.',
        )
    if facts.leaking and not profile.allow_leak:
        layers = ", ".join(map(str, facts.leaking[:8])) + (", ..." if len(facts.leaking) > 8 else "")
        raise EngineError(
            f"Not all that writes into the residual stream of {facts.name} ({facts.architecture}) is known. Found: "
            f"{facts.coverage}. With all of these ablated, {facts.leak:.1%} of an update still lies along the "
            f"direction, in layers {layers}.",
            "An ablation would be incomplete. To study the model all the same, add --set allow_leak=true.",
        )


def read_prompts(model: LanguageModel, profile: Profile) -> Job[tuple[list[Prompt], list[Prompt]]]:
    """Read the two sets that directions are measured from. Raises `EngineError` if they cannot be read or fitted."""
    good = yield from _prompts(model, profile.good_prompts, profile)
    bad = yield from _prompts(model, profile.bad_prompts, profile)
    return good, bad


def _prompts(model: LanguageModel, prompt_set: PromptSet, profile: Profile) -> Job[list[Prompt]]:
    prompts = yield from load_prompts(prompt_set, profile.system_prompt)
    check_lengths(model, prompts, describe(prompt_set), 1)
    return prompts


def settle(model: LanguageModel, profile: Profile, good: Sequence[Prompt], bad: Sequence[Prompt]) -> Job[Settled]:
    """Find the batch size and the response prefix, unless the profile states them."""
    texts = templated(model, [*good, *bad])
    began = time.perf_counter()
    if profile.batch_size:
        model.batch_size = profile.batch_size
    else:
        size, speed = yield from choose_batch_size(model, texts, profile.max_response_length, profile.max_batch_size)
        model.batch_size = size
        yield PhaseFinished("batch size", time.perf_counter() - began, f"{size} prompts, about {speed:.0f} tokens/s")
    began = time.perf_counter()
    if profile.response_prefix is not None:
        model.response_prefix = profile.response_prefix
    else:
        prefix = yield from find_response_prefix(model, good, bad, profile.chain_of_thought_skips)
        yield PhaseFinished("response prefix", time.perf_counter() - began, repr(prefix) if prefix else "none")
    return Settled(model.batch_size, model.response_prefix)


def templated(model: LanguageModel, prompts: Sequence[Prompt]) -> list[str]:
    """The texts that the model sees for prompts."""
    return [model.template(prompt.text, prompt.system_prompt) for prompt in prompts]
