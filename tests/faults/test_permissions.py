"""Code of a model and pickled weights: only after a yes to that, for that model, as it then was."""

import json

import pytest

from heretic_tui.engine.checkpoints import permissions
from heretic_tui.engine.checkpoints.permissions import (
    NotAllowed,
    Permissions,
    permissions_file,
    permissions_for,
    say_yes,
)

CODE = """
import os
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(os.environ["RAN"]).write_text("the code ran")


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """A program that has just begun."""
    monkeypatch.setattr(permissions, "_said", set())


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Where the model's code leaves its trace."""
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "ran"


@pytest.fixture
def coded(model_copy, ran):
    """A model that cannot be loaded without code of its own."""
    path = model_copy / "config.json"
    config = json.loads(path.read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    path.write_text(json.dumps(config))
    (model_copy / "own.py").write_text(CODE)
    return model_copy


@pytest.fixture
def pickled(model_copy):
    """A model that has nothing but pickled weights."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model_copy / "model.safetensors"), model_copy / "pytorch_model.bin")
    (model_copy / "model.safetensors").unlink()
    return model_copy


@pytest.fixture
def run(heretic, profile, runs_dir):
    """Begin a short study of a model."""
    return lambda model, *more, **settings: heretic(
        "run", model, "--profile", profile(n_trials=1, **settings), "--runs-dir", runs_dir, *more
    )


def test_code_is_not_run_unasked(run, coded, ran):
    run(coded).is_plain(coded, "trust_remote_code=true")
    assert not ran.exists()


def test_a_yes_that_stands_in_a_profile_is_none(run, coded, ran, attempt):
    outcome = run(coded, trust_remote_code=True, allow_pickle=True)
    outcome.is_plain("nobody has said yes", "--set trust_remote_code=true")
    assert not ran.exists()
    attempt("trust_remote_code = true in a profile", outcome.err.strip())


def test_a_yes_on_the_command_line_is_kept_for_this_model_as_it_is(run, coded, ran, monkeypatch, attempt):
    outcome = run(coded, "--set", "trust_remote_code=true")
    assert outcome.code == 0, outcome.err
    assert ran.read_text() == "the code ran"
    monkeypatch.setattr(permissions, "_said", set())
    assert run(coded, trust_remote_code=True).code == 0
    attempt("the same model again", "loaded")
    (coded / "own.py").write_text(f"{CODE}\n# changed\n")
    outcome = run(coded, trust_remote_code=True)
    outcome.is_plain("nobody has said yes")
    attempt("its code has changed", outcome.err.strip())


def test_a_run_that_came_from_elsewhere_asks_anew(run, coded, ran, runs_dir, heretic, monkeypatch, tmp_path, attempt):
    assert run(coded, "--set", "trust_remote_code=true").code == 0
    (kept,) = runs_dir.iterdir()
    ran.unlink()
    monkeypatch.setattr(permissions, "_said", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    resume = ("run", "--resume", kept, "--trials", 2)
    for command in (resume, ("export", kept, "--trial", 1, "--to", tmp_path / "out")):
        outcome = heretic(*command)
        outcome.is_plain("nobody has said yes")
        assert not ran.exists()
        attempt(f"{command[0]} of a stranger's run", outcome.err.strip())
    assert heretic(*resume, "--set", "trust_remote_code=true").code == 0


def test_an_export_of_such_a_model_is_measured_with_the_code_that_was_allowed(run, coded, runs_dir, heretic, tmp_path):
    assert run(coded, "--set", "trust_remote_code=true").code == 0
    (kept,) = runs_dir.iterdir()
    outcome = heretic("export", kept, "--trial", 1, "--to", tmp_path / "out", "--verify-scores")
    assert outcome.code == 0, outcome.err


def test_pickled_weights_are_read_only_after_a_yes(run, pickled, monkeypatch, attempt):
    for settings in ({}, {"allow_pickle": True}):
        outcome = run(pickled, **settings)
        outcome.is_plain("pickled", "--set allow_pickle=true")
        attempt(f"pickled weights, the profile has {settings or 'nothing'}", outcome.err.strip())
    assert run(pickled, "--set", "allow_pickle=true").code == 0
    monkeypatch.setattr(permissions, "_said", set())
    assert run(pickled, allow_pickle=True).code == 0
    (pickled / "pytorch_model.bin").touch()
    outcome = run(pickled, allow_pickle=True)
    outcome.is_plain("nobody has said yes")
    attempt("the weights have changed since", outcome.err.strip())


class Bomb:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tokenizer.pkl", "vocab.pkl", "training_args.bin", "model.pt"])
def test_no_pickle_in_a_models_folder_runs_anything(run, model_copy, tmp_path, attempt, name):
    import pickle

    if name == "pytorch_model.bin":
        (model_copy / "model.safetensors").unlink()
    (model_copy / name).write_bytes(pickle.dumps({"lm_head.weight": Bomb(tmp_path / "bombed")}))
    outcome = run(model_copy, "--set", "allow_pickle=true", allow_pickle=True)
    assert not (tmp_path / "bombed").exists()
    attempt(f"{name} runs a command, after a yes", outcome.err.strip().splitlines()[-1] if outcome.code else "not read")


# The yes itself


def model_of(folder, **auto_map):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auto_map": auto_map} if auto_map else {}))
    (folder / "own.py").write_text("")
    return folder


def test_a_yes_is_to_one_model_one_revision_and_one_thing(tmp_path, monkeypatch, attempt):
    folder = model_of(tmp_path / "model", AutoModel="own.Model")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    code, pickles = Permissions(code=True), Permissions(pickles=True)
    say_yes("code", "some/model")
    assert permissions_for("some/model", folder, "abc", code) == Permissions(code=True)
    monkeypatch.setattr(permissions, "_said", set())
    assert permissions_for("some/model", folder, "abc", code) == Permissions(code=True)
    for tried, arguments in {
        "another model": ("other/model", folder, "abc", code),
        "another revision": ("some/model", folder, "abd", code),
        "pickles": ("some/model", folder, "abc", pickles),
        "a folder of that name": ("some/model", folder, None, code),
    }.items():
        with pytest.raises(NotAllowed):
            permissions_for(*arguments)
        attempt(f"after a yes to the code of some/model at abc: {tried}", "asks again")


def test_a_model_that_needs_neither_is_given_neither_whatever_the_profile_has(tmp_path):
    folder = model_of(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "training_args.bin").write_bytes(b"x")
    assert permissions_for("some/model", folder, None, Permissions(code=True, pickles=True)) == Permissions()


def test_a_pickled_adapter_in_a_models_folder_is_not_read_along(tmp_path):
    folder = model_of(tmp_path / "model")
    for name in ("model.safetensors", "adapter_config.json", "adapter_model.bin"):
        (folder / name).write_bytes(b"{}")
    with pytest.raises(NotAllowed):
        permissions_for("some/model", folder, None, Permissions())
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert permissions_for("some/model", folder, None, Permissions()) == Permissions()


def test_a_yes_to_code_that_lies_in_another_repository_is_not_kept(tmp_path, monkeypatch):
    folder = model_of(tmp_path / "model", AutoModel="other/place--own.Model")
    say_yes("code", "some/model")
    assert permissions_for("some/model", folder, "abc", Permissions(code=True)).code
    monkeypatch.setattr(permissions, "_said", set())
    with pytest.raises(NotAllowed):
        permissions_for("some/model", folder, "abc", Permissions(code=True))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"what": "code"}]', "\x00", "[" * 100_000])
def test_a_file_of_what_was_allowed_that_cannot_be_understood_allows_nothing(tmp_path, content):
    folder = model_of(tmp_path / "model", AutoModel="own.Model")
    permissions_file().parent.mkdir(parents=True, exist_ok=True)
    permissions_file().write_text(content)
    with pytest.raises(NotAllowed):
        permissions_for("some/model", folder, "abc", Permissions(code=True))
