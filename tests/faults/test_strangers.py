"""Runs and models that came from somebody else: data, never orders, and never a way to other files."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heretic_tui.engine.checkpoints.permissions import known
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.runs.listing import open_run
from heretic_tui.engine.runs.live import file_of
from heretic_tui.engine.runs.ownership import OWNERS, claimed, read_claims
from heretic_tui.engine.runs.requests import Listener
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.runs.summary import summarize
from heretic_tui.library import throw_away
from heretic_tui.profile.problems import ProfileError
from heretic_tui.state import read_study

# Private files of a real run


def test_all_that_a_run_writes_is_private_whatever_the_umask(heretic, profile, runs_dir, model_dir, tmp_path, attempt):
    before = os.umask(0)
    try:
        outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", runs_dir, "--set", "n_trials=1")
        assert outcome.code == 0, outcome.err
        (run,) = (path for path in runs_dir.iterdir())
        Run(run).save_chat("one.md", "words")
        Run(run).overrule(1, 0, None)
        with claimed(run):
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [run, *run.rglob("*")]}
        to = tmp_path / "out"
        assert heretic("export", run, "--trial", 1, "--to", to).code == 0
    finally:
        os.umask(before)
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
        attempt(path.relative_to(runs_dir), f"{mode:o}")
    for path in [to, *to.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666), path
    attempt("the export, under umask 000", "folders 777, files 666")


def test_a_run_that_others_could_read_is_private_once_it_is_worked_on(study):
    for path in [study, *study.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    with Run(study).locked():
        assert not any(path.stat().st_mode & 0o077 for path in [study, *study.rglob("*")])


# Control files

CLAIM = {"host": "h", "boot": "b", "process": 1, "started": "1", "since": 1.0}
CLAIMS = {
    "no object": [],
    "a field more": CLAIM | {"more": 1},
    "a field less": {key: value for key, value in CLAIM.items() if key != "boot"},
    "a number in words": CLAIM | {"process": "1"},
    "a path for a number": CLAIM | {"process": "../../etc"},
    "no process": CLAIM | {"process": 0},
    "a negative process": CLAIM | {"process": -1},
    "true for a number": CLAIM | {"process": True},
    "a giant process": CLAIM | {"process": 10**30},
    "a giant time": CLAIM | {"since": 1e300},
    "no time": CLAIM | {"since": None},
    "a list for a host": CLAIM | {"host": ["h"]},
    "an endless host": CLAIM | {"host": "h" * 10_000},
    "escape sequences": CLAIM | {"host": "\x1b]0;title\x07"},
    "an object in it": CLAIM | {"started": {}},
}
TEXTS = {
    "nothing": "",
    "a number of too many digits": '{"process": ' + "9" * 50_000 + "}",
    "a million brackets": "[" * 60_000,
    "no UTF-8": b"\xff\xfe{}",
    "infinity": json.dumps(CLAIM | {"since": float("inf")}),
    **{name: json.dumps(content) for name, content in CLAIMS.items()},
}


def written(folder, content):
    """A claim of this content in a run's folder."""
    path = folder / OWNERS / "box-1-2.json"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("what", TEXTS)
def test_a_claim_that_does_not_fit_its_schema_is_none(tmp_path, caplog, attempt, what):
    text = TEXTS[what]
    written(tmp_path, text if isinstance(text, bytes) else text.encode())
    assert not read_claims(tmp_path)
    assert "is not used" in caplog.text
    attempt(f"claim: {what}", caplog.messages[0].partition("not used: ")[2])


def test_a_sign_of_life_from_the_future_grows_old_like_any_other(tmp_path):
    os.utime(written(tmp_path, json.dumps(CLAIM).encode()), (1e11, 1e11))
    assert read_claims(tmp_path)[0].seen < 1e10


