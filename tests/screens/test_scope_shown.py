"""What a study leaves out, as its screen shows it."""

import asyncio
from dataclasses import replace

from fakes import fake_app, record, study, text_of

from heretic_tui.engine.ablation.style import AblationStyle
from heretic_tui.engine.parameters import EMBEDDINGS, Kernel
from heretic_tui.screens.study import trials


def with_embeddings(trial=1):
    found = record(trial, 10, 0.1)
    kernels = {**found.parameters.kernels, EMBEDDINGS: Kernel.of_embeddings(0.85)}
    return replace(found, parameters=replace(found.parameters, kernels=kernels))


def weights(style, found=None):
    return {part.component: part.weights for part in trials.weights(found or record(1, 10, 0.1), 12, style)}


def test_the_layer_weights_are_zero_outside_the_ranges_and_the_kernels_inside():
    everywhere, chosen = weights(AblationStyle()), weights(AblationStyle(layers=(4, 5, 8)))
    for component, whole in everywhere.items():
        assert any(whole[layer] for layer in range(12) if layer not in {4, 5, 8})
        expected = [weight if layer in {4, 5, 8} else 0.0 for layer, weight in enumerate(whole)]
        assert list(chosen[component]) == expected


def test_the_embeddings_have_one_bar_with_their_weight():
    found = with_embeddings()
    assert weights(AblationStyle(embeddings=True), found)[EMBEDDINGS] == (0.85,)
    (part,) = (one for one in trials.weights(found, 12) if one.component == EMBEDDINGS)
    assert part.words == "0.85"


def test_the_trial_says_what_was_left_out(tmp_path):
    view = study(tmp_path / "run")
    plain = trials.words(view, 1)
    view.style = AblationStyle(components=("attn.o_proj",), layers=(8, 9, 10, 14), embeddings=True)
    assert trials.words(view, 1) == f"{plain}; only attn.o_proj, only layers 8-10, 14, embeddings too"


def test_the_screen_shows_all_of_it(tmp_path):
    app = fake_app(tmp_path)
    view = study(tmp_path / "run")
    view.style = AblationStyle(layers=(6, 7), embeddings=True)
    for trial in list(view.records):
        view.add(with_embeddings(trial))

    async def steps():
        async with app.run_test(size=(200, 60)) as pilot:
            await pilot.pause()
            app.switch_mode("study")
            await pilot.pause()
            app.control.show(view)
            app.screen_stack[0].engine_changed(())
            await pilot.pause()
            text = text_of(app)
            assert "only layers 6-7, embeddings too" in text
            assert "embed_tokens 0.85" in text
            columns = next(line for line in text.splitlines() if "refusals" in line and "scope" in line)
            assert columns.split("mlp")[1].split()[0] == "embed"
            assert "0.85@" not in text

    asyncio.run(steps())
