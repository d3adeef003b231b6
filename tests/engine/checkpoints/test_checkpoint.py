"""Facts of a model before it is loaded: right where files are whole, and plain words where they are not."""

import json
import struct
from pathlib import Path

import fake_models as fake
import huggingface_hub.constants
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, tiny_model

from heretic_tui.engine.checkpoints.catalog import ModelEntry, cached_models, demo_model, models_below
from heretic_tui.engine.checkpoints.checkpoint import CheckpointFacts, read_facts
from heretic_tui.engine.checkpoints.headers import gguf_header, safetensors_header
from heretic_tui.engine.errors import EngineError

ATTENTION, MLP = "attn.o_proj", "mlp.down_proj"
PARAMETERS = sum(map(fake.count, fake.llama_shapes().values()))


@pytest.fixture
def model(tmp_path):
    """A small whole model of the test's own."""
    return fake.write_model(tmp_path / "model")


def refusal(path):
    """Why the facts of a model cannot be read: cause and remedy."""
    with pytest.raises(EngineError) as caught:
        read_facts(path)
    assert caught.value.remedy
    return caught.value.cause


def test_all_that_files_tell(model):
    (model / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0 # really\n---\n# Model\nlicense: no\n")
    assert read_facts(model) == CheckpointFacts(
        name=str(model),
        architecture="LlamaForCausalLM",
        parameters=PARAMETERS,
        layers=2,
        width=8,
        dtype="bfloat16",
        size=(model / "model.safetensors").stat().st_size,
        licence="apache-2.0",
        chat_template=True,
        context_length=64,
        needs_code=False,
        pickled=False,
        experts=0,
        writers_expected={ATTENTION: 2, MLP: 2},
        cache_bytes_per_token=2 * 2 * 2 * 1 * 4,
        vocabulary=10,
        writer_parameters=2 * (8 * 8 + 8 * 16),
        embedding_parameters=80,
        packable_parameters=2 * (2 * 64 + 2 * 32 + 3 * 128),
        largest_matrix=128,
    )


def test_the_facts_of_the_demonstration_model_are_those_of_the_loaded_one():
    from heretic_tui.engine.loading.loader import load
    from heretic_tui.profile.schema import Profile

    *_, loaded = load(demo_model().name, Profile(dtypes=["bfloat16"]))
    facts = read_facts(demo_model())
    for name in ("name", "architecture", "parameters", "layers", "width", "context_length"):
        assert getattr(facts, name) == getattr(loaded.facts, name)
    assert facts.writers_expected == loaded.facts.writers


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_supported_architecture_is_known_from_its_files(architecture, tmp_path):
    model = tiny_model(architecture)
    model.network.save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    for name in ("architecture", "parameters", "layers", "width", "context_length", "dtype"):
        assert getattr(facts, name) == getattr(model.facts, name)
    assert facts.writers_expected == model.facts.writers
    assert facts.cache_bytes_per_token * 2 == model.cache_bytes_per_token  # the loaded one is float32
    assert facts.writer_parameters == sum(writer.weight.numel() for writer in model.writers)
    assert facts.vocabulary == model.network.config.vocab_size


def test_an_entry_of_the_catalog_keeps_its_name(model):
    (entry,) = models_below(model)
    assert read_facts(entry) == read_facts(model)
    assert read_facts(ModelEntry("org/name", "hub", model, 0, 0.0)).name == "org/name"


def test_a_cached_model_is_read_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    fake.write_cached(tmp_path, "org/small", fake.model_bytes())
    facts = read_facts("org/small")
    assert (facts.name, facts.parameters, facts.licence) == ("org/small", PARAMETERS, "mit")
    assert [read_facts(entry) for entry in cached_models()] == [facts]


@pytest.mark.parametrize("name", ["org/other", "not/an/id", "~nobody/model", "x" * 5000, "nul\0", "", "gone.gguf"])
def test_what_is_not_here_is_said_to_be_not_here(tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "no model" in refusal(name) or "no config.json" in refusal(name)


def test_shards_are_added_up(model):
    shapes = fake.llama_shapes()
    halves = [dict(list(shapes.items())[:9]), dict(list(shapes.items())[9:])]
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard, half in zip(shards, halves, strict=True):
        (model / shard).write_bytes(fake.safetensors_bytes(half))
    (model / "model.safetensors").unlink()
    where = {name: shard for shard, half in zip(shards, halves, strict=True) for name in half}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    facts = read_facts(model)
    assert facts.parameters == PARAMETERS
    assert facts.size == sum((model / shard).stat().st_size for shard in shards)
    (model / shards[1]).unlink()
    assert f"lacks 1 of 2 weight files ({shards[1]})" in refusal(model)


@pytest.mark.parametrize(
    "places", [{}, {"weight_map": []}, {"weight_map": {"a": "../../secret"}}, {"weight_map": {"a": 1}}]
)
def test_an_index_that_names_no_files_of_the_folder(model, places):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps(places))
    assert "does not say which file" in refusal(model)


def test_the_language_model_of_a_multimodal_one(tmp_path):
    text = {**fake.CONFIG, "architectures": None}
    shapes = {f"language_model.{name}": shape for name, shape in fake.llama_shapes().items()}
    vision = {"vision_tower.encoder.layers.0.self_attn.out_proj.weight": (8, 8)}
    config = {"architectures": ["SeesForConditionalGeneration"], "text_config": text, "vision_config": {}}
    facts = read_facts(fake.write_model(tmp_path / "m", shapes | vision, config))
    assert (facts.architecture, facts.layers, facts.width) == ("SeesForConditionalGeneration", 2, 8)
    assert facts.writers_expected == {ATTENTION: 2, MLP: 2}
    assert facts.parameters == PARAMETERS + 64


def with_experts(pattern):
    shapes = {name: shape for name, shape in fake.llama_shapes().items() if ".mlp." not in name}
    return shapes | pattern


@pytest.mark.parametrize(
    "experts",
    [
        {f"model.layers.{n}.mlp.experts.{e}.down_proj.weight": (8, 4) for n in range(2) for e in range(4)},
        {f"model.layers.{n}.block_sparse_moe.experts.{e}.w2.weight": (8, 4) for n in range(2) for e in range(4)},
        {f"model.layers.{n}.mlp.experts.down_proj": (4, 4, 8) for n in range(2)},
    ],
    ids=["one by one", "mixtral", "fused"],
)
def test_every_expert_is_a_writer(tmp_path, experts):
    facts = read_facts(fake.write_model(tmp_path / "m", with_experts(experts), num_experts=4))
    assert facts.experts == 4
    assert facts.writers_expected == {ATTENTION: 2, MLP: 8}
    assert facts.writer_parameters == 2 * 64 + 8 * 32


def test_a_shared_expert_is_a_writer_too(tmp_path):
    shapes = {f"model.layers.{n}.mlp.shared_expert.down_proj.weight": (8, 4) for n in range(2)}
    assert read_facts(fake.write_model(tmp_path / "m", with_experts(shapes))).writers_expected[MLP] == 2


def test_layers_beyond_the_last_are_no_writers(tmp_path):
    further = {"model.layers.2.self_attn.o_proj.weight": (8, 8), "model.layers.2.mlp.down_proj.weight": (8, 16)}
    facts = read_facts(fake.write_model(tmp_path / "m", fake.llama_shapes() | further))
    assert facts.writers_expected == {ATTENTION: 2, MLP: 2}


def test_a_tied_head_and_old_buffers_are_no_parameters(tmp_path):
    more = {
        "lm_head.weight": (10, 8),
        "model.layers.0.self_attn.rotary_emb.inv_freq": (2,),
        "transformer.h.0.attn.bias": (1, 1, 64, 64),
    }
    assert read_facts(fake.write_model(tmp_path / "m", fake.llama_shapes() | more)).parameters == PARAMETERS


def test_a_head_of_its_own_counts(tmp_path):
    shapes = fake.llama_shapes() | {"lm_head.weight": (10, 8)}
    facts = read_facts(fake.write_model(tmp_path / "m", shapes, tie_word_embeddings=False))
    assert facts.parameters == PARAMETERS + 80
    assert facts.embedding_parameters == 160


def test_weights_in_four_bits_are_counted_by_value(tmp_path):
    shapes = fake.llama_shapes() | {
        "model.layers.0.mlp.down_proj.weight": ("U8", 64, 1),
        "model.layers.0.mlp.down_proj.weight.absmax": ("U8", 2),
        "model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4": ("U8", 90),
    }
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    facts = read_facts(fake.write_model(tmp_path / "m", shapes, quantization_config=settings))
    assert facts.parameters == PARAMETERS
    assert facts.dtype == "bitsandbytes 4-bit"
    assert facts.writers_expected == {ATTENTION: 2, MLP: 2}


@pytest.mark.parametrize(
    ("settings", "bytes_per_token"),
    [
        ({}, 2 * 2 * (4 + 4)),
        ({"num_key_value_heads": None}, 2 * 2 * 2 * (4 + 4)),
        ({"head_dim": 16}, 2 * 2 * (16 + 16)),
        ({"layer_types": ["linear_attention", "full_attention"]}, 2 * (4 + 4)),
        ({"kv_lora_rank": 4, "qk_nope_head_dim": 3, "qk_rope_head_dim": 2, "v_head_dim": 5}, 2 * 2 * 2 * (3 + 2 + 5)),
        ({"num_key_value_heads": [2, 1]}, 2 * 3 * (4 + 4)),
        ({"num_attention_heads": None}, 2 * 2 * (8 + 8)),
        ({"num_key_value_heads": None, "multi_query": True}, 2 * 2 * (4 + 4)),
    ],
    ids=["grouped", "plain", "wide heads", "hybrid", "latent", "layer by layer", "untold", "one head"],
)
def test_the_cache_of_a_token(tmp_path, settings, bytes_per_token):
    assert read_facts(fake.write_model(tmp_path / "m", **settings)).cache_bytes_per_token == bytes_per_token


def test_a_model_that_brings_code(tmp_path):
    facts = read_facts(fake.write_model(tmp_path / "m", auto_map={"AutoModelForCausalLM": "modeling.Mine"}))
    assert facts.needs_code


def test_pickled_weights_are_weighed_and_not_opened(model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"never opened")
    (model / "training_args.bin").write_bytes(b"no weights")
    facts = read_facts(model)
    assert (facts.pickled, facts.size, facts.parameters) == (True, 12, None)
    assert facts.writers_expected == {ATTENTION: 2, MLP: 2}


def test_safetensors_are_preferred_to_pickled_weights(model):
    (model / "pytorch_model.bin").write_bytes(b"never opened")
    assert not read_facts(model).pickled


def test_a_base_model_has_no_chat_template(model):
    (model / "chat_template.jinja").unlink()
    assert not read_facts(model).chat_template
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert read_facts(model).chat_template


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("\ufeff---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\nlicense:\n- gpl-3.0\n- mit\n---\n", "gpl-3.0"),
        ("---\nlicense_name: odd\n---\n", None),
        ("---\nlicense:\n---\n", None),
        ("# No front matter\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_stands_in_the_front_matter(model, card, licence):
    (model / "README.md").write_bytes(card.encode())
    assert read_facts(model).licence == licence


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '"config"'])
def test_a_damaged_configuration(model, content):
    (model / "config.json").write_text(content)
    assert str(model / "config.json") in refusal(model)


