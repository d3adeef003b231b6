"""Models on disk that are nothing but their headers, and a Hugging Face cache of the real layout around them."""

import json
import struct
from pathlib import Path

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "vocab_size": 10,
    "tie_word_embeddings": True,
}
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def llama_shapes(config=CONFIG):
    """Names and shapes of a small Llama's tensors."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    key_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}"
        shapes |= {
            f"{place}.self_attn.q_proj.weight": (width, width),
            f"{place}.self_attn.k_proj.weight": (key_width, width),
            f"{place}.self_attn.v_proj.weight": (key_width, width),
            f"{place}.self_attn.o_proj.weight": (width, width),
            f"{place}.mlp.gate_proj.weight": (inner, width),
            f"{place}.mlp.up_proj.weight": (inner, width),
            f"{place}.mlp.down_proj.weight": (width, inner),
            f"{place}.input_layernorm.weight": (width,),
            f"{place}.post_attention_layernorm.weight": (width,),
        }
    return shapes


def count(shape):
    """Values in a tensor of this shape."""
    values = 1
    for length in shape:
        values *= length
    return values


def safetensors_bytes(shapes, dtype="BF16"):
    """A safetensors file of zeros; a shape may come with a data type of its own."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        kind, *shape = shape if shape and isinstance(shape[0], str) else (dtype, *shape)
        end = at + count(shape) * SIZES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + bytes(at)


def write_model(folder, shapes=None, config=CONFIG, **more):
    """A folder with config.json, one safetensors file, a chat template, and `more` settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(llama_shapes() if shapes is None else shapes))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def write_cached(cache: Path, repository: str, files: dict[str, bytes], kind="models", commit=COMMIT, ref="main"):
    """A repository in a Hugging Face cache: blobs, links to them, and a ref; returns the snapshot."""
    folder = cache / f"{kind}--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for number, (name, content) in enumerate(files.items()):
        blob = folder / "blobs" / f"{commit[:8]}{number:032x}"
        blob.write_bytes(content)
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(Path(*[".."] * (len(path.relative_to(folder).parts) - 1)) / "blobs" / blob.name)
    if ref:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def model_bytes(**more):
    """The files of a small model as they lie in a repository."""
    return {
        "config.json": json.dumps({**CONFIG, **more}).encode(),
        "model.safetensors": safetensors_bytes(llama_shapes()),
        "README.md": b"---\nlicense: mit\n---\n# A model\n",
    }


_NUMBERS = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}


def gguf_bytes(values, tensors=None, version=3):
    """A GGUF file; `tensors` maps names to shapes `(out, in)`, stored as zeros in float32."""
    tensors = tensors or {}
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(values))]
    for key, value in values.items():
        parts.append(_text(key) + _value(value))
    at = 0
    for name, shape in tensors.items():
        parts.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), 0, at))
        at += -(-count(shape) * 4 // 32) * 32
    head = b"".join(parts)
    return head + bytes(-len(head) % 32 + at)


def _text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value):
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list):
        if isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        code, letter = _NUMBERS[type(value[0])]
        return struct.pack(f"<IIQ{len(value)}{letter}", 9, code, len(value), *value)
    code, letter = _NUMBERS[type(value)]
    return struct.pack(f"<I{letter}", code, value)


GGUF_VALUES = {
    "general.architecture": "llama",
    "general.license": "apache-2.0",
    "general.file_type": 3,
    "llama.block_count": 2,
    "llama.embedding_length": 8,
    "llama.feed_forward_length": 16,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.context_length": 64,
    "tokenizer.ggml.tokens": [f"<{number}>" for number in range(10)],
    "tokenizer.chat_template": "{{ messages }}",
}
GGUF_TENSORS = {
    "token_embd.weight": (10, 8),
    "output_norm.weight": (8,),
    **{f"blk.{layer}.attn_output.weight": (8, 8) for layer in range(2)},
    **{f"blk.{layer}.ffn_down.weight": (8, 16) for layer in range(2)},
}
