"""The models screen: lists that fill by themselves, facts before loading, and what is asked of the engine."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from fakes import FACTS, NASTY, fake_app, records, run_job, text_of, until
from textual.widgets import Input

import heretic_tui.screens.models.shelf as shelf
from heretic_tui.demo import MODEL_DIR
from heretic_tui.engine import events
from heretic_tui.engine.checkpoints.catalog import ModelEntry
from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts
from heretic_tui.engine.checkpoints.permissions import Permissions, not_allowed, permissions_for, say_yes
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.memory import HOST, MemoryReading
from heretic_tui.engine.runs.summary import RunSummary
from heretic_tui.library import Known, RunReader, known_models, named, throw_away
from heretic_tui.profile import store
from heretic_tui.recents import recent_models, remember_model
from heretic_tui.screens.dialogs import Confirm
from heretic_tui.screens.models.dialogs import Busy
from heretic_tui.widgets.rows import Rows

FORBIDDEN = "\x1b\x00\x07\x9b\u202e\r\t"
GIB = 10**9


def made_facts(name: str = "made/up-7B", **fields: object) -> CheckpointFacts:
    values: dict[str, object] = {
        "name": name, "architecture": "LlamaForCausalLM", "parameters": 7_000_000_000, "layers": 32, "width": 4096,
        "dtype": "bfloat16", "size": 14 * GIB, "licence": "mit", "chat_template": True, "context_length": 8192,
        "needs_code": False, "pickled": False, "experts": 8,
        "writers_expected": {"attn.o_proj": 32, "mlp.down_proj": 256}, "cache_bytes_per_token": 131072,
        "vocabulary": 32000, "writer_parameters": 10**9, "embedding_parameters": 2 * 10**8,
    }  # fmt: skip
    return CheckpointFacts(**(values | fields))


def entry(name: str, kind="folder") -> ModelEntry:
    return ModelEntry(name, kind, Path(name), 14 * GIB, 1.0)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Nothing on this machine but what a test puts into it: models, facts by name, memory."""
    world = SimpleNamespace(known=Known((), (), frozenset()), found=[], facts={})
    world.memory = (MemoryReading(HOST, "Host memory", 4 * GIB, 24 * GIB),)

    def facts_of(name, entry):
        answer = world.facts.get(name, made_facts(name))
        if isinstance(answer, EngineError):
            raise answer
        return answer

    monkeypatch.setattr(shelf, "known_models", lambda: world.known)
    monkeypatch.setattr(shelf, "searched_models", lambda folders: iter([("the local cache", world.found)]))
    monkeypatch.setattr(shelf, "facts_of", facts_of)
    monkeypatch.setattr("heretic_tui.engine.memory.read_memory", lambda: world.memory)
    return world


def run_folder(tmp_path, name: str, text: str = "model = 'made/up-7B'\n") -> Path:
    path = tmp_path / "runs" / name
    path.mkdir(parents=True)
    (path / "profile.toml").write_text(text)
    return path


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


def models(app) -> Rows:
    return app.screen_stack[0].query_one("#models", Rows)


def runs(app) -> Rows:
    return app.screen_stack[0].query_one("#runs", Rows)


def shown(text: str, app) -> bool:
    return " ".join(text.split()) in " ".join(text_of(app).replace("│", " ").split())


# Lists