def test_a_configuration_that_is_no_text(model):
    (model / "config.json").write_bytes(b"\xff\xfe{}")
    assert "no UTF-8" in refusal(model)


def test_a_configuration_without_layers(model):
    (model / "config.json").write_text("{}")
    assert "how many layers" in refusal(model)


@pytest.mark.parametrize("value", [None, "many", -1, 0, 1.5, True, [], {}, 10**300])
@pytest.mark.parametrize(
    "name", ["num_attention_heads", "num_key_value_heads", "vocab_size", "head_dim", "num_experts"]
)
def test_absurd_settings_do_no_harm(tmp_path, name, value):
    facts = read_facts(fake.write_model(tmp_path / "m", **{name: value}))
    assert facts.cache_bytes_per_token > 0
    assert facts.vocabulary == 10


def test_a_file_that_is_cut_short_is_noticed(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "100 bytes are missing" in refusal(model)


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**40, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_not_read(model, length):
    (model / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    assert "no safetensors file" in refusal(model)


LAWLESS = [HealthCheck.function_scoped_fixture]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
tensor = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "U8", "XX"]) | json_values,
        "shape": st.lists(st.integers(-5, 2**70), max_size=4) | json_values,
        "data_offsets": st.tuples(st.integers(-5, 2**70), st.integers(-5, 2**70)) | json_values,
    },
)