REQUESTS = {
    "a link": lambda path: path.symlink_to(path.parent.parent / "victim"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_that_is_no_plain_file_asks_for_nothing(tmp_path, caplog, attempt, what, monkeypatch):
    monkeypatch.setattr("heretic_tui.engine.runs.requests.LISTEN", 0)
    (tmp_path / "victim").write_text("kept")
    with claimed(tmp_path):
        request = file_of(tmp_path, read_claims(tmp_path)[0].owner, "pause")
        request.parent.mkdir()
        REQUESTS[what](request)
        listener = Listener(tmp_path)
        assert not list(listener.requests())
        assert not list(listener.requests())
    assert (tmp_path / "victim").read_text() == "kept"
    assert caplog.text.count("is not used") == 1
    attempt(f"request: {what}", caplog.messages[0].partition("not used: ")[2])


# The folder of a run

LINKED = ["log.txt", "run.lock", "study.journal", "model.json", "profile.toml", "responses/trial-0001.labels.json"]


@pytest.mark.parametrize("name", [*LINKED, "responses", "chats", "inspection"])
def test_a_link_in_a_runs_folder_leads_nothing_elsewhere(study, tmp_path, heretic, runs_dir, attempt, name):
    victim = tmp_path / "victim"
    if "." in name:
        victim.write_text("mine")
        (study / name).unlink(missing_ok=True)
    else:
        victim.mkdir()
        (victim / "mine").write_text("mine")
        shutil.rmtree(study / name, ignore_errors=True)
    (study / name).symlink_to(victim)
    for look in (
        lambda: open_run(runs_dir, study.name),
        lambda: read_study(study),
        lambda: throw_away(study),
        lambda: Run(study).locked().__enter__(),
    ):
        with pytest.raises(EngineError, match="neither a file nor a folder"):
            look()
    assert "neither a file nor a folder" in summarize(Run(study)).problem
    assert heretic("run", "--resume", study.name, "--runs-dir", runs_dir, "--trials", 3).code == 1
    mine = victim if victim.is_file() else victim / "mine"
    assert mine.read_text() == "mine"
    assert list(tmp_path.rglob("mine")) == ([mine] if mine.name == "mine" else [])
    attempt(f"{name} is a link", summarize(Run(study)).problem)


MORE = int(os.environ.get("MORE_EXAMPLES", "1"))
"""How many times as many examples are tried; where it is more than once, others each time."""
WRONG = [None, True, -1, 0, 10**30, 1e308, -1e308, float("inf"), float("nan")]
WRONG += ["", "x", "\x1b[2J", [], {}, [[]], {"a": 1}]


def broken(value):
    """A value from a file, in ways in which it can be wrong."""
    wrong = st.sampled_from(WRONG)
    if isinstance(value, dict):
        one = st.sampled_from(sorted(value)) if value else st.nothing()
        inner = one.flatmap(lambda key: broken(value[key]).map(lambda new: {**value, key: new}))
        less = one.map(lambda key: {name: old for name, old in value.items() if name != key})
        return st.one_of(wrong, inner, inner, inner, less) if value else wrong
    if isinstance(value, list) and value:
        return st.one_of(wrong, broken(value[0]).map(lambda new: [new, *value[1:]]))
    return wrong


def looked_at(folder):
    """All that is read of a run to show it."""
    run = Run(folder)
    told = []
    for look in (
        lambda: summarize(run).told,
        lambda: read_study(folder),
        run.records,
        run.model,
        run.base_scores,
        run.baseline_tensors,
        lambda: run.responses(0),
        lambda: run.responses(1),
        lambda: run.overruled(1),
    ):
        try:
            look()
        except (EngineError, ProfileError) as error:
            told.append(str(error))
    return told


@pytest.mark.parametrize("name", ["model.json", "baseline.json", "fingerprint.json", "responses/trial-0001.jsonl"])
def test_whatever_a_file_of_a_run_holds_it_is_shown_or_refused_in_words(study, name):
    path = study / name
    lines = path.read_text().splitlines() if name.endswith("l") else [path.read_text()]
    intact = json.loads(lines[0])

    @settings(max_examples=20 * MORE, derandomize=MORE == 1, deadline=None, suppress_health_check=list(HealthCheck))
    @given(broken(intact))
    def check(content):
        path.write_text("\n".join([json.dumps(content), *lines[1:]]) + "\n")
        looked_at(study)

    check()


def test_whatever_a_journal_holds_it_is_shown_or_refused_in_words(study):
    journal = study / "study.journal"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]

    @settings(max_examples=40 * MORE, derandomize=MORE == 1, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(lines) - 1).flatmap(lambda at: st.tuples(st.just(at), broken(lines[at]))))
    def check(changed):
        at, content = changed
        journal.write_text("".join(json.dumps(one) + "\n" for one in [*lines[:at], content, *lines[at + 1 :]]))
        looked_at(study)

    check()


