"""A whole ablated model: the source's files with the edits in them, or else as the library lays it out."""

import json
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path

from heretic_tui import __version__
from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import edits
from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.checkpoints.origins import UnknownOrigin
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Progress, Verified
from heretic_tui.engine.export.aside import written_aside
from heretic_tui.engine.export.card import model_card, shown_name
from heretic_tui.engine.export.merging import (
    CARD,
    Merge,
    Merged,
    check_source,
    plan,
    pulse,
    verify_merge,
    write_merge,
    write_side_files,
)
from heretic_tui.engine.export.plain import ablated_states, export_plainly
from heretic_tui.engine.export.target import Written, check_room, filled, size_of, spare_source
from heretic_tui.engine.export.verification import Verification
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import TrialRecord
from heretic_tui.profile.schema import Profile

REPORT = "heretic-tui-export.json"
"""What the file that tells what was exported and checked is called."""


def shard_bytes(size: str | int) -> int:
    """Bytes of a size such as `5GB`, `500 MB` or `2GiB`. Raises `EngineError` for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", str(size), re.IGNORECASE)
    if isinstance(size, int):
        count = size
    elif found:
        count = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))
    else:
        count = 0
    if count < 1:
        raise EngineError(f"A file cannot be {size} large.", 'Give a size such as "5GB" or "500MB".')
    return count


def export_merged(
    model: LanguageModel,
    directions: Directions,
    record: TrialRecord,
    profile: Profile,
    to: Path,
    *,
    dtype: str | None = None,
    max_shard_size: str | int | None = None,
    verify: bool = True,
) -> Job[Written]:
    """Write the whole ablated model: the source's files with the edits in them, model card and report.

    Where the source has no safetensors, or its tensors cannot be told apart, the loaded class is saved in their place;
    of a model that is only outlined that raises `UnknownOrigin`. The live weights are only read, so the model is free
    for other work as soon as the job is closed, whatever its thread still does. Nothing takes the place of `to` that
    has not passed its verification.
    """
    asked = shard_bytes(max_shard_size or profile.max_shard_size)
    # The profile's own size, unless somebody has set it, is for models that have no files to go by.
    kept = max_shard_size is None and profile.max_shard_size == Profile().max_shard_size
    spare_source(model, to)
    check_source(model)
    found = edits(model, directions, record.parameters, style_of(profile))
    with written_aside(to) as folder:
        card = model_card(model, record, profile, "merged")
        verified, why = None, "the model does not come from safetensors files"
        try:
            merge = yield from in_background(lambda _: plan(model, found, folder, dtype, None if kept else asked))
            if merge is not None:
                check_room(folder.parent, merge.size)
                merged = yield from in_background(partial(_merge, model, merge, profile, card, dtype, folder, not kept))
                yield Progress("export", merge.size, merge.size, "B")
                check_source(model)
                if verify:
                    verified = yield from in_background(partial(verify_merge, merge, merged))
                why = ""
        except UnknownOrigin as error:
            if model.outlined:
                raise
            why = str(error)
            _refuse_packed(model, why)
            yield Note(
                f"The source's own files cannot be edited, because {why}. The model is written as the library lays it "
                f"out, in {dtype or model.facts.dtype}; the source's tensors that it does not know are left out, and "
                "named.",
                "warning",
            )
            folder.mkdir(exist_ok=True)
        if why:
            _refuse_packed(model, why)
            states = yield from in_background(partial(ablated_states, model, directions, record, profile, dtype))
            verified = yield from export_plainly(model, states, dtype, asked, card, folder, verify)
        if verified:
            counts = verified.tensors, len(verified.changed), verified.identical
            yield Verified(record.trial, *counts, verified.tied, verified.unknown, len(verified.kept))
        write_report(folder, model, record, dtype, why, verified)
        size = size_of(folder)
    return Written(size)


def _refuse_packed(model: LanguageModel, why: str) -> None:
    """Raise `EngineError` where only the source's files have the weights in full: those in memory are packed."""
    if any(writer.packed for writer in model.writers):
        raise EngineError(
            f"A whole model cannot be written: the weights in memory are packed in 4 bits, and {why}.",
            "Export the adapter, which fits the model as it was loaded and the one that it was made from.",
        )


def _merge(
    model: LanguageModel,
    merge: Merge,
    profile: Profile,
    card: str,
    dtype: str | None,
    folder: Path,
    anew: bool,
    report: Report,
) -> Merged:
    if model.source is None:
        raise ValueError("a merge needs the source's files")
    with filled(folder, report):
        left_out = write_side_files(model.source, folder, merge.sheets, dtype, anew=anew)
        if left_out:
            names = ", ".join(left_out[:5])
            report(
                Note(f"Left out of the export, because they are links that lead out of the model: {names}.", "warning")
            )
        merged = write_merge(model, merge, profile.row_normalization, pulse(report, merge.size))
        (folder / CARD).write_text(card, encoding="utf-8")
    return merged


def write_report(
    folder: Path,
    model: LanguageModel,
    record: TrialRecord,
    dtype: str | None,
    why_plain: str,
    verified: Verification | None,
) -> None:
    """Write what was done and checked beside the weights, without a word of where on this machine it happened."""
    facts = {
        "format": 1,
        "program": f"heretic-tui {__version__}",
        "source": {"model": shown_name(model)} | {"revision": model.facts.revision},
        "trial": record.trial,
        "dtype": dtype,
        "method": "plain save" if why_plain else "merge of the source's files",
        "why": why_plain or None,
        "verification": None if verified is None else asdict(verified),
    }
    (folder / REPORT).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