@settings(suppress_health_check=LAWLESS, max_examples=200)
@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_safetensors_are_refused_in_words(tmp_path, content):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(EngineError):
        safetensors_header(file)


@settings(suppress_health_check=LAWLESS, max_examples=200)
@given(
    header=json_values | st.dictionaries(st.text(max_size=8), tensor | json_values, max_size=4), cut=st.integers(0, 9)
)
@example(header={}, cut=0)
def test_a_safetensors_header_is_read_or_refused_in_words(tmp_path, header, cut):
    file = tmp_path / "x.safetensors"
    packed = json.dumps(header).encode()
    file.write_bytes((struct.pack("<Q", len(packed)) + packed)[: None if not cut else -cut] + bytes(64))
    try:
        found = safetensors_header(file)
    except EngineError as error:
        assert str(file) in error.cause
    else:
        assert all(0 <= info.values <= 8 * 64 for info in found.values())


@settings(suppress_health_check=LAWLESS, max_examples=200)
@given(config=st.dictionaries(st.sampled_from([*fake.CONFIG, "text_config", "layer_types", "auto_map"]), json_values))
def test_any_configuration_gives_facts_or_plain_words(tmp_path, config):
    folder = fake.write_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    try:
        facts = read_facts(folder)
    except EngineError as error:
        assert error.remedy
    else:
        assert facts.cache_bytes_per_token >= 0
        assert facts.parameters is None or facts.parameters > 0


