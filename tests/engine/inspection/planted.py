"""Residual vectors, and models, whose directions are known because they were put there."""

from contextlib import contextmanager

import numpy as np
import tiny_models
import torch
from transformers import LlamaConfig

from heretic_tui.engine.inspection.residual_sets import ResidualSets


def unit(vectors):
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def basis(count, width, draws):
    """Orthonormal vectors `(count, width)`."""
    return np.linalg.qr(draws.normal(size=(width, count)))[0].T


def blurred(directions, cosine, draws):
    """Unit vectors at a known cosine to others, each with noise of its own."""
    noise = draws.normal(size=directions.shape)
    noise -= (noise * directions).sum(axis=1, keepdims=True) * directions
    return cosine * directions + np.sqrt(1 - cosine**2) * unit(noise)


def one_from(layer, layers, width, draws):
    """A direction that is there from a layer on; before it every layer has its own."""
    directions = unit(draws.normal(size=(layers, width)))
    directions[layer:] = basis(1, width, draws)[0]
    return directions


def mixed(count, layers, width, draws):
    """Every layer its own mixture of a few directions."""
    return unit(draws.normal(size=(layers, count)) @ basis(count, width, draws))


def turning(count, layers, width, draws):
    """A direction that turns steadily from one of a few to the next."""
    places = np.linspace(0, count - 1, layers)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count)))
    return unit(weights @ basis(count, width, draws))


def in_turn(count, layers, width, draws):
    """A few directions, each the same for a stretch of layers."""
    return basis(count, width, draws)[np.arange(layers) * count // layers]


def with_embeddings(directions):
    """A row of zeros before the layers': the embeddings have no direction."""
    return np.concatenate([np.zeros((1, directions.shape[1])), directions])


def stream_sets(layers=16, width=96, prompts=60, planted_at=9, strength=12.0, draws=None, seed=0):
    """A stream as models have it: prompts drift apart from layer to layer, near-exponentially, along a common mean.

    From decoder layer `planted_at` on the bad prompts' vectors are moved along one direction. Returns the sets and it.
    """
    draws = draws or np.random.default_rng(seed)
    direction = basis(1, width, draws)[0]
    growth = 1.25 ** np.arange(layers + 1)
    mean = np.cumsum(draws.normal(size=(layers + 1, width)), axis=0) * growth[:, None]
    kinds = []
    for moved in (0.0, strength):
        own = np.cumsum(draws.normal(size=(prompts, layers + 1, width)), axis=1) * 0.3
        vectors = mean + own * growth[:, None]
        vectors[:, planted_at + 1 :] += moved * direction * growth[planted_at + 1 :, None]
        kinds.append(vectors.astype(np.float32))
    return ResidualSets(*kinds), direction


def deep_model(monkeypatch, layers):
    """A tiny model with as many layers as wanted."""
    config = LlamaConfig(**{**tiny_models.COMMON, "num_hidden_layers": layers})
    monkeypatch.setitem(tiny_models.ARCHITECTURES, "deep", lambda: config)
    return tiny_models.tiny_model("deep")


@contextmanager
def planted(model, mark, vectors):
    """Hold vectors in the stream of every prompt that contains a sign: after layer l row l of `(layers, d_model)`."""
    (token,) = model.tokenizer(mark, add_special_tokens=False)["input_ids"]
    additions = np.diff(np.asarray(vectors, dtype=np.float64), axis=0, prepend=np.zeros((1, len(vectors[0]))))
    marked = []

    def look(_, __, options):
        marked[:] = [(options["input_ids"] == token).any(dim=1)]

    def add(vector):
        def hook(_, __, output):
            stream = output[0] if isinstance(output, tuple) else output
            stream[:, -1] += torch.where(marked[0][:, None], vector, 0.0)
            return output

        return hook

    handles = [model.network.base_model.register_forward_pre_hook(look, with_kwargs=True)]
    for layer, addition in zip(model.layers, additions, strict=True):
        handles.append(layer.register_forward_hook(add(torch.tensor(addition, dtype=torch.float32))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
