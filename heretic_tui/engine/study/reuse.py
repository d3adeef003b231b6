"""Reuse: what an earlier run has measured of the same model, prompts and settings is not measured again.

Two runs may share their start only where nothing differs that could change it. So the fingerprint takes in every
setting but those listed here as being of no account, the prompts as the model sees them, the model's files, and the
versions of what computes; a setting that nobody thought of makes two runs differ rather than share.
"""

import hashlib
import hmac
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from heretic_tui import paths
from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.files import write_atomically, write_text
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.reading import Prompt
from heretic_tui.engine.runs.listing import list_runs
from heretic_tui.engine.runs.run import BASELINE, BASELINE_TENSORS, DIRECTIONS, MODEL, RESIDUALS, Run, Settled
from heretic_tui.private import Refused, read_own, tell_once
from heretic_tui.profile.schema import Profile

FINGERPRINT = "fingerprint.json"
BASE_RESPONSES = "responses/trial-0000.jsonl"
MEASURING = 1
"""To be raised whenever what a start measures changes, so that older runs are not taken for the same."""
OF_NO_ACCOUNT = frozenset(
    {
        # how weights are edited, which the original model is not
        "row_normalization", "full_normalization_lora_rank", "adapter_error", "allow_leak",
        "ablated_components", "ablated_layers", "ablate_embeddings",
        # how the search goes
        "n_trials", "sampler",
        "n_startup_trials", "n_ei_candidates", "multivariate", "seed", "storage", "end_dominated_trials",
        "kl_divergence_scale", "kl_divergence_target", "study_checkpoint_dir",
        # what is written, shown and done with it
        "max_shard_size", "checkpoint_action", "trial_index", "n_additional_trials", "model_action", "save_directory",
        "export_strategy", "upload_repo_id", "upload_repo_private", "upload_reproducibility_information",
        "ignore_mismatches", "evaluate_model", "benchmarks", "print_debug_information", "print_responses",
        "print_residual_geometry", "plot_residuals", "residual_plot_path", "residual_plot_title",
        "residual_plot_style", "save_residuals", "reuse_measurements",
    }
)  # fmt: skip
"""Settings that change nothing that the start of a study measures."""


def fingerprint(model: LanguageModel, profile: Profile, sets: Sequence[Sequence[Prompt]]) -> str | None:
    """What decides all that the start of a study measures, as a hash; None where it cannot be told what model it is.

    The model must not have a response prefix yet. `sets` are all prompt sets, in a fixed order.
    """
    files = _files(model.name)
    if files is None and model.facts.revision is None:
        return None
    content = {
        "measuring": MEASURING,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "settings": json.loads(profile.model_dump_json(exclude=set(OF_NO_ACCOUNT))),
        "model": [model.name, model.facts.revision, files, model.facts.dtype, _device(model)],
        "prompts": [
            [[model.template(prompt.text, prompt.system_prompt), prompt.answer] for prompt in prompts]
            for prompts in sets
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _files(name: str) -> list[tuple[str, int, int]] | None:
    """Name, size and time of change of every file of a model on disk; None for one of the hub."""
    path = Path(name).expanduser()
    if not path.exists():
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _device(model: LanguageModel) -> list[Any]:
    """The device by its kind and name, since the batch size and the rounding are its own."""
    import torch

    kind = model.device.type
    return [kind, torch.cuda.get_device_name(model.device) if kind == "cuda" else torch.get_num_threads()]


def take_over(run: Run, model: LanguageModel, mark: str | None) -> Run | None:
    """Fill a run's folder that holds no measurements with those of the newest run of the same fingerprint.

    Gives that run; None where there is none, or none that is whole. The run is marked, so that later ones find it.
    What is settled about the model is written last: without it, what is there was left by a take-over that was cut
    short, and the rest is taken over now.
    """
    begun = any((run.path / name).is_file() for name in (MODEL, DIRECTIONS, BASELINE))
    if begun and _mark(run) != mark:  # what is still missing would be of another model or prompts than what is there
        _set_mark(run, None)
        return None
    if (run.path / MODEL).is_file():
        return None
    _set_mark(run, mark)
    if mark is None or not run.profile.reuse_measurements:
        return None
    for earlier in list_runs(run.path.parent):
        if earlier.path == run.path or _mark(earlier) != mark or _read(earlier, "seal") != _seal(mark):
            continue
        settled = _whole(earlier, residuals=_keeps_residuals(run.profile))
        if settled is None:
            continue
        kept = [BASE_RESPONSES, DIRECTIONS, *([RESIDUALS] if _keeps_residuals(run.profile) else [])]
        for name in [*kept, BASELINE_TENSORS, BASELINE]:
            if not (run.path / name).is_file():
                _copy(earlier.path / name, run.path / name)
        run.save_model(model.facts, settled)
        return earlier
    return None


def _keeps_residuals(profile: Profile) -> bool:
    return profile.save_residuals or profile.plot_residuals or profile.print_residual_geometry


def _set_mark(run: Run, mark: str | None) -> None:
    seal = {} if mark is None else {"seal": _seal(mark)}
    write_text(run.path / FINGERPRINT, json.dumps({"fingerprint": mark, **seal}) + "\n", inside=run.path)


def _seal(mark: str) -> str:
    """What only this person's runs have beside a fingerprint: from one that came from elsewhere nothing is taken."""
    return hmac.new(_key(), mark.encode(), "sha256").hexdigest()


def _key() -> bytes:
    """What nobody else knows, made when it is first asked for; of this process alone where it cannot be kept."""
    path = paths.state_dir() / "key"
    try:
        return read_own(path)[0]
    except FileNotFoundError:
        with suppress(EngineError):
            write_text(path, secrets.token_hex(32))
            return read_own(path)[0]
    except (OSError, Refused) as error:
        tell_once(path, error)
    return _KEY


_KEY = secrets.token_bytes(32)


def _mark(run: Run) -> str | None:
    return _read(run, "fingerprint")


def _read(run: Run, field: str) -> str | None:
    try:
        found = json.loads((run.path / FINGERPRINT).read_text(encoding="utf-8"))[field]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # an older run, or one that was damaged
        return None
    return found if isinstance(found, str) else None


def _whole(run: Run, *, residuals: bool) -> Settled | None:
    """What a run has settled, if it has measured all that is to be taken over and all of it can be read."""
    try:
        known = run.model()
        if known is None or run.base_scores() is None or not run.responses(0):
            return None
        if residuals and not (run.path / RESIDUALS).is_file():
            return None
        run.baseline_tensors()
        load_directions(run.path / DIRECTIONS)
    except (EngineError, OSError):
        return None
    return known[1]


def _copy(source: Path, to: Path) -> None:
    needed = source.stat().st_size
    write_atomically(to, lambda temporary: shutil.copyfile(source, temporary), needed=needed)