def test_a_first_time_user_is_offered_the_demo_with_one_key(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    started = []
    monkeypatch.setattr(app.control, "start", lambda name, loaded: started.append((name, loaded.name)))

    async def steps(pilot):
        await until(pilot, lambda: "try the embedded demo, offline" in text_of(app))
        await until(pilot, lambda: "demo-llama" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: started)
        assert started == [(str(MODEL_DIR), "demo")]
        await until(pilot, lambda: app.current_mode == "study")

    drive(app, steps)


def test_recent_models_come_first_then_the_demo_then_what_is_found(tmp_path, world):
    app = fake_app(tmp_path)
    demo = ModelEntry(str(MODEL_DIR), "demo", MODEL_DIR, 5_000_000, 1.0)
    world.known = Known(("made/recent", "/gone/model"), (demo,), frozenset({"/gone/model"}))
    world.found = [entry("/shelf/a/one"), entry("/shelf/b/one"), entry("made/recent", "hub")]

    async def steps(pilot):
        await until(pilot, lambda: len(models(app).rows) == 5)
        assert [row.cells[0] for row in models(app).rows] == ["made/recent", "model", "demo-llama", "a/one", "b/one"]
        assert [row.cells[1] for row in models(app).rows] == ["cache", "gone", "demo", "folder", "folder"]

    drive(app, steps, (120, 40))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_names_facts_and_problems_are_data(tmp_path, world, size):
    app = fake_app(tmp_path)
    world.known = Known(tuple(f"/shelf/{nasty}" for nasty in NASTY), (), frozenset())
    for nasty in NASTY:
        broken = EngineError(nasty, nasty)
        world.facts[f"/shelf/{nasty}"] = broken if nasty == NASTY[0] else made_facts(nasty, architecture=nasty)
    usable = [nasty.replace("/", "_").replace("\x00", "") for nasty in NASTY]
    for name in usable:
        run_folder(tmp_path, name, f"{name} is no TOML")

    async def steps(pilot):
        await until(pilot, lambda: len(models(app).rows) == len(NASTY) and len(runs(app).rows) == len(NASTY))
        for _ in NASTY:
            await until(pilot, lambda: models(app).key in app.screen.facts)
            await pilot.pause()
            assert not any(letter in text_of(app) for letter in FORBIDDEN)
            models(app).action_move(1)
        runs(app).focus()
        await until(pilot, lambda: len(app.screen.read) == len(NASTY))
        await until(pilot, lambda: "This run cannot be read." in text_of(app))
        assert not any(letter in text_of(app) for letter in FORBIDDEN)

    drive(app, steps, size)


def test_the_filter_narrows_both_lists_and_escape_ends_it(tmp_path, world):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/apple"), entry("/shelf/pear"), entry("made/apple-pie", "hub")]
    run_folder(tmp_path, "apple--default--1")
    run_folder(tmp_path, "pear--default--1")

    async def steps(pilot):
        await until(pilot, lambda: len(models(app).rows) == 3 and len(runs(app).rows) == 2)
        await pilot.press("slash", *"apple")
        assert [row.key for row in models(app).rows] == ["/shelf/apple", "made/apple-pie"]
        assert [row.key.name for row in runs(app).rows] == ["apple--default--1"]
        await pilot.press("escape")
        assert len(models(app).rows) == 3
        assert len(runs(app).rows) == 2
        assert app.focused is models(app)

    drive(app, steps)


def test_a_hub_id_typed_into_the_filter_is_taken_as_it_is(tmp_path, world):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/apple")]

    async def steps(pilot):
        await until(pilot, lambda: models(app).rows)
        await pilot.press("slash")
        app.screen.query_one("#filter", Input).value = "made/up-7B"
        await until(pilot, lambda: models(app).rows[-1].cells[1] == "typed")
        await pilot.press("enter")
        assert models(app).key == "made/up-7B"
        assert len(models(app).rows) == 2
        await until(pilot, lambda: "LlamaForCausalLM" in text_of(app))

    drive(app, steps)


def test_quitting_does_not_wait_for_a_slow_hub(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.known = Known(("made/slow",), (), frozenset())
    asked, answer, answered = Event(), Event(), Event()

    def waits(name, entry):
        asked.set()
        answer.wait(60)
        answered.set()
        raise EngineError("too late")

    monkeypatch.setattr(shelf, "facts_of", waits)

    async def steps(pilot):
        await until(pilot, asked.is_set)
        assert "Asking the hub" in text_of(app)

    drive(app, steps)
    assert not answered.is_set()
    answer.set()


def test_a_surprise_while_runs_are_read_is_told(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    run_folder(tmp_path, "one--default--1")

    def fails(self, run):
        raise ZeroDivisionError("[bold]odd[/]")

    monkeypatch.setattr(RunReader, "summary", fails)

    async def steps(pilot):
        await until(pilot, lambda: any("[bold]odd[/]" in line.text for line in app.control.state.log))
        assert len(runs(app).rows) == 1

    drive(app, steps)


def test_i_asks_for_a_name_and_goes_to_it(tmp_path, world):
    app = fake_app(tmp_path)

    async def steps(pilot):
        await pilot.press("i")
        app.screen.query_one(Input).value = " https://huggingface.co/made/up-7B/tree/main "
        await pilot.press("enter")
        assert models(app).key == "made/up-7B"

    drive(app, steps)


@pytest.mark.parametrize(
    ("typed", "name"),
    [("  a/b ", "a/b"), ("huggingface.co/a/b", "a/b"), ("https://huggingface.co/a/b/blob/main/x", "a/b"),
     ("'/x/y z'", "/x/y z"), ("/x/../y/", "/y"), ("gpt2", "gpt2"), ("", "")],
)  # fmt: skip
def test_what_a_person_types_or_pastes_names_a_model(typed, name):
    assert named(typed) == name


# Facts


def test_facts_and_fit_are_there_before_loading(tmp_path, world):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]

    async def steps(pilot):
        await until(pilot, lambda: "will it fit" in text_of(app))
        for words in ("7 B", "LlamaForCausalLM", "32, 4096 wide", "bfloat16, 14 GB", "8,192 tokens", "experts", "mit",
                      "32 × attn.o_proj", "256 × mlp.down_proj", "a chat model", "host, 20 GB free"):  # fmt: skip
            assert shown(words, app), words
        assert "✓ fits" in text_of(app)

    drive(app, steps, (120, 40))


def test_facts_are_read_again_where_a_search_finds_the_model_under_the_cursor_changed(tmp_path, world):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]

    async def steps(pilot):
        await until(pilot, lambda: shown("7 B", app))
        world.found = [replace(entry("/shelf/seven"), size=15 * GIB)]
        world.facts["/shelf/seven"] = made_facts(parameters=8_000_000_000)
        app.screen_stack[0]._search()
        await until(pilot, lambda: shown("8 B", app))

    drive(app, steps, (120, 40))


def test_a_model_that_is_too_large_says_so_for_each_card(tmp_path, world):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]
    cards = (MemoryReading("cuda:0", "A", 0, 8 * GIB), MemoryReading("cuda:1", "B", 0, 24 * GIB))
    world.memory = (*cards, MemoryReading(HOST, "Host memory", 0, 500 * GIB))

    async def steps(pilot):
        await until(pilot, lambda: "cuda:1, 24 GB free" in text_of(app))
        text = text_of(app)
        assert "cuda:0, 8 GB free" in text
        assert "all 2 cards, 32 GB free" in text
        assert "✗ too large" in text
        assert "✓ fits" in text
        assert "500 GB" not in text

    drive(app, steps, (120, 40))


