"""Following a run that another process works on: trials, progress, memory and log, each only once."""

import asyncio
import subprocess
import sys
import time

import pytest

from heretic_tui import following
from heretic_tui.engine.runs.live import read_others
from heretic_tui.engine.runs.requests import Request, ask
from heretic_tui.engine.runs.run import Run
from heretic_tui.following import Follower, Reader, Waiting, take
from heretic_tui.state import State, read_study

WORKER = """
import json, sys
from pathlib import Path
from heretic_tui.engine.events import Progress, TrialFinished, TrialStarted
from heretic_tui.engine.runs.live import Announcer
from heretic_tui.engine.runs.requests import Listener
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.storage.journal import repair_journal
from heretic_tui.engine.study.search import Search, open_study

run = Run(Path(sys.argv[1]))
with run.locked():
    repair_journal(run.journal)
    search = Search(open_study(run.profile, run.journal), run.profile)
    announcer, listener = Announcer(run.path, "cpu"), Listener(run.path)
    base = run.base_scores()
    while True:
        suggestion = search.ask(["attn.o_proj", "mlp.down_proj"], 3)
        announcer.tell(TrialStarted(suggestion.trial, search.wanted))
        announcer._next = listener._next = 0
        announcer.tell(Progress(f"trial {suggestion.trial}", 1, 2))
        record = search.tell(suggestion, base, base, 1.0)
        announcer.tell(TrialFinished(record, False))
        run.log(json.dumps(TrialFinished(record, False).as_json()))
        print("trial", record.trial, flush=True)
        if not sys.stdin.readline() or any(request.kind == "pause" for request in listener.requests()):
            break
    announcer.end()
"""
"""A worker that does a trial for every line it reads, with made-up scores: what is followed is its folder."""


@pytest.fixture
def worker(study):
    """Another process that does a trial at a time; `more()` lets it go on to the next one."""
    study.want(40)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(study.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def more():
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline()

    process.more = more
    assert process.stdout.readline() == "trial 5\n"
    yield process
    process.kill()
    process.communicate()


def test_the_view_of_a_run_keeps_up_with_its_folder(study, worker):
    view, reader = read_study(study.path), Reader(study.path)
    assert take(reader.look(), view)
    assert list(view.records) == [1, 2, 3, 4, 5]
    assert view.wanted == 40
    assert [one.owner.process for one in view.workers] == [worker.pid]
    assert view.followed.activity.phase
    assert view.followed.memory[-1].device == "host"
    lines = [line.text for line in view.followed.log]
    assert any(line.startswith("trial 5: ") for line in lines)
    front, volumes = list(view.front), list(view.volumes)

    worker.more()
    assert take(reader.look(), view)
    assert list(view.records) == [1, 2, 3, 4, 5, 6]
    assert len(view.volumes) == len(volumes) + 1
    assert sum(line.text.startswith("trial 5: ") for line in view.followed.log) == 1
    fresh = read_study(study.path)
    assert fresh.front == view.front
    assert fresh.volumes == view.volumes
    assert front


def test_a_folder_in_which_nothing_happens_is_not_read_again(study):
    reader = Reader(study.path)
    assert reader.look() is not None
    assert reader.look() is None
    study.want(9)
    news = reader.look()
    assert (news.study.wanted, news.study.records) == (9, [])


def test_a_journal_whose_cut_line_was_taken_back_is_read_on(study, worker):
    reader, view = Reader(study.path), read_study(study.path)
    take(reader.look(), view)
    worker.kill()
    worker.wait()
    with study.journal.open("ab") as file:
        file.write(b'{"op_code": 4, "stu')
    take(reader.look(), view)
    assert (view.workers, len(view.died)) == ((), 1)
    again = subprocess.run([sys.executable, "-c", WORKER, str(study.path)], input="", capture_output=True, text=True)
    assert "trial 6" in again.stdout, again.stderr
    take(reader.look(), view)
    assert list(view.records) == [1, 2, 3, 4, 5, 6]
    assert (view.workers, view.died) == ((), ())


def follow(study, told, steps, **attributes):
    """Let a follower keep a state up to date while `steps` go on."""
    state = State(shown=study.path, studies={study.path: read_study(study.path)}, **attributes)

    async def run():
        follower = asyncio.create_task(Follower(state, lambda *words: told.append(words), lambda: None).keep_up())
        await steps(state)
        follower.cancel()

    asyncio.run(run())


async def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_several_viewers_see_the_same_and_each_is_answered(study, worker):
    told = [[], []]

    async def steps(state):
        view = state.study
        await until(lambda: view.workers)
        state.waiting += [Waiting(one) for one in ask(study.path, Request("pause"))]
        await until(lambda: len(view.records) == 5)
        await asyncio.to_thread(worker.more)
        await until(lambda: not state.waiting and not view.workers)

    async def both(state):
        other = State(shown=study.path, studies={study.path: read_study(study.path)})
        follower = asyncio.create_task(Follower(other, lambda *words: told[1].append(words), lambda: None).keep_up())
        other.waiting += [Waiting(one) for one in ask(study.path, Request("pause"))]
        await steps(state)
        await until(lambda: not other.waiting and not other.study.workers)
        assert other.study.records == state.study.records
        follower.cancel()

    follow(study, told[0], both)
    words = f"Process {worker.pid} has answered: it pauses the study."
    assert told == [[(words, "information")], [(words, "information")]]


def test_that_nobody_answers_is_told(study, worker, monkeypatch):
    monkeypatch.setattr(following, "ANSWER", 0.1)
    told = []

    async def steps(state):
        state.waiting += [Waiting(one) for one in ask(study.path, Request("trials", 50))]
        await until(lambda: told)
        assert "Nobody has answered" in told[0][0]
        assert f"Process {worker.pid} is there" in told[0][0]
        worker.kill()
        worker.wait()
        await until(lambda: not state.waiting)

    follow(study, told, steps)
    assert told[1:] == [(f"Process {worker.pid} is gone, and nobody answers.", "warning")]


def test_a_damaged_folder_stops_no_follower(study, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    journal = study.journal.read_bytes()

    async def steps(state):
        study.journal.write_bytes(b"nothing of the kind\n" * 9)
        await asyncio.sleep(0.5)
        study.journal.write_bytes(journal)
        Run(study.path).want(9)
        await until(lambda: state.study.wanted == 9)

    follow(study, [], steps)


def test_what_this_process_works_on_is_not_followed(study, worker):
    async def steps(state):
        await asyncio.sleep(3 * following.LOOK)
        assert state.study.followed is None

    follow(study, [], steps, running=study.path)


def test_a_process_that_died_is_told_from_one_that_works(study, worker):
    assert [one.owner.process for one in read_study(study.path).workers] == [worker.pid]
    worker.kill()
    worker.wait()
    view = read_study(study.path)
    assert (view.workers, [one.owner.process for one in view.died]) == ((), [worker.pid])
    assert read_others(study.path) == (view.workers, view.died)
