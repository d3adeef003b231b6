"""The study screen over a scripted engine."""

import asyncio

import pytest
from fakes import BASE, FACTS, NASTY, fake_app, record, records, run_job, study, text_of, until
from textual.widgets import Static

from heretic_tui.engine import events
from heretic_tui.engine.records import Label, Response
from heretic_tui.screens.study.responses import Pages, ResponsesScreen
from heretic_tui.state import StudyView
from heretic_tui.widgets.rows import Rows
from heretic_tui.widgets.scatter import Scatter


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            app.switch_mode("study")
            await pilot.pause()
            await steps(pilot)

    asyncio.run(run())


def shown(app, view: StudyView) -> None:
    app.control.show(view)
    app.screen_stack[0].engine_changed(())


def table(app) -> Rows:
    return app.screen_stack[0].query_one("#table", Rows)


def test_without_a_run_it_says_what_to_do(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        assert "No run is open." in text_of(app)

    drive(app, steps)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_a_run_shows_its_trials_scatter_and_selected_trial(tmp_path, size):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, study(tmp_path / "run"))
        await pilot.pause()
        text = text_of(app)
        assert "12/12 trials" in text
        assert "orig" in text
        assert "★" in text
        assert "KL, nats" in text
        assert "attn.o_proj" in text
        assert "finished" in text

    drive(app, steps, size)


def test_table_and_scatter_are_one_selection(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, study(tmp_path / "run"))
        await pilot.pause()
        scatter = app.screen.query_one(Scatter)
        assert scatter.selected == table(app).key
        await pilot.press("down")
        assert scatter.selected == table(app).key
        x, y = scatter._places[7]
        await pilot.click(Scatter, offset=(x, y))
        await until(pilot, lambda: table(app).key == scatter.selected == app.control.trial == 7)

    drive(app, steps, (120, 40))


def test_left_and_right_walk_along_the_front(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 40)
        shown(app, view)
        await pilot.pause()
        by_divergence = sorted(view.front, key=lambda one: one.scores["kl_divergence"].value)
        table(app).select(by_divergence[0].trial)
        await pilot.press("right")
        assert table(app).key == by_divergence[1].trial
        await pilot.press("left", "left")
        assert table(app).key == by_divergence[0].trial

    drive(app, steps)


def test_the_front_alone_and_other_orders_are_a_key_away(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 40)
        shown(app, view)
        await pilot.press("f")
        assert {row.key for row in table(app).rows} == view.on_front | {0}
        await pilot.press("f", "s")
        assert table(app).rows[0].key == 40
        await pilot.press("s")
        refusals = [view.records[row.key].scores["refusals"].count for row in table(app).rows if row.key]
        assert refusals == sorted(refusals)

    drive(app, steps)


