"""Every architecture: all that writes into the residual stream is known, a study runs, and its export is whole."""

import re
from pathlib import Path

import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    POST_NORMED,
    WIDTH,
    result,
    same_direction,
    same_weights,
    tiny_model,
    tiny_network,
    tiny_tokenizer,
    unit,
    weights_of,
)

from heretic_tui.engine import pipeline
from heretic_tui.engine.ablation.style import AblationStyle, style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.loading.coverage import probe
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.parameters import ATTENTION, MLP, AblationParameters, Kernel
from heretic_tui.engine.runs.run import Run
from heretic_tui.profile.schema import Profile

KINDS = {
    "qwen2_moe": {"attention": 3, "4 experts each": 12, "shared expert": 3},
    "qwen3_moe": {"attention": 3, "4 experts each": 12},
    "mixtral": {"attention": 3, "4 experts each": 12},
    "gpt_oss": {"attention": 3, "4 experts each": 12},
    "deepseek_v3": {"attention": 3, "MLP": 1, "4 experts each": 8, "shared expert": 2},
    "qwen3_next": {"linear attention": 2, "attention": 1, "4 experts each": 12, "shared expert": 3},
    "qwen3_5": {"linear attention": 2, "MLP": 3, "attention": 1},
    "llama4": {"attention": 3, "MLP": 2, "4 experts each": 4, "shared expert": 1},
    "granite_hybrid": {"state space": 2, "attention": 1, "4 experts each": 12, "shared expert": 3},
    "bamba": {"state space": 2, "attention": 1, "MLP": 3},
    "lfm2": {"convolution": 2, "attention": 1, "MLP": 3},
    "gemma4": {"attention": 3, "MLP": 3, "per-layer input": 3},
    "gemma4_vision": {"attention": 3, "MLP": 3, "per-layer input": 3},
    "gemma4_moe": {"attention": 3, "MLP": 3, "4 experts each": 12},
}
"""What each architecture has beside the usual attention and MLP of every layer."""
USUAL = {"attention": 3, "MLP": 3}
FULL = Kernel(1.0, 0.0, 1.0, 10.0)
EVERYWHERE = AblationParameters(None, {ATTENTION: FULL, MLP: FULL})


def updates(model, text="U:what is the capital of France?\nA:"):
    """What each layer adds to a stream, `(positions, d_model)` in float64, where the layer's input has no `v`."""
    found, v, entered = [], unit().double(), []

    def before(_, args, options):
        stream = args[0] if args else options["hidden_states"]
        clean = (stream.double() - (stream.double() @ v)[..., None] * v).float()
        entered.append(clean.double())
        return ((clean, *args[1:]), options) if args else (args, {**options, "hidden_states": clean})

    def after(_, __, output):
        found.append(((output[0] if isinstance(output, tuple) else output).double() - entered[-1])[0])

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in model.layers]
    handles += [layer.register_forward_hook(after) for layer in model.layers]
    try:
        with torch.inference_mode():
            model.network(input_ids=model.encode([text]).ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def largest_share(model):
    """The largest |update . v| / |update| of any layer and position."""
    v = unit().double()
    return max(float(((update @ v).abs() / update.norm(dim=-1)).max()) for update in updates(model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("row_normalization", ["none", "columns"])
def test_nothing_is_written_along_a_direction_that_every_writer_is_ablated_for(architecture, row_normalization):
    model = tiny_model(architecture)
    before = weights_of(model)
    assert largest_share(model) > 0.05
    with ablated(model, same_direction(model, unit()), EVERYWHERE, AblationStyle(row_normalization)):
        assert largest_share(model) < 1e-6
    assert same_weights(model, before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_facts_say_what_kinds_of_writers_there_are(architecture):
    assert dict(tiny_model(architecture).facts.writer_kinds) == KINDS.get(architecture, USUAL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_probe_finds_no_leak_and_puts_the_weights_back(architecture, dtype):
    model = tiny_model(architecture)
    model.network.to(dtype)
    before = weights_of(model)
    coverage = probe(model)
    assert coverage.whole
    assert max(coverage.leak) < (1e-6 if dtype == torch.float32 else 5e-3) < 0.02 < max(coverage.write)
    assert same_weights(model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_probe_sees_any_kind_of_writer_that_is_missed(architecture, dtype):
    model = tiny_model(architecture)
    model.network.to(dtype)
    for kind in {writer.kind for writer in model.writers}:
        missed = {writer.layer for writer in model.writers if writer.kind == kind}
        coverage = probe(model, [writer for writer in model.writers if writer.kind != kind])
        assert set(coverage.leaking) == missed, kind


@pytest.mark.parametrize("architecture", [*POST_NORMED, "gemma3_vision", "gemma4", "gemma4_moe"])
def test_without_the_gains_there_is_a_leak_where_norms_follow_the_writers(architecture):
    coverage = probe(tiny_model(architecture), gain_aware=False)
    assert coverage.leaking == [0, 1, 2]
    assert max(coverage.leak) > 0.02


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_study_runs_and_its_export_is_the_trial(architecture, short_profile, tmp_path):
    folder = tmp_path / architecture
    tiny_network(architecture).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    profile = short_profile.model_copy(update={"n_trials": 3, "max_response_length": 4})
    *_, finished = pipeline.start_study(str(folder), profile, "short", tmp_path / "runs")
    run = Run(finished.path)
    assert len(run.records()) == 3
    facts = run.model()[0]
    assert (facts.width, facts.leaking, round(facts.leak, 6)) == (WIDTH, [], 0.0)
    result(pipeline.export(run, 3, tmp_path / "export"))
    assert "leak 0.0000" in (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    original, exported = result(load(str(folder), Profile())), result(load(str(tmp_path / "export"), Profile()))
    directions = pipeline.load_directions(run.path / pipeline.DIRECTIONS)
    record = run.record(3)
    with ablated(original, directions, record.parameters, style_of(profile)):
        assert same_weights(exported, weights_of(original))


PAGE = Path(__file__).parents[3] / ".github" / "ARCHITECTURES.md"


def test_the_page_of_architectures_has_a_row_for_each_and_shows_nothing_wrong():
    found = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line]
    rows = {cells[0]: cells[1:] for cells in found if len(cells) == 9 and cells[0] not in {"architecture", "---"}}
    assert list(rows) == list(ARCHITECTURES)
    for architecture, (_, writers, before, after, _, _, merged, adapter) in rows.items():
        assert sum(KINDS.get(architecture, USUAL).values()) == sum(map(int, re.findall(r"(\d+) \w", writers)))
        assert float(after) < 1e-6 < 0.02 < float(before)
        assert merged.endswith("identical")
        stated, real = map(float, adapter.partition(", ")[2].split(" / "))
        assert real <= stated + 1e-4 <= 0.0201
    gains = {cells[0]: tuple(map(float, cells[1:])) for cells in found if len(cells) == 3 and cells[0] in ARCHITECTURES}
    assert {"gemma3_vision", "gemma4", *POST_NORMED} <= set(gains)
    assert all(plain > 0.02 > 1e-6 > aware for plain, aware in gains.values())
