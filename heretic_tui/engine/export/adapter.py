"""The ablation as a PEFT adapter."""

from functools import partial
from pathlib import Path

import torch

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import edits
from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Progress
from heretic_tui.engine.export.aside import written_aside
from heretic_tui.engine.export.card import model_card
from heretic_tui.engine.export.factors import Adapter, Bias, Part, config_of, parts_of, tensors_of
from heretic_tui.engine.export.target import Written, filled, let_others_read, size_of, spare_source
from heretic_tui.engine.files import os_errors
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile


def export_adapter(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    to: Path,
    *,
    dtype: str | None = None,
) -> Job[Written]:
    """Write the ablation as a PEFT adapter, biases included: exact for none and pre, else the nearest of its rank.

    The rank is the profile's, or with `adapter_error` the smallest at which every weight is that close.
    Its factors are float32 unless a `dtype` is asked for.
    """
    spare_source(model, to)
    with written_aside(to) as folder:
        return (yield from in_background(partial(_write_adapter, model, directions, record, profile, dtype, folder)))


def _write_adapter(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    dtype: str | None,
    folder: Path,
    report: Report,
) -> Written:
    from safetensors.torch import save_file

    found = edits(model, directions, record.parameters, style_of(profile))
    if tied := [edit.writer for edit in found if edit.writer.tied]:
        raise EngineError(
            f"The embeddings of {model.name} are ablated, and they are its output head too; an adapter would change "
            f"one of the two alone ({tied[0].weight_name}, {tied[0].tied[0]}).",
            "Export the merged model instead.",
        )
    if not found:
        raise EngineError("This trial edits no weight, so there is nothing to adapt.", "Choose another trial.")
    pieces: list[Part | Bias] = []
    for done, edit in enumerate(found, start=1):
        pieces += parts_of(model, edit, profile.row_normalization, profile.adapter_rank, profile.adapter_error)
        report(Progress("export", done, len(found), "weights"))
    adapter = Adapter(
        [piece for piece in pieces if isinstance(piece, Part)], [piece for piece in pieces if isinstance(piece, Bias)]
    )
    if adapter.biases and not adapter.bias_factors:
        report(
            Note(
                f"The adapter brings {len(adapter.biases)} biases whole, since PEFT has no factors for them here: they "
                "stay changed even while the adapter is disabled."
            )
        )
    tensors = tensors_of(adapter, model, torch.float32 if dtype is None else getattr(torch, dtype))
    with filled(folder, report), os_errors():
        config_of(adapter, model).save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors")
        model.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(model, record, profile, "adapter"), encoding="utf-8")
        let_others_read(folder)
        size = size_of(folder)
    return Written(size, adapter.rank, adapter.error)
