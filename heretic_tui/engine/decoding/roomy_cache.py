"""A key-value cache with room to grow: a decoding step writes its token in place and copies nothing else."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ROOM = 64
"""Tokens of room that are added whenever there is none left."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc, unused-ignore]
    """One full-attention layer's keys and values `(rows, heads, tokens, size)`: views of larger tensors."""

    # The base class adds every token by concatenation, which copies the whole cache at each step.
    is_initialized: bool
    _all_keys: Tensor
    _all_values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values behind the others and return all of them."""
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._all_keys, self._all_values = self.keys, self.values
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._all_keys.shape[-2]:
            self._all_keys, self._all_values = _moved(self.keys, end + ROOM), _moved(self.values, end + ROOM)
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows only; a row that is named several times becomes several rows."""
        if not self.is_initialized:
            return
        end, room = self.keys.shape[-2], self._all_keys.shape[-2]
        self._all_keys, self._all_values = _moved(self.keys, room, indices), _moved(self.values, room, indices)
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]


def _moved(filled: Tensor, room: int, rows: Tensor | None = None) -> Tensor:
    """A larger tensor that begins with `filled` `(rows, heads, tokens, size)`, or with some of its rows."""
    count = len(filled) if rows is None else len(rows)
    larger = filled.new_empty(count, filled.shape[1], room, filled.shape[3])
    larger[:, :, : filled.shape[2]] = filled if rows is None else filled[rows]
    return larger


def roomy_cache(config: "PreTrainedConfig") -> DynamicCache:
    """The library's cache for this model, its plain full-attention layers with room to grow.

    Layers that keep anything else (a sliding window, a recurrent state, an index) stay the library's own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def attends_to_all(cache: DynamicCache) -> bool:
    """Whether every layer keeps all tokens and the mask alone hides some, so that gaps between them do no harm."""
    return bool(cache.layers) and all(type(layer) is RoomyLayer for layer in cache.layers)


def rows_of_one(count: int, device: torch.device) -> Tensor:
    """Indices that make `count` rows of the only one."""
    return torch.zeros(count, dtype=torch.long, device=device)
