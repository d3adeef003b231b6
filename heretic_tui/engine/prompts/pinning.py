"""Pinning what a profile names, so that a run can be resumed from anywhere and repeated exactly."""

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from heretic_tui.engine.background import Job, Report, in_background
from heretic_tui.engine.prompts.reading import DEMO_SCHEME
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile

PATIENCE = 5.0
"""Seconds to wait for the hub to tell a data set's commit."""


def pin(profile: Profile) -> Job[Profile]:
    """Make local prompt files absolute, and state the commit of data sets on the hub where it can be asked."""
    data = tomllib.loads(store.dump(profile))
    for prompt_set in _prompt_sets(data):
        dataset = prompt_set["dataset"]
        if dataset.startswith(DEMO_SCHEME):
            continue
        path = Path(dataset).expanduser()
        if path.exists():
            prompt_set["dataset"] = str(path.resolve())
        elif "commit" not in prompt_set:
            commit = yield from in_background(partial(_commit, dataset))
            prompt_set |= {"commit": commit} if commit else {}
    return Profile.model_validate(data)


def _prompt_sets(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        inner = [found for item in value.values() for found in _prompt_sets(item)]
        return [value, *inner] if isinstance(value.get("dataset"), str) else inner
    return []


def _commit(dataset: str, _: Report) -> str | None:
    """The data set's newest commit; None where the hub does not answer, as it does not offline."""
    from huggingface_hub import HfApi

    try:
        sha = HfApi().dataset_info(dataset, timeout=PATIENCE).sha
    except Exception:  # noqa: BLE001 - releases of the hub's client raise errors of different libraries when offline
        return None
    return str(sha) if sha else None
