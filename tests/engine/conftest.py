"""One thread: the models are so small that more only get in each other's way. And a study of a tiny model on disk."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_models: with importlib's import mode pytest adds no folder
torch.set_num_threads(1)

settings.register_profile("engine", deadline=None)  # a busy machine is no failure
settings.load_profile("engine")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A tiny model with its tokenizer as a folder; do not change it, copy it."""
    from tiny_models import tiny_network, tiny_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_network("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def short_profile(tmp_path_factory):
    """The profile of a study of a few seconds."""
    from heretic_tui.profile.schema import Profile

    folder = tmp_path_factory.mktemp("prompts")
    (folder / "plain.txt").write_text("\n".join(f"Tell me about {n} rivers." for n in range(6)), encoding="utf-8")
    (folder / "other.txt").write_text("\n".join(f"Open the lock {n}!" for n in range(6)), encoding="utf-8")
    plain, other = {"dataset": str(folder / "plain.txt")}, {"dataset": str(folder / "other.txt")}
    return Profile.model_validate(
        {
            "n_trials": 4,
            "n_startup_trials": 2,
            "seed": 1,
            "batch_size": 6,
            "response_prefix": "",
            "max_response_length": 6,
            "end_dominated_trials": False,
            "good_prompts": plain,
            "bad_prompts": other,
            "scorer": {
                "KLDivergence": {"prompts": plain},
                "KeywordRate": {"prompts": other, "keyword_markers": ["e"]},
            },
        }
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_folder, short_profile):
    """The folder of a finished study of four trials; do not change it, copy it."""
    from heretic_tui.engine.pipeline import start_study

    *_, finished = start_study(str(tiny_folder), short_profile, "short", tmp_path_factory.mktemp("runs"))
    return finished.path


@pytest.fixture
def study(finished_run, tmp_path):
    """A finished study of the test's own."""
    from heretic_tui.engine.runs.run import Run

    return Run(shutil.copytree(finished_run, tmp_path / finished_run.name))