GIANTS = {
    "layers": ("model.json", ("facts", "layers"), 10**12),
    "width": ("model.json", ("facts", "width"), 10**12),
    "a count of refusals": ("baseline.json", ("refusals", "count"), 10**40),
    "a score in words": ("baseline.json", ("kl_divergence", "value"), "small"),
}


@pytest.mark.parametrize("what", GIANTS)
def test_numbers_that_nothing_has_are_refused(study, attempt, what):
    name, keys, value = GIANTS[what]
    content = json.loads((study / name).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner.setdefault(key, next(iter(inner.values())))
    inner[keys[-1]] = value
    (study / name).write_text(json.dumps(content))
    with pytest.raises(EngineError, match="damaged") as told:
        read_study(study)
    attempt(f"{name}: {what}", told.value.cause)


def test_directions_whose_parts_do_not_fit_together_are_refused(study):
    import torch
    from safetensors.torch import save_file

    from heretic_tui.engine.ablation.directions import load_directions
    from heretic_tui.engine.inspection.run_directions import load_run_directions

    path = study / "directions.safetensors"
    for shape in ((2, 3, 4), (7,), (9, 32)):
        save_file({"good": torch.zeros(4, 32), "bad": torch.zeros(4, 32), "vectors": torch.zeros(*shape)}, path)
        for load in (load_directions, load_run_directions):
            with pytest.raises(EngineError, match="do not fit together"):
                load(path)


PROFILES = {
    "another language": lambda path: path.write_text("{}"),
    "brackets without an end": lambda path: path.write_text("model = " + "[" * 100_000),
    "a number without an end": lambda path: path.write_text("n_trials = " + "9" * 100_000),
    "a giant number of trials": lambda path: path.write_text(f"n_trials = {10**300}\n{path.read_text()}"),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "far too much": lambda path: path.write_bytes(b"#" * (5 << 20)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("what", PROFILES)
def test_whatever_stands_in_place_of_a_runs_profile_is_refused_in_words(study, attempt, what):
    path = study / "profile.toml"
    if what.startswith("a giant"):
        path.write_text(path.read_text().replace("n_trials = 2\n", ""))
    PROFILES[what](path)
    with pytest.raises((EngineError, ProfileError)) as told:
        read_study(study)
    assert summarize(Run(study)).problem
    attempt(f"profile.toml: {what}", str(told.value).partition(f"{path}: ")[2] or told.value)


# Where a run says that its study is


def with_storage(study, address):
    path = study / "profile.toml"
    path.write_text(f"storage = {json.dumps(address)}\n{path.read_text()}")


@pytest.mark.parametrize("kind", ["sqlite:////{}/mine.db", "sqlite:///{}/new.db"])
def test_looking_at_a_run_reaches_no_storage_that_was_never_used_from_here(study, tmp_path, heretic, attempt, kind):
    (tmp_path / "mine.db").write_bytes(b"")
    with_storage(study, kind.format(str(tmp_path).lstrip("/") if "////" in kind else tmp_path))
    there = sorted(path.name for path in tmp_path.glob("*.db"))
    with pytest.raises(EngineError, match="never used from this machine") as told:
        Run(study).records()
    assert "never used" in summarize(Run(study)).problem
    assert heretic("runs", "--runs-dir", study.parent).code == 0
    assert heretic("trials", study).code == 1
    assert sorted(path.name for path in tmp_path.glob("*.db")) == there
    assert (tmp_path / "mine.db").read_bytes() == b""
    attempt(kind, told.value.cause)


def test_a_storage_that_a_study_was_begun_in_is_known_from_then_on(heretic, profile, runs_dir, model_dir, tmp_path):
    address = f"sqlite:///{tmp_path}/studies.db"
    outcome = heretic("run", model_dir, "--profile", profile(storage=address, n_trials=1), "--runs-dir", runs_dir)
    assert outcome.code == 0, outcome.err
    assert known("storage", address)
    (run,) = runs_dir.iterdir()
    assert len(Run(run).records()) == 1
    assert heretic("trials", run).code == 0


PASSWORDS = ["postgresql://me:open-sesame-1@localhost:1/x", "postgresql://localhost:1/x?password=open-sesame-1"]


@pytest.mark.parametrize("address", PASSWORDS)
def test_a_password_in_the_address_of_a_storage_is_refused_and_said_nowhere(
    heretic, profile, runs_dir, model_dir, tmp_path, attempt, address
):
    outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", runs_dir, "--set", f"storage={address}")
    assert outcome.code == 2
    assert "HERETIC_TUI_STORAGE_PASSWORD" in outcome.err
    assert "open-sesame-1" not in outcome.out + outcome.err
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"open-sesame-1" in content for content in written)
    attempt("--set storage=...", outcome.err.strip())


def test_the_password_of_the_environment_is_in_the_address_only_while_it_is_opened(monkeypatch):
    from heretic_tui.engine.storage.address import opened_with

    monkeypatch.setenv("HERETIC_TUI_STORAGE_PASSWORD", "open/sesame@1")
    assert opened_with("postgresql://me@host/x") == "postgresql://me:open%2Fsesame%401@host/x"
    assert opened_with("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    with pytest.raises(EngineError, match="given with a password"):
        opened_with("postgresql://me:other@host/x")


def test_a_run_of_an_older_version_that_kept_a_password_says_how_to_go_on(study, heretic, runs_dir):
    with_storage(study, "postgresql://me:open-sesame-1@localhost/x")
    for arguments in (("run", "--resume", study.name), ("trials", study.name), ("runs", "--json")):
        outcome = heretic(*arguments, "--runs-dir", runs_dir)
        assert "open-sesame-1" not in outcome.out + outcome.err
        assert "HERETIC_TUI_STORAGE_PASSWORD" in outcome.out + outcome.err


# A model's folder


def test_an_export_takes_nothing_along_that_a_link_in_the_model_leads_to(
    heretic, profile, runs_dir, model_copy, tmp_path, attempt
):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "id_rsa").write_text("a key of mine")
    (model_copy / "notes.txt").symlink_to(tmp_path / "private" / "id_rsa")
    (model_copy / "more").symlink_to(tmp_path / "private")
    (model_copy / "own.txt").write_text("the model's own")
    (model_copy / "copy.txt").symlink_to("own.txt")
    assert heretic("run", model_copy, "--profile", profile(n_trials=1), "--runs-dir", runs_dir).code == 0
    (run,) = runs_dir.iterdir()
    outcome = heretic("export", run, "--trial", 1, "--to", tmp_path / "out")
    assert outcome.code == 0
    assert "notes.txt" in outcome.out
    contents = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"a key of mine" in content for content in contents)
    assert (tmp_path / "out" / "copy.txt").read_text() == "the model's own"
    attempt("notes.txt is a link to a key", "left out of the export, and said")


def test_an_export_of_a_linked_model_is_whole(heretic, profile, runs_dir, model_dir, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in model_dir.iterdir():
        (linked / path.name).symlink_to(path)
    assert heretic("run", linked, "--profile", profile(n_trials=1), "--runs-dir", runs_dir).code == 0
    (run,) = runs_dir.iterdir()
    assert heretic("export", run, "--trial", 1, "--to", tmp_path / "out").code == 0
    assert {path.name for path in model_dir.iterdir()} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "a\0b", "..", "C:\\x"])
