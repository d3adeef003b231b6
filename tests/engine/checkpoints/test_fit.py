"""Will it fit: the estimate against the formula, against loaded weights, and in words."""

from dataclasses import replace

import fake_models as fake
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heretic_tui.engine.checkpoints.catalog import demo_model
from heretic_tui.engine.checkpoints.checkpoint import read_facts
from heretic_tui.engine.checkpoints.fit import CUDA_CONTEXT, UNPACKED, Fit, estimate_fit, fit_text, value_bytes_of
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.memory import MemoryReading

HOST = MemoryReading("host", "Host memory", 0, 10**10)
CARD = MemoryReading("cuda:0", "Big", 0, 10**10)


@pytest.fixture(scope="module")
def facts():
    """Facts of the demonstration model."""
    return read_facts(demo_model())


def test_weights_take_two_bytes_a_parameter(facts):
    assert estimate_fit(facts, 1, 1, CARD, four_bit=False).weights == 2 * facts.parameters


def test_the_estimated_weights_are_those_of_the_loaded_model(facts):
    from heretic_tui.engine.loading.loader import load
    from heretic_tui.profile.schema import Profile

    for dtype in ("bfloat16", "float32"):
        job = load(demo_model().name, Profile(dtypes=[dtype]))
        try:
            while True:
                next(job)
        except StopIteration as stop:
            network = stop.value.network
        taken = sum(weights.numel() * weights.element_size() for weights in network.parameters())
        fit = estimate_fit(facts, 1, 1, HOST, four_bit=False, value_bytes=value_bytes_of(facts, dtype))
        assert fit.weights == taken


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral", "qwen2_moe"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_in_four_bits_too_the_estimated_weights_are_those_of_the_loaded_model(architecture, dtype, tmp_path):
    """Widths of a whole number of blocks; double quantization has tables of its own, which count in small models."""
    from tiny_models import result, tiny_network, tiny_tokenizer

    from heretic_tui.engine.loading.loader import load
    from heretic_tui.profile.schema import Profile

    tiny_network(architecture).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    network = result(load(str(tmp_path), Profile(dtypes=[dtype], quantization="bnb_4bit"))).network
    taken = sum(weights.numel() * weights.element_size() for weights in network.parameters())
    scales = sum(
        weights.quant_state.absmax.numel() + 4 * weights.quant_state.state2.absmax.numel()
        for weights in network.parameters()
        if hasattr(weights, "quant_state")
    )
    facts = read_facts(tmp_path)
    fit = estimate_fit(facts, 1, 1, HOST, four_bit=True, value_bytes=value_bytes_of(facts, dtype))
    assert fit.weights == pytest.approx(taken + scales, rel=0.03)


def test_the_originals_of_packed_writers_are_not_kept(facts):
    plain, packed = (estimate_fit(facts, 1, 1, HOST, four_bit=bits) for bits in (False, True))
    assert plain.working - packed.working == 2 * facts.writer_parameters - UNPACKED * facts.largest_matrix


def test_the_cache_grows_with_rows_and_tokens(facts):
    assert estimate_fit(facts, 8, 100, CARD, four_bit=False).cache == 800 * facts.cache_bytes_per_token


def test_the_originals_of_the_writers_lie_on_the_host(facts):
    on_host = estimate_fit(facts, 1, 1, HOST, four_bit=False).working
    on_card = estimate_fit(facts, 1, 1, CARD, four_bit=False).working
    assert on_host - (on_card - CUDA_CONTEXT) == 2 * facts.writer_parameters


def test_pickled_weights_are_judged_by_their_size(tmp_path):
    folder = fake.write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    facts = replace(read_facts(folder), dtype="float32")
    assert estimate_fit(facts, 1, 1, CARD, four_bit=False).weights == facts.size // 4 * 2


def test_a_model_of_unknown_size_is_not_said_to_fit(tmp_path):
    folder = fake.write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EngineError, match="how large"):
        estimate_fit(read_facts(folder), 1, 1, CARD, four_bit=False)


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("auto", "float32", 4),
        ("auto", "bfloat16", 2),
        ("auto", "gptq 4-bit", 2),
        ("float32", "bfloat16", 4),
        ("float16", "float32", 2),
    ],
)
def test_the_type_that_is_loaded_counts(facts, dtype, stored, expected):
    assert value_bytes_of(replace(facts, dtype=stored), dtype) == expected


def test_a_gguf_file_is_unpacked_to_single_precision(facts):
    assert value_bytes_of(replace(facts, name="x.gguf", dtype="Q4_0"), "auto") == 4
    assert value_bytes_of(replace(facts, name="x.gguf", dtype="Q4_0"), "bfloat16") == 2


@given(batch=st.integers(1, 512), tokens=st.integers(1, 100_000), four_bit=st.booleans())
def test_more_is_never_less(batch, tokens, four_bit):
    facts = read_facts(demo_model())
    fit = estimate_fit(facts, batch, tokens, HOST, four_bit=four_bit)
    more = estimate_fit(facts, batch + 1, tokens + 1, HOST, four_bit=four_bit)
    wide = estimate_fit(facts, batch, tokens, HOST, four_bit=four_bit, value_bytes=4)
    assert 0 < fit.needed < more.needed
    assert fit.needed <= wide.needed


def test_it_fits_up_to_the_last_byte():
    assert Fit(6, 3, 1, 10, "host").fits
    assert not Fit(6, 3, 2, 10, "host").fits


def test_the_line_for_people():
    fit = Fit(16_100_000_000, 2_000_000_000, 900_000_000, 14_200_000_000, "cuda:0")
    parts = "weights 16.1 GB, cache 2 GB, working 900 MB"
    assert fit_text(fit) == f"does not fit: needs 19 GB ({parts}), 14.2 GB free on cuda:0"
    assert fit_text(replace(fit, free=10**11)).startswith("fits: needs 19 GB")
