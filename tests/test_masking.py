"""Secrets are hidden wherever words leave the program."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note
from heretic_tui.formats import json_line
from heretic_tui.logs import Masked
from heretic_tui.masking import MASK, holds_password, holds_token, masked
from heretic_tui.profile import store
from heretic_tui.profile.draft import Draft, keep
from heretic_tui.profile.problems import ProfileError
from heretic_tui.profile.schema import Profile
from heretic_tui.recents import recents_file, remember_model
from heretic_tui.state import State
from heretic_tui.worker import failure_of

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7" * 2
PASSWORD = "correct-horse/battery@staple"
ADDRESS = f"postgresql+psycopg://me:{PASSWORD}@db.example.org:5432/studies"
SECRETS = {
    "a token of the hub": (f"could not log in with {TOKEN}.", TOKEN),
    "a token in an address": (f"https://me:{TOKEN}@huggingface.co/a/b", TOKEN),
    "a token in a header": (f"{{'authorization': 'Bearer {TOKEN}'}}", TOKEN),
    "another bearer": ("Authorization: Bearer 0123456789abcdef-xyz", "0123456789abcdef-xyz"),
    "a password in an address": (f"cannot reach {ADDRESS} now", PASSWORD),
    "a password without a user": ("redis://:open-sesame-1@host/0", "open-sesame-1"),
    "a password in a query": ("postgresql://host/db?user=me&password=open-sesame-1&x=1", "open-sesame-1"),
    "a signed address": ("https://cdn/x?X-Amz-Signature=0a1b2c3d4e5f&Expires=1", "0a1b2c3d4e5f"),
    "a driver's own words": ('connection failed: host=db user=me password=open-sesame-1 dbname="x"', "open-sesame-1"),
    "an environment": ("HF_TOKEN=abcdefgh PATH=/bin", "abcdefgh"),
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "xdg"))
    for name in ("HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def logged(text):
    try:
        raise RuntimeError(text)
    except RuntimeError:
        import sys

        record = logging.LogRecord("library", logging.ERROR, "file.py", 1, "said %s", (text,), sys.exc_info())
    return Masked("%(message)s").format(record)


def screen_log(text):
    state = State()
    state.say(text)
    return state.log[-1].text


WAYS_OUT = {
    "log": logged,
    "event": lambda text: Note(text).text,
    "--json": lambda text: json_line({"event": "failed", "error": text, "more": [text]}),
    "error": lambda text: str(EngineError(text, text)),
    "failure": lambda text: str(failure_of(raised(RuntimeError(text)))),
    "chained failure": lambda text: str(failure_of(raised(EngineError(text)).with_traceback(None))),
    "screen": screen_log,
}


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_leaves_the_program(kind, way, attempt):
    text, secret = SECRETS[kind]
    out = WAYS_OUT[way](text)
    assert secret not in out
    assert MASK in out
    if way == "--json":
        assert json.loads(out)["event"] == "failed"
    attempt(f"{kind}: {way}", masked(text))


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/v1",
        "a basic understanding of tokens",
        "The password was strong: nobody knows it.",
        "mailto me@example.org, ratio 3:4@home",
        "hf_model",
        "C:\\models\\x",
        "trial 3: refusals 4/100, KL 0.0137",
        "tokens = 12",
        "git@github.com:org/repo.git",
    ],
)
def test_words_that_hide_nothing_stay_as_they_are(text):
    assert masked(text) == text


def test_what_the_environment_keeps_is_hidden_in_every_form(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", 'sesame/"öffne" dich')
    for text in ('sesame/"öffne" dich', "sesame%2F%22%C3%B6ffne%22%20dich", json.dumps('x sesame/"öffne" dich')):
        assert "dich" not in masked(text)
    monkeypatch.setenv("MY_API_KEY", "short")
    assert masked("a short word") == "a short word"


def test_the_token_that_the_hub_keeps_in_its_file_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert masked("an-odd-token-1") == "an-odd-token-1"
    (tmp_path / "token").write_text("an-odd-token-1\n")
    assert masked("it is an-odd-token-1.") == f"it is {MASK}."
    assert holds_token("an-odd-token-1")


@settings(max_examples=30)
@given(st.text(), st.text("abc@/?#é ", min_size=1))
def test_a_line_of_json_stays_one(text, more):
    value = {"text": text, "address": f"x://u:{more}@h", "said": f'password={more}" token='}
    assert json.loads(json_line(value)).keys() == value.keys()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"\\<>"), min_size=3))
def test_no_password_survives_in_an_address(password):
    assert f":{password}@" not in masked(f"see postgresql://me:{password}@host/name here")
    assert holds_password(f"postgresql://me:{password}@host/name")


SAVED = {
    "storage": ADDRESS,
    "storage, in its query": "postgresql://host/db?password=open-sesame-1",
    "model": f"https://me:{TOKEN}@huggingface.co/a/b",
    "system_prompt": f"My token is {TOKEN}.",
    "bad_prompts.dataset": f"https://me:{PASSWORD}@host/prompts.jsonl",
}


@pytest.mark.parametrize("key", SAVED)
def test_a_profile_with_a_secret_is_refused_and_nothing_of_it_is_written(tmp_path, attempt, key):
    name, value = key.partition(",")[0], SAVED[key]
    secrets = [TOKEN, PASSWORD, "open-sesame-1"]
    table, _, last = name.rpartition(".")
    text = f"[{table}]\n" * bool(table) + f"{last} = {json.dumps(value)}\n"
    default = store.resolve(None)
    for way in (
        lambda: store.from_text(text, "own"),
        lambda: store.resolve(None, [f"{name}={value}"]),
        lambda: store.set_value(default, name, value),
        lambda: Draft(default, default).with_text(text),
    ):
        with pytest.raises(ProfileError) as told:
            way()
        assert not any(secret in f"{told.value}{failure_of(told.value)}" for secret in secrets)
    keep(Draft(store.set_value(default, "n_trials", 7), default))
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(secret in content for content in files for secret in secrets)
    attempt(f"{key} = {masked(value)}", told.value.problems[0].reason)


def test_a_model_is_not_remembered_with_a_secret_in_its_name():
    remember_model(f"https://me:{TOKEN}@huggingface.co/a/b")
    assert not recents_file().exists() or TOKEN not in recents_file().read_text()


def test_an_address_without_a_password_is_kept_as_it_is():
    assert Profile(storage="postgresql://me@host/name").storage == "postgresql://me@host/name"
    assert not holds_password("postgresql://me@host:5432/name?sslmode=require")