def test_an_index_names_files_of_its_own_folder_only(heretic, profile, runs_dir, model_copy, attempt, name):
    (model_copy / "model.safetensors").unlink()
    (model_copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    outcome = heretic("run", model_copy, "--profile", profile(), "--runs-dir", runs_dir)
    outcome.is_plain("outside of the folder")
    attempt(f"weight_map names {name!r}", outcome.err.strip())


@pytest.mark.parametrize("place", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_compiled_code_that_a_configuration_names_is_not_asked_for(
    heretic, profile, runs_dir, model_copy, monkeypatch, attempt, place
):
    """The library would fetch it from the hub and run it."""
    fetched = []
    monkeypatch.setattr(
        "transformers.integrations.hub_kernels.load_and_register_attn_kernel", lambda *a, **_: fetched.append(a)
    )
    path = model_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {place: "somebody/kernel"}))
    outcome = heretic("run", model_copy, "--profile", profile(), "--runs-dir", runs_dir, "--set", "n_trials=1")
    assert outcome.code == 0, outcome.err
    assert not fetched
    attempt(f"{place} = somebody/kernel in config.json", "not fetched, and the model loaded without")


TEMPLATES = {
    "another class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "format": "{{ '{0.__class__}'.format(messages) }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}{{ os.environ }}",
    "changing the messages": "{% set _ = messages.append(1) %}",
    "a very long range": "{% for i in range(10**9) %}x{% endfor %}",
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_chat_template_gets_at_nothing_but_the_messages(heretic, profile, runs_dir, model_copy, attempt, what):
    path = model_copy / "chat_template.jinja"
    path.write_text(TEMPLATES[what])
    outcome = heretic("run", model_copy, "--profile", profile(), "--runs-dir", runs_dir)
    assert outcome.code == 1
    assert "root:" not in outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    attempt(what, outcome.err.strip())


# Measurements


def test_measurements_of_a_strangers_run_are_not_taken_over(
    heretic, profile, runs_dir, model_dir, monkeypatch, tmp_path
):
    command = ("run", model_dir, "--profile", profile(n_trials=1), "--runs-dir", runs_dir, "--json")
    first, mine = heretic(*command), heretic(*command)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody else"))
    theirs = heretic(*command)
    taken = ["are taken from" in outcome.out for outcome in (first, mine, theirs)]
    assert taken == [False, True, False]


# Data sets


def card(data_files):
    return f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(data_files)}\n---\n"


