"""Random models of a few layers, one per architecture, and a tokenizer that knows every byte."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GPT2Config,
    HyperCLOVAXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from heretic_tui.engine.directions import Directions
from heretic_tui.engine.loading import assemble

SPECIAL = ["<pad>", "<eos>", "<think>", "</think>"]
PAD, EOS, THINK, END_THINK = range(256, 260)
VOCABULARY = 260
WIDTH = 48
TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': 'S:', 'user': 'U:', 'assistant': 'A:'}[message['role']] + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "attn_implementation": "eager",
}
GEMMA = {
    **COMMON,
    "query_pre_attn_scalar": 12,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**COMMON),
    "qwen2": lambda: Qwen2Config(**COMMON),
    "qwen3": lambda: Qwen3Config(**COMMON),
    "mistral": lambda: MistralConfig(**COMMON, sliding_window=8),
    "phi3": lambda: Phi3Config(**COMMON),
    "gemma3": lambda: Gemma3TextConfig(**GEMMA),
    "gemma2": lambda: Gemma2Config(**GEMMA),
    "olmo2": lambda: Olmo2Config(**COMMON),
    "glm4": lambda: Glm4Config(**COMMON),
    "hyperclovax": lambda: HyperCLOVAXConfig(**COMMON, use_post_norm=True),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=3,
        n_head=4,
        n_positions=512,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        attn_implementation="eager",
    ),
}
POST_NORMED = ["gemma3", "gemma2", "olmo2", "glm4", "hyperclovax"]


def tiny_tokenizer(template=TEMPLATE):
    """A byte is a token; four special tokens stand behind the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_network(architecture, seed=0):
    """A network whose norms and biases are as random as its weights, so that nothing hides at identity."""
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(CONFIGS[architecture]())
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "norm" in name or "ln_" in name:
                weights.add_(0.4 * torch.randn_like(weights))
            elif name.endswith("bias"):
                weights.normal_(std=0.3)
            else:
                weights.normal_(std=0.15)
    return network.eval().requires_grad_(False)


def tiny_model(architecture="llama", seed=0, batch_size=8, template=TEMPLATE):
    """A tiny network and its tokenizer, joined as the engine joins them."""
    model = assemble(f"tiny-{architecture}", tiny_network(architecture, seed), tiny_tokenizer(template))
    model.batch_size = batch_size
    return model


def unit(seed=1, width=WIDTH):
    """A random unit vector, float32."""
    vector = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (vector / vector.norm()).float()


def same_direction(model, vector):
    """Directions that are the same vector at every layer."""
    rows = vector.expand(len(model.layers) + 1, -1).contiguous()
    return Directions(torch.zeros_like(rows), rows, rows)


def run(job):
    """Run a job to its end: its events and its result."""
    events = []
    while True:
        try:
            events.append(next(job))
        except StopIteration as stop:
            return events, stop.value


def result(job):
    """The result of a job."""
    return run(job)[1]


def weights_of(model):
    """A copy of every weight, to compare with later."""
    return {name: weights.clone() for name, weights in model.network.state_dict().items()}


def same_weights(model, before):
    """Whether every weight is bit for bit what it was."""
    return all(torch.equal(weights, before[name]) for name, weights in model.network.state_dict().items())