# GGUF


@pytest.fixture
def gguf(tmp_path):
    """Write a GGUF file."""

    def write(values=fake.GGUF_VALUES, tensors=fake.GGUF_TENSORS, **options):
        path = tmp_path / "model.gguf"
        path.write_bytes(fake.gguf_bytes(values, tensors, **options))
        return path

    return write


def test_all_that_a_gguf_file_tells(gguf):
    path = gguf()
    assert read_facts(path) == CheckpointFacts(
        name=str(path),
        architecture="llama",
        parameters=10 * 8 + 8 + 2 * (64 + 128),
        layers=2,
        width=8,
        dtype="Q4_1",
        size=path.stat().st_size,
        licence="apache-2.0",
        chat_template=True,
        context_length=64,
        needs_code=False,
        pickled=False,
        experts=0,
        writers_expected={ATTENTION: 2, MLP: 2},
        cache_bytes_per_token=32,
        vocabulary=10,
        writer_parameters=2 * (64 + 128),
        embedding_parameters=80,
        packable_parameters=2 * (64 + 128),
        largest_matrix=128,
    )


def test_a_folder_with_one_gguf_file_is_that_file(gguf):
    path = gguf()
    assert read_facts(path.parent).parameters == read_facts(path).parameters


def test_experts_in_a_gguf_file(gguf):
    tensors = {f"blk.{layer}.ffn_down_exps.weight": (4, 8, 16) for layer in range(2)}
    facts = read_facts(gguf(fake.GGUF_VALUES | {"llama.expert_count": 4}, tensors))
    assert (facts.experts, facts.writers_expected[MLP]) == (4, 8)


def test_heads_that_differ_by_layer_and_keys_wider_than_values(gguf):
    values = fake.GGUF_VALUES | {
        "llama.attention.head_count_kv": [2, 1],
        "llama.attention.key_length": 6,
        "llama.attention.value_length": 4,
    }
    assert read_facts(gguf(values)).cache_bytes_per_token == 2 * 3 * (6 + 4)


def test_an_unknown_type_of_file_has_a_name_all_the_same(gguf):
    assert read_facts(gguf(fake.GGUF_VALUES | {"general.file_type": 9999})).dtype == "GGUF"


def test_one_part_of_a_gguf_file_says_so(gguf):
    assert "one of 3 parts" in refusal(gguf(fake.GGUF_VALUES | {"split.count": 3}))


def test_a_gguf_file_of_another_time_says_so(gguf):
    assert "version" in refusal(gguf(version=1))


def test_a_gguf_file_that_is_cut_short_is_noticed(gguf):
    path = gguf()
    whole = path.read_bytes()
    for length in (0, 3, 4, 8, 30, 200, len(whole) // 2, len(whole) - 600):
        path.write_bytes(whole[:length])
        assert str(path) in refusal(path)


@settings(suppress_health_check=LAWLESS, max_examples=300)
@given(at=st.integers(4, 700), byte=st.integers(0, 255), run=st.integers(1, 8))
def test_a_damaged_gguf_file_is_read_or_refused_in_words(tmp_path, at, byte, run):
    whole = bytearray(fake.gguf_bytes(fake.GGUF_VALUES, fake.GGUF_TENSORS))
    whole[at : at + run] = bytes([byte]) * run
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    try:
        read_facts(path)
    except EngineError as error:
        assert error.remedy


def test_lengths_that_promise_more_than_a_file_can_hold_end_at_once(gguf):
    path = gguf()
    whole = bytearray(path.read_bytes())
    whole[16:24] = struct.pack("<Q", 2**62)
    path.write_bytes(whole)
    assert "more entries" in refusal(path)


def test_a_large_vocabulary_is_walked_past(gguf):
    words = [f"token {number}" for number in range(150_000)]
    path = gguf(fake.GGUF_VALUES | {"tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": words})
    assert gguf_header(path).lengths["tokenizer.ggml.tokens"] == 150_000


def test_the_header_is_the_one_that_the_reference_reader_sees(gguf):
    from gguf import GGUFReader

    path = gguf()
    ours, theirs = gguf_header(path), GGUFReader(path)
    assert ours.values["tokenizer.chat_template"] == theirs.fields["tokenizer.chat_template"].contents()
    assert ours.values["llama.block_count"] == theirs.fields["llama.block_count"].contents()
    shapes = {info.name: tuple(reversed(info.shape.tolist())) for info in theirs.tensors}
    assert {name: info.shape for name, info in ours.tensors.items()} == shapes


def test_a_path_is_no_place_for_surprises(tmp_path):
    folder = fake.write_model(Path(tmp_path) / "a.gguf")  # a folder of that name
    assert read_facts(folder).layers == 2