CARDS = {
    "a file of this machine": card("/etc/hostname"),
    "a file above": card([{"split": "train", "path": "../../private.txt"}]),
    "a page of the net": card("https://example.org/prompts.jsonl"),
    "one's home": card("~/notes.txt"),
}


@pytest.mark.parametrize("what", CARDS)
def test_a_data_set_names_data_of_its_own_folder_only(heretic, profile, runs_dir, model_dir, tmp_path, attempt, what):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "train.txt").write_text("Tell me about rivers.\n")
    (folder / "README.md").write_text(CARDS[what])
    outcome = heretic("run", model_dir, "--profile", profile(bad=folder), "--runs-dir", runs_dir)
    outcome.is_plain("outside of its folder")
    attempt(f"the card names {what}", outcome.err.strip())


def test_a_saved_data_set_names_data_of_its_own_folder_only(heretic, profile, runs_dir, model_dir, tmp_path):
    import datasets

    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["Tell me about rivers."]}).save_to_disk(str(folder))
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../other/data-00000-of-00001.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    outcome = heretic("run", model_dir, "--profile", profile(bad=folder), "--runs-dir", runs_dir)
    outcome.is_plain("outside of its folder")


def test_so_many_layers_that_memory_would_not_hold_them_are_refused(heretic, profile, runs_dir, model_copy, attempt):
    path = model_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**9}))
    outcome = heretic("run", model_copy, "--profile", profile(), "--runs-dir", runs_dir)
    outcome.is_plain("layers", "config.json")
    attempt("a billion layers", outcome.err.strip())
