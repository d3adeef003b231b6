"""What the workers of one study must have in common, and in which words they differ.

The first worker leaves a sketch of its model, prompts and settings in the study; who joins compares its own. Where the
model lies, on which device, and how many prompts run at once is each worker's own affair.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.profile.schema import Profile
from heretic_tui.profile.store import difference

OWN = frozenset(
    {
        "model", "model_commit", "dtypes", "quantization", "device_map", "max_memory", "batch_size", "max_batch_size",
        "offload_outputs_to_cpu", "trust_remote_code", "allow_pickle", "storage", "n_trials", "print_residual_geometry",
        "plot_residuals", "save_residuals", "reuse_measurements", "study_checkpoint_dir",
    }
)  # fmt: skip
"""Settings in which workers may differ: they decide where and how, not what."""
SAMPLED = 256
"""Weights of each writer that the sketch of a model takes in, the first of them."""


def sketch(model: LanguageModel, profile: Profile, sets: Sequence[Sequence[Prompt]]) -> dict[str, Any]:
    """What decides the scores of a trial, as plain values; `sets` are all prompt sets, in a fixed order."""
    facts = model.facts
    return {
        "model": {
            "architecture": facts.architecture,
            "revision": facts.revision,
            "layers": facts.layers,
            "width": facts.width,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "quantization": facts.quantization,
            "weights": _weights(model),
        },
        "prompts": [_prompts(model, prompts) for prompts in sets],
        "settings": json.loads(profile.model_dump_json(exclude=set(OWN))),
    }


def differences(study: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Where a worker's sketch differs from the study's, in words; nothing where it may join."""
    found = []
    ours = {name: (value, own["model"].get(name)) for name, value in study["model"].items()}
    differing = {name: pair for name, pair in ours.items() if pair[0] != pair[1]}
    weights = differing.pop("weights", None)
    found += [f"the model's {name} is {here or 'none'} here and {there or 'none'} in the study"
              for name, (there, here) in differing.items()]  # fmt: skip
    if weights is not None and not differing:
        found.append("the model's weights are not those of the study")
    if len(study["prompts"]) != len(own["prompts"]):
        found.append(f"there are {len(own['prompts'])} prompt sets here and {len(study['prompts'])} in the study")
    for there, here in zip(study["prompts"], own["prompts"], strict=False):
        if there["hash"] != here["hash"]:
            found.append(_of_prompts(there, here))
    return found + [
        f"the setting {one.key} is {one.b} here and {one.a} in the study"
        for one in difference(_profile(study["settings"]), _profile(own["settings"]))
    ]


def _profile(settings: Mapping[str, Any]) -> Profile:
    return Profile.model_validate(settings)


def _of_prompts(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    counts = f"{here['count']} here and {there['count']} in the study"
    if here["count"] != there["count"]:
        return f"the prompts of a set are {counts}, the first being {json.dumps(here['first'])}"
    if here["first"] != there["first"]:
        return (
            f"the prompts of a set are others: the first is {json.dumps(here['first'])} here and "
            f"{json.dumps(there['first'])} in the study"
        )
    return f"the prompts of a set that begins with {json.dumps(here['first'])} are not all the same as in the study"


def _prompts(model: LanguageModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """A prompt set as the model sees it: how many, how the first begins, and a hash of all."""
    seen = [[model.template(prompt.text, prompt.system_prompt), prompt.answer] for prompt in prompts]
    first = prompts[0].text[:60] if prompts else ""
    return {"count": len(seen), "first": first, "hash": hashlib.sha256(json.dumps(seen).encode()).hexdigest()}


def _weights(model: LanguageModel) -> str:
    """A hash of some weights of every writer: the same model under another name or path is the same."""
    import torch

    total = hashlib.sha256()
    for writer in model.writers:
        total.update(writer.weight_name.encode())
        some = writer.weight.detach().reshape(-1)[:SAMPLED].contiguous()
        total.update(some.cpu().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