def test_facts_that_cannot_be_had_say_why(tmp_path, world):
    app = fake_app(tmp_path)
    world.known = Known(("made/secret",), (), frozenset())
    world.facts["made/secret"] = EngineError("made/secret is gated.", "Accept its terms first.")

    async def steps(pilot):
        await until(pilot, lambda: "is gated." in text_of(app))
        assert shown("Accept its terms first.", app)

    drive(app, steps)


def test_a_broken_profile_costs_the_fit_and_is_named(tmp_path, world, monkeypatch):
    from heretic_tui.profile.problems import Problem, ProfileError

    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]

    def fails():
        raise ProfileError("mine", [Problem(3, "n_trials", "is wrong [bold]")])

    monkeypatch.setattr(app.control, "chosen_profile", fails)
    monkeypatch.setattr(app.control, "load", lambda name: pytest.fail("it was loaded"))

    async def steps(pilot):
        await until(pilot, lambda: "is wrong [bold]" in text_of(app))
        assert "LlamaForCausalLM" in text_of(app)
        await pilot.press("enter")
        await pilot.pause()

    drive(app, steps, (120, 40))


# Loading and starting


def test_enter_loads_remembers_and_then_says_what_next(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.found = [entry("made/up-7B", "hub")]
    said = [events.Progress("weights", 2, 5, "shards"), events.ModelLoaded(FACTS)]
    monkeypatch.setattr(app.control, "load", lambda name: run_job(app, *said, title="load", pause=0.3))

    async def steps(pilot):
        await until(pilot, lambda: "7 B" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "2/5 shards" in text_of(app))
        await until(pilot, lambda: "in memory" in text_of(app))
        assert "● made/up-7B" in text_of(app)
        assert "start the study" in text_of(app)
        assert recent_models() == ["made/up-7B"]

    drive(app, steps)


def test_loading_is_cancelled_by_escape(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]
    monkeypatch.setattr(app.control, "load", lambda name: run_job(app, title="load", forever=True))

    async def steps(pilot):
        await until(pilot, lambda: "will it fit" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.control.worker.current == "load" and "Cancel" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.control.worker.busy)
        await until(pilot, lambda: "Cancel" not in text_of(app))

    drive(app, steps)


def test_pickled_weights_are_asked_for_too(tmp_path, world, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = fake_app(tmp_path)
    world.known = Known(("made/pickled",), (), frozenset())
    world.facts["made/pickled"] = made_facts("made/pickled", needs_code=True, pickled=True)
    loaded = []
    monkeypatch.setattr(app.control, "load", loaded.append)

    async def steps(pilot):
        await until(pilot, lambda: "made/pickled" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Run the code of made/pickled?" in text_of(app))
        await pilot.press("y")
        await until(pilot, lambda: "Load the pickled weights of made/pickled?" in text_of(app))
        assert not loaded
        await pilot.press("y")
        assert loaded == ["made/pickled"]
        profile = app.control.trusting("made/pickled", store.resolve(None)).profile
        assert (profile.trust_remote_code, profile.allow_pickle) == (True, True)

    drive(app, steps, (120, 40))


def test_what_was_allowed_before_is_not_asked_again_until_the_model_changes(tmp_path, world, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "coded"
    folder.mkdir()
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "own.Own"}}')
    say_yes("code", str(folder))
    permissions_for(str(folder), folder, None, Permissions(code=True))
    asked = []
    for changed in (False, True):
        if changed:
            (folder / "own.py").write_text("changed = True")
        app = fake_app(tmp_path)
        world.found = [entry(str(folder))]
        world.facts[str(folder)] = made_facts(str(folder), needs_code=True)
        loaded = []
        monkeypatch.setattr(app.control, "load", loaded.append)

        async def steps(pilot, app=app, loaded=loaded):
            await until(pilot, lambda: "will it fit" in text_of(app))
            await pilot.press("enter")
            await until(pilot, lambda: loaded or isinstance(app.screen, Confirm))
            asked.append(not loaded)

        drive(app, steps, (120, 40))
    assert asked == [False, True]


def test_a_job_that_fails_for_want_of_a_yes_asks_for_it(tmp_path, world, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = fake_app(tmp_path)
    loaded = []
    monkeypatch.setattr(app.control, "load", loaded.append)

    def refused(session):
        raise not_allowed("made/[b]coded", "code")

    async def steps(pilot):
        for title in ("load", "study"):
            app.control.worker.submit(title, refused)
            await until(pilot, lambda: "Run the code of [b]coded?" in text_of(app))
            await pilot.press("y")
            await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert loaded == ["made/[b]coded"]
        assert ("made/[b]coded", "code") in app.control.trusted

    drive(app, steps, (120, 40))


def test_code_of_the_repository_is_run_only_after_a_yes(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.known = Known(("made/coded", "made/plain"), (), frozenset())
    world.facts["made/coded"] = made_facts("made/coded", needs_code=True)
    loaded = []
    monkeypatch.setattr(app.control, "load", loaded.append)

    async def steps(pilot):
        await until(pilot, lambda: "you are asked before it runs" in " ".join(text_of(app).replace("│", "").split()))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")  # enter alone is a no
        assert not loaded
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        assert loaded == ["made/coded"]
        default = store.resolve(None)
        assert app.control.trusting("made/coded", default).profile.trust_remote_code
        assert not app.control.trusting("made/plain", default).profile.trust_remote_code

    drive(app, steps, (120, 40))


def test_s_starts_a_study_of_the_model_under_the_cursor(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]
    started = []
    monkeypatch.setattr(app.control, "start", lambda name, loaded: started.append((name, loaded.name)))

    async def steps(pilot):
        await until(pilot, lambda: models(app).rows)
        await pilot.press("s")
        await until(pilot, lambda: started and app.current_mode == "study")
        assert started == [("/shelf/seven", "default")]

    drive(app, steps)


def test_the_demonstration_model_is_studied_with_its_own_profile(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    world.known = Known((), (ModelEntry(str(MODEL_DIR), "demo", MODEL_DIR, 5_000_000, 1.0),), frozenset())
    started = []
    monkeypatch.setattr(app.control, "start", lambda name, loaded: started.append((name, loaded.name)))

    async def steps(pilot):
        await until(pilot, lambda: "study it, profile demo" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: started == [(str(MODEL_DIR), "demo")])

    drive(app, steps, (120, 40))


@pytest.mark.parametrize(
    ("answer", "stopped", "mode"), [("stop", True, "study"), ("queue", False, "models"), ("", None, "models")]
)
def test_a_busy_engine_asks_what_comes_first(tmp_path, world, monkeypatch, answer, stopped, mode):
    app = fake_app(tmp_path)
    world.found = [entry("/shelf/seven")]
    started = []
    monkeypatch.setattr(app.control, "start", lambda name, loaded: started.append(name))

    async def steps(pilot):
        await until(pilot, lambda: "will it fit" in text_of(app))
        run_job(app, forever=True)
        await until(pilot, lambda: app.control.studying)
        app.screen.action_start()
        await until(pilot, lambda: isinstance(app.screen, Busy))
        await until(pilot, lambda: "The engine is at work: study" in text_of(app))
        app.screen.action_answer(answer)
        expected = [] if stopped is None else ["/shelf/seven"]
        await until(pilot, lambda: not isinstance(app.screen, Busy) and started == expected)
        assert app.current_mode == mode
        if stopped:
            await until(pilot, lambda: not app.control.worker.busy)
        else:
            assert app.control.studying
            app.control.stop()

    drive(app, steps)


# Runs


def summary_of(path: Path, **fields: object) -> RunSummary:
    values: dict[str, object] = {
        "name": path.name, "path": path, "model": "made/up-7B", "trials": 3, "wanted": 9, "finished": False,
        "best": records(3)[0], "begun": 1_700_000_000.0, "problem": None,
    }  # fmt: skip
    return RunSummary(**(values | fields))


def test_runs_show_what_they_are_about_and_open_without_their_model(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    path = run_folder(tmp_path, "up-7B--default--1")
    monkeypatch.setattr(RunReader, "summary", lambda self, run: summary_of(run))
    opened = []
    monkeypatch.setattr(app, "open_run", opened.append)

    async def steps(pilot):
        await until(pilot, lambda: "3/9" in text_of(app))
        await pilot.press("tab")
        for words in ("made/up-7B", "paused, 3 of 9 trials", "trial 1", "refusals 37/100", "KL 0.0"):
            assert shown(words, app), words
        await pilot.press("enter")
        await until(pilot, lambda: opened == [path])

    drive(app, steps)


def test_r_resumes_a_run_after_reading_it(tmp_path, world, monkeypatch):
    app = fake_app(tmp_path)
    path = run_folder(tmp_path, "up-7B--default--1", store.dump(store.resolve("demo").profile))
    resumed = []
    monkeypatch.setattr(app.control, "resume", lambda path, trials=None: resumed.append(path))

    async def steps(pilot):
        await until(pilot, lambda: runs(app).rows)
        runs(app).focus()
        await pilot.press("r")
        await until(pilot, lambda: resumed == [path] and app.current_mode == "study")
        assert app.control.state.shown == path

    drive(app, steps)


def test_deleting_a_run_asks_and_moves_it_to_the_trash(tmp_path, world):
    app = fake_app(tmp_path)
    path = run_folder(tmp_path, "up-7B--default--1")

    async def steps(pilot):
        await until(pilot, lambda: runs(app).rows)
        runs(app).focus()
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")  # enter alone is a no
        assert path.is_dir()
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not path.exists())
        assert (path.parent / ".trash" / path.name / "profile.toml").is_file()
        await until(pilot, lambda: "Begin here" in text_of(app))

    drive(app, steps)


def test_the_run_under_way_is_marked_and_stays(tmp_path, world):
    app = fake_app(tmp_path)
    path = run_folder(tmp_path, "up-7B--default--1")

    async def steps(pilot):
        run_job(app, events.RunOpened(path.name, path, False, 0, 9), forever=True)
        await until(pilot, lambda: f"● {path.name}" in text_of(app))
        runs(app).focus()
        app.screen.action_throw_away()
        await pilot.pause()
        assert not isinstance(app.screen, Confirm)
        app.control.stop()

    drive(app, steps)


def test_a_run_that_another_process_works_on_is_not_moved(tmp_path):
    from heretic_tui.engine.runs.run import Run

    path = run_folder(tmp_path, "one--default--1")
    with Run(path).locked(), pytest.raises(EngineError, match="Another process"):
        throw_away(path)
    assert path.is_dir()


def test_runs_of_the_same_name_find_room_in_the_trash(tmp_path):
    places = [throw_away(run_folder(tmp_path, "one--default--1")) for _ in range(3)]
    assert [place.name for place in places] == ["one--default--1", "one--default--1.2", "one--default--1.3"]


def test_a_run_is_read_again_only_when_its_study_has_changed(tmp_path, monkeypatch):
    import heretic_tui.engine.runs.summary as engine_summary

    path = run_folder(tmp_path, "one--default--1")
    (path / "study.journal").write_text("a")
    read = []
    monkeypatch.setattr(engine_summary, "summarize", lambda run: read.append(run) or summary_of(run.path))
    reader = RunReader(tmp_path / "runs")
    assert reader.runs() == [path]
    reader.summary(path)
    reader.summary(path)
    assert len(read) == 1
    (path / "study.journal").write_text("ab")
    reader.summary(path)
    assert len(read) == 2


def test_recent_models_that_are_not_there_any_more_are_known_as_gone(tmp_path):
    remember_model(str(tmp_path / "nothing"))
    remember_model("made/up-7B")
    known = known_models()
    assert known.recent == ("made/up-7B", str(tmp_path / "nothing"))
    assert known.gone == {str(tmp_path / "nothing")}
    assert [one.kind for one in known.entries] == ["demo"]


def test_the_screen_imports_nothing_heavy():
    import subprocess

    code = "import sys, heretic_tui.app, heretic_tui.screens.models.screen; print(*sys.modules)"
    names = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    heavy = {"torch", "pydantic", "huggingface_hub", "optuna", "transformers", "numpy", "tomlkit"}
    assert not names & heavy
