"""Working on a study as one of several: joining it, giving back what the dead leave, finding it by its storage."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from heretic_tui.engine.background import Job
from heretic_tui.engine.checkpoints.permissions import say_yes
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import write_text
from heretic_tui.engine.loading.loader import Loader
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.runs.ownership import Owner, clear_dead, companions, elsewhere, gone, read_claims
from heretic_tui.engine.runs.run import PROFILE, Run
from heretic_tui.engine.storage.address import check_address
from heretic_tui.engine.storage.storages import close_storage, storage_at, storage_failures
from heretic_tui.engine.study.kinship import differences
from heretic_tui.engine.study.search import Search, open_study
from heretic_tui.names import in_folder
from heretic_tui.private import make_folder
from heretic_tui.profile import store
from heretic_tui.profile.schema import Profile


def on_device(device: str | None, load: Loader) -> Loader:
    """A loader that puts models on this device, whatever the profile says; None leaves it to the profile."""

    def load_there(name: str, profile: Profile) -> Job[LanguageModel]:
        return load(name, profile.model_copy(update={"device_map": device}))

    return load if device is None else load_there


@contextmanager
def search_of(
    run: Run, owner: Owner, device: str, *, alone: bool, new: bool = False, storage: str | None = None
) -> Iterator[Search]:
    """The search of a run for one of its workers.

    `device` is what its trials are computed on; `new` is a study that must not be there yet. A `storage` is another way
    to the run's study. What is left of workers that are gone is given back, at the beginning and at the end.
    """
    profile = run.profile if storage is None else run.profile.model_copy(update={"storage": storage})
    if profile.storage is not None:  # who works on a study by its name means the place that it is in
        check_address(profile.storage)
        say_yes("storage", profile.storage)
    with storage_failures(run.journal, profile.storage):
        place = storage_at(profile.storage, run.journal)
    try:
        study = open_study(profile, run.journal, place, new=new and profile.storage is not None)
        search = Search(
            study,
            profile,
            storage=place,
            worker=owner.name,
            device=device,
            gone=lambda worker: gone(run.path, worker),
            others=lambda: companions(run.path),
        )
        if alone:
            search.take_back(all_here=profile.storage is None)
            clear_dead(run.path)
        try:
            yield search
        finally:
            search.close()
            if not elsewhere(read_claims(run.path)):
                with suppress(EngineError):  # the storage is away: the next worker gives them back
                    search.give_back()
                    clear_dead(run.path)
    finally:
        close_storage(place)


def check_kinship(run: Run, search: Search, own: Mapping[str, Any]) -> None:
    """Raise `EngineError` where a worker would measure something else than the others."""
    known = search.sketch
    if known is None:
        search.set_sketch(own)
    elif found := differences(known, own):
        raise EngineError(
            f"This worker does not fit {run.name}: {'; '.join(found)}.",
            "Its trials could not be compared with those of the others. Make them the same, or begin a new run.",
        )


def run_of_study(location: str, name: str, runs_dir: Path) -> Run:
    """The run of a study in a storage, for a worker that knows only its URL and name. Raises `EngineError`.

    Below `runs_dir` that is the folder of the study's name. Where there is none, as on a machine that shares no disk
    with the others, one is made of what the study tells, and the worker measures directions and baseline itself.
    """
    if not in_folder(name):
        raise EngineError(f"{name!r} cannot be the name of a study.", "Give the name of the run that it belongs to.")
    path = runs_dir / name
    import optuna

    check_address(location)
    say_yes("storage", location)  # who names it means it
    with storage_failures(None, location):
        storage = storage_at(location, path)
        try:
            names = optuna.get_all_study_names(storage)
            if name not in names:
                raise EngineError(f"The storage has no study {name}.", f"It has: {', '.join(sorted(names)) or 'none'}.")
            settings = optuna.load_study(study_name=name, storage=storage).user_attrs.get("settings")
        finally:
            close_storage(storage)
    if (path / PROFILE).is_file():
        if (run := Run(path)).profile.storage is None:
            raise EngineError(
                f"{path} is the folder of another study, which is in its own journal.",
                "Give the worker another folder for its runs, with --runs-dir.",
            )
        return run
    try:
        profile = Profile.model_validate({**json.loads(settings or ""), "storage": location})
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"The study {name} does not tell settings that can be understood.",
            "Was it begun by this program, and by this version of it?",
        ) from error
    try:
        make_folder(path)
    except OSError as error:
        raise write_failure(path, error) from error
    write_text(path / PROFILE, store.dump(profile))
    return Run(path)