def test_phases_are_seen_before_the_first_trial(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        run_job(
            app,
            events.ModelLoaded(FACTS),
            events.PhaseFinished("batch size", 2.0, "16 prompts"),
            events.Progress("residuals of good prompts", 20, 100, "prompts"),
            forever=True,
        )
        await until(pilot, lambda: "16 prompts" in text_of(app))
        assert "waiting" in text_of(app)  # what is done now, with its progress
        app.control.stop()
        await until(pilot, lambda: app.control.state.activity is None)

    drive(app, steps)


def test_trials_arrive_one_by_one_and_pause_stops_the_job(tmp_path):
    app = fake_app(tmp_path)
    path = tmp_path / "run"

    async def steps(pilot):
        app.control.show(study(path, 0, wanted=9))
        said = [events.RunOpened("run", path, True, 0, 9), events.BaselineMeasured(BASE)]
        for one in records(3):
            said += [events.TrialStarted(one.trial, 9), events.TrialFinished(one, True)]
        run_job(app, *said, events.TrialStarted(4, 9), forever=True)
        await until(pilot, lambda: "3/9 trials" in text_of(app))
        assert "trial 4/9" in text_of(app)
        assert "left" in text_of(app)
        await pilot.press("p")
        await until(pilot, lambda: "paused: p resumes" in text_of(app))

    drive(app, steps)


def test_a_trial_that_ended_early_says_so(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 3)
        view.add(record(4, 99, 2.0, ended_early=True))
        shown(app, view)
        app.control.trial = 4
        app.screen.action_sort()
        await until(pilot, lambda: "⋯" in text_of(app))
        assert "ended early" in text_of(app)

    drive(app, steps, (120, 40))


def test_a_failed_job_says_why_and_the_traceback_is_a_key_away(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        def fails(session):
            yield events.Note("begun")
            raise RuntimeError("[bold]odd[/] \x1b[31m")

        app.control.worker.submit("study", fails)
        await until(pilot, lambda: "Something unforeseen happened" in text_of(app))
        assert "[bold]odd[/] \\x1b[31m" in " ".join(text_of(app).split())
        await pilot.press("!")
        await until(pilot, lambda: "Traceback" in text_of(app))
        await pilot.press("escape", "escape")
        assert "unforeseen" not in text_of(app)

    drive(app, steps, (120, 40))


def test_five_hundred_trials_keep_one_selection_and_a_right_front(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 500)
        shown(app, view)
        await until(pilot, lambda: "500/500 trials" in text_of(app))
        beaten = {
            a.trial
            for a in view.records.values()
            for b in view.records.values()
            if b.trial != a.trial
            and all(b.scores[name].value <= a.scores[name].value for name in BASE)
            and (any(b.scores[name].value < a.scores[name].value for name in BASE) or b.trial < a.trial)
        }
        assert view.on_front == set(view.records) - beaten

    drive(app, steps)


@pytest.mark.parametrize("nasty", NASTY)
def test_names_notes_and_phases_are_data(tmp_path, nasty):
    app = fake_app(tmp_path)

    async def steps(pilot):
        view = study(tmp_path / "run", 3)
        view.path = tmp_path / nasty.replace("/", "_").replace("\x00", "")
        shown(app, view)
        run_job(app, events.Note(nasty, "warning"), events.PhaseFinished(nasty, 1, nasty), title=nasty)
        await until(pilot, lambda: any(nasty in line.text for line in app.control.state.log))
        await pilot.press("g")
        text = text_of(app)
        assert not any(letter in text for letter in "\x1b\x00\x07\x9b\u202e\r\t")
        if nasty.startswith("["):
            assert nasty in text

    drive(app, steps, (120, 40))


# Responses


def response(number: int, label: Label, text: str, marker: str | None = None) -> Response:
    return Response("test set", f"prompt {number}", text, "eos", label, marker)


def open_responses(app, monkeypatch, pages: Pages):
    monkeypatch.setattr("heretic_tui.screens.study.responses.read_pages", lambda study, trial: pages)
    app.push_screen(ResponsesScreen(app.control.state.study, pages.trial))


def prompts(app):
    return [row for rows in app.screen.query(Rows) for row in rows.rows]


def pages(*responses: Response, base: list[Response] | None = None) -> Pages:
    return Pages(1, list(responses), base or [response(0, Label.REFUSAL, "Sorry, no.", "sorry")] * len(responses), {},
                 BASE, BASE)  # fmt: skip


@pytest.mark.parametrize("nasty", NASTY)
def test_responses_and_prompts_are_data(tmp_path, monkeypatch, nasty):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, study(tmp_path / "run", 3))
        one = Response(nasty, nasty, nasty, "eos", Label.ANSWER, nasty, nasty, True)
        open_responses(app, monkeypatch, pages(one, base=[one]))
        await until(pilot, lambda: prompts(app))
        text = text_of(app)
        assert not any(letter in text for letter in "\x1b\x00\x07\x9b\u202e\r\t")
        if nasty.startswith("["):
            assert text.count(nasty) >= 3

    drive(app, steps, (120, 40))


def test_views_and_filter_narrow_the_prompts(tmp_path, monkeypatch):
    app = fake_app(tmp_path)
    told = pages(
        response(1, Label.ANSWER, "A fine river."), response(2, Label.REFUSAL, "Sorry.", "sorry"),
        response(3, Label.ANSWER, "A fine lake."),
    )  # fmt: skip

    async def steps(pilot):
        shown(app, study(tmp_path / "run", 3))
        open_responses(app, monkeypatch, told)
        await until(pilot, lambda: len(prompts(app)) == 3)
        await pilot.press("v")
        assert [row.key for row in prompts(app)] == [1]
        await pilot.press("v", "v", "v", "slash", *"lake", "enter")
        assert [row.key for row in prompts(app)] == [2]
        await pilot.press("escape")
        assert len(prompts(app)) == 3
        await pilot.press("escape")
        assert not isinstance(app.screen, ResponsesScreen)

    drive(app, steps)


def test_the_marker_is_lit_and_named(tmp_path, monkeypatch):
    app = fake_app(tmp_path)

    async def steps(pilot):
        shown(app, study(tmp_path / "run", 3))
        open_responses(app, monkeypatch, pages(response(1, Label.REFUSAL, "I am SORRY to say", "sorry")))
        await until(pilot, lambda: prompts(app))
        content = app.screen.query_one("#own", Static).content
        lit = [content.plain[span.start : span.end] for span in content.spans]
        assert lit == ["SORRY"]
        assert "marker “sorry”" in text_of(app)

    drive(app, steps, (120, 40))


def test_a_trial_of_several_directions_says_how_many_join():
    from heretic_tui.engine.parameters import AblationParameters
    from heretic_tui.engine.records import TrialRecord
    from heretic_tui.screens.study import trials

    def record(index, dimensions):
        return TrialRecord(1, AblationParameters(index, {}, dimensions), {}, 1.0)

    shown = [trials.scope(record(*of)) for of in ((None, 1), (12.34, 1), (None, 3), (12.34, 2))]
    assert shown == ["each", "12.3", "each+2", "12.3+1"]
