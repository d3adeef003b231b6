"""Texts and models to decode, and what the library makes of them."""

from collections import Counter

import torch
from tiny_models import CONFIGS, PAD, result, tiny_model

from heretic_tui.engine.decoding.greedy import generate

TEXTS = [
    "U:x\nA:",
    "U:what is the capital of France, and of Spain?\nA:",
    "U:hello\nA:",
    "S:be brief\nU:why is the sky blue?\nA:",
    "U:what is the capital of Spain\nA:",
    "U:x2\nA:",
]
LENGTH = 24
ARCHITECTURES = [name for name in CONFIGS if name != "gemma2"]


def of_the_library(model, texts, length=LENGTH):
    """What `generate` of the library writes for one left-padded batch: token rows up to their end token."""
    batch = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        found = model.network.generate(**batch, do_sample=False, max_new_tokens=length, pad_token_id=PAD)
    ends = model.network.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    rows = []
    for row in found[:, batch["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        rows.append(tuple(row[:end]))
    return rows


def with_frequent_ends(architecture="llama", seed=0, batch_size=8):
    """A model some of whose responses end early: a token that it often writes is made an end token."""
    plain = tiny_model(architecture, seed, batch_size)
    rows = of_the_library(plain, TEXTS)
    written = Counter(token for row in rows for token in set(row[2:]))
    # One that ends some responses, not all, and as few at once as can be.
    token = next(token for token, rows in sorted(written.items(), key=lambda pair: -pair[1]) if rows < len(TEXTS))
    model = tiny_model(architecture, seed, batch_size)
    model.network.generation_config.eos_token_id = [token, model.tokenizer.eos_token_id]
    return model


def tokens(model, texts=TEXTS, length=LENGTH, decided=None):
    return [found.tokens for found in result(generate(model, texts, length, "test", decided))]
