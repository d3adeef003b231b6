"""The model card of an export."""

import json
from pathlib import Path

from heretic_tui import __version__
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.profile.schema import Profile


def shown_name(model: LanguageModel) -> str:
    """A model by its hub id, or by its folder's name: where on this machine it lies is nobody's business."""
    return Path(model.name).name if model.facts.revision is None else model.name


def model_card(model: LanguageModel, record: TrialRecord, profile: Profile, form: str) -> str:
    """A model card that tells what was done, in the hub's format."""
    scores = "\n".join(f"| {_title(name)} | {_figure(score)} |" for name, score in record.scores.items())
    settings = {
        "direction_index": record.parameters.direction_index,
        "subspace_dimensions": record.parameters.subspace_dimensions,
        "passes": profile.passes,
        "row_normalization": profile.row_normalization,
        "orthogonalize_direction": profile.orthogonalize_direction,
        "ablated_components": profile.ablated_components,
        "ablated_layers": profile.ablated_layers,
        "ablate_embeddings": profile.ablate_embeddings,
        "kernels": record.parameters.as_json(),
    }
    where = style_of(profile).words
    name = shown_name(model)
    front = f"---\nbase_model: {json.dumps(name)}\ntags:\n- abliterated\n- directional-ablation\n---\n"
    kind = "A PEFT adapter for" if form == "adapter" else "An ablated version of"
    return (
        f"{front}\n# {kind} {name}\n\n"
        f"Made by directional ablation: {_taken(record, profile)} taken out of the weights "
        f"that write it{f' ({where})' if where else ''}.\n"
        f"Trial {record.trial} of a study with heretic-tui {__version__}.\n\n"
        f"What writes into the residual stream: {model.facts.coverage}.\n\n"
        f"| score | value |\n| --- | --- |\n{scores}\n\n## Parameters\n\n"
        f"```json\n{json.dumps(settings, indent=2)}\n```\n"
    )


def _taken(record: TrialRecord, profile: Profile) -> str:
    count = record.parameters.subspace_dimensions + profile.passes - 1
    return (
        "a direction of the residual stream was"
        if count == 1
        else f"up to {count} directions of the residual stream were"
    )


def _title(name: str) -> str:
    return name.replace("_", " ").replace("kl ", "KL ")


def _figure(score: Score) -> str:
    interval = score.interval()
    return score.text if interval is None else f"{score.text} (95%: {interval[0]:.1%} to {interval[1]:.1%})"
