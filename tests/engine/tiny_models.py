"""Random models of a few layers, one per architecture, and a tokenizer that knows every byte."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BambaConfig,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    GraniteMoeHybridConfig,
    HyperCLOVAXConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    Mistral3Config,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.loading.loader import assemble
from heretic_tui.engine.model.networks import network_class

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
HEADED = {name: value for name, value in COMMON.items() if name != "head_dim"}
MOE = {**COMMON, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
SMALL_GEMMA4 = {
    **GEMMA,
    "global_head_dim": 12,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
}
del SMALL_GEMMA4["query_pre_attn_scalar"]
QWEN3_5 = {
    **COMMON,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
}
LLAMA4 = {
    **COMMON,
    "intermediate_size_mlp": 64,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 64,
}
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 8,
    "image_size": 32,
    "patch_size": 16,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}
ARCHITECTURES = {
    **CONFIGS,
    "qwen2_moe": lambda: Qwen2MoeConfig(**MOE, shared_expert_intermediate_size=32, decoder_sparse_step=1),
    "qwen3_moe": lambda: Qwen3MoeConfig(**MOE, decoder_sparse_step=1),
    "mixtral": lambda: MixtralConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2),
    # As in the real one the experts' inputs are as wide as the stream, so that their shape does not tell how they lie.
    "gpt_oss": lambda: GptOssConfig(
        **{**COMMON, "intermediate_size": WIDTH}, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**COMMON, "num_key_value_heads": 4, "head_dim": 8},
        moe_intermediate_size=40,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
    ),
    "qwen3_next": lambda: Qwen3NextConfig(
        **MOE,
        shared_expert_intermediate_size=32,
        linear_key_head_dim=8,
        linear_value_head_dim=12,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "qwen3_5": lambda: Qwen3_5TextConfig(**QWEN3_5),
    # The experts lie (expert, in, out) here, and nothing in the module says so but the shapes.
    "llama4": lambda: Llama4TextConfig(**LLAMA4),
    "gpt_neox": lambda: GPTNeoXConfig(**COMMON),
    "gpt_neox_sequential": lambda: GPTNeoXConfig(**COMMON, use_parallel_residual=False),
    "opt": lambda: OPTConfig(**COMMON, ffn_dim=64, word_embed_proj_dim=WIDTH),
    "bloom": lambda: BloomConfig(**COMMON, n_layer=3, n_head=4),
    "falcon": lambda: FalconConfig(**HEADED, bias=True),
    "falcon_new": lambda: FalconConfig(**HEADED, new_decoder_architecture=True, num_kv_heads=2),
    "phi": lambda: PhiConfig(**COMMON),
    "granite": lambda: GraniteConfig(**COMMON, residual_multiplier=0.22),
    "granite_hybrid": lambda: GraniteMoeHybridConfig(
        **COMMON,
        **MAMBA,
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=32,
        layer_types=["mamba", "attention", "mamba"],
        residual_multiplier=0.22,
    ),
    "bamba": lambda: BambaConfig(**COMMON, **MAMBA, attn_layer_indices=[1], mamba_proj_bias=True),
    "lfm2": lambda: Lfm2Config(
        **COMMON, layer_types=["conv", "full_attention", "conv"], block_multiple_of=8, conv_bias=True
    ),
    "gemma3_vision": lambda: Gemma3Config(
        text_config=Gemma3TextConfig(**GEMMA), vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=258
    ),
    "gemma4": lambda: Gemma4TextConfig(**SMALL_GEMMA4),
    "gemma4_moe": lambda: Gemma4TextConfig(
        **{**SMALL_GEMMA4, "hidden_size_per_layer_input": 0},
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=40,
    ),
    "gemma4_vision": lambda: Gemma4Config(
        text_config=SMALL_GEMMA4,
        vision_config={**SIGLIP, "model_type": "gemma4_vision", "num_key_value_heads": 4, "head_dim": 12},
        image_token_id=258,
    ),
    "mistral3": lambda: Mistral3Config(
        text_config={**COMMON, "model_type": "mistral"}, vision_config=PIXTRAL, image_token_index=258
    ),
    "qwen2_5_vl": lambda: Qwen2_5_VLConfig(
        text_config={**COMMON, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2]}},
        vision_config={
            "hidden_size": 32,
            "depth": 3,
            "num_heads": 4,
            "intermediate_size": 48,
            "out_hidden_size": WIDTH,
        },
        image_token_id=258,
    ),
}
"""`CONFIGS` are those that every part of the engine is tested with; the others prove that all writers are known."""
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
    """A network whose norms, biases and layer scalars are as random as its weights: nothing hides at identity."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]()
    network = network_class(config).from_config(config)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "norm" in name or "ln_" in name:
                weights.add_(0.4 * torch.randn_like(weights))
            elif name.endswith("bias"):
                weights.normal_(std=0.3)
            else:
                weights.normal_(std=0.15)
        for name, scalar in network.named_buffers():
            if name.endswith("layer_scalar"):
                scalar.uniform_(0.4, 0.8)
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
