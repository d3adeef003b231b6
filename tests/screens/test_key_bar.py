"""The bottom line tells the keys, and answers the mouse."""

import asyncio

from fakes import fake_app, study, text_of, until

from heretic_tui.widgets.key_bar import KeyBar


def drive(app, steps, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.2)
            await steps(pilot)

    asyncio.run(run())


def test_the_way_to_the_help_is_always_told(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        app.switch_mode("study")
        await pilot.pause(0.2)
        for width in (200, 80, 40, 20):
            await pilot.resize_terminal(width, 24)
            await until(pilot, lambda: "? Help" in text_of(app).splitlines()[-1])

    drive(app, steps)


def test_a_click_on_a_key_is_as_good_as_the_key(tmp_path):
    app = fake_app(tmp_path)

    async def steps(pilot):
        app.control.show(study(tmp_path / "run"))
        app.switch_mode("study")
        await pilot.pause(0.2)
        at = text_of(app).splitlines()[-1].index("f Front")
        await pilot.click(KeyBar, offset=(at + 3, 0))
        await until(pilot, lambda: app.screen.front_only)

    drive(app, steps, (120, 30))
