"""A key-value cache with room for tokens to come: transformers' own copies all it holds for each new token.

Shapes: B rows, H key-value heads, S slots, D head size.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Slots that are added at once: a copy of the cache for so many tokens, and memory for at most so many more."""


class GrowingLayer(DynamicLayer):
    """A ``DynamicLayer`` whose keys and values are views of larger tensors, into which new ones are written."""

    def __init__(self) -> None:
        super().__init__()
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, H, S, D) states; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = _appended(self.keys, key_states, self._key_room)
        self.values, self._value_room = _appended(self.values, value_states, self._value_room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._key_room = self._value_room = None  # its memory is free before the next layer is copied


def growing_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for a model of which ``keeps_all_tokens`` holds."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache


def keeps_all_tokens(model: PreTrainedModel) -> bool:
    """Whether every layer of a model's cache keeps the keys and values of all tokens, without a window or a state."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _appended(held: Tensor | None, new: Tensor, room: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, H, S, D) held states and new ones after them, and the tensor that has room for both."""
    assert held is not None
    length = held.shape[-2] if held.dim() > 1 else 0
    end = length + new.shape[-2]
    if room is None or room.shape[-2] < end or not _begins(held, room):
        room = new.new_empty((*new.shape[:-2], end + _ROOM, new.shape[-1]))
        if length:
            room[..., :length, :] = held
    room[..., length:end, :] = new
    return room[..., :end, :], room


def _begins(held: Tensor, room: Tensor) -> bool:
    """Whether the states are the first slots of this tensor; others may have replaced them, such as reordered rows."""
    return held.data_ptr() == room.data_ptr() and held.stride() == room.stride() and len(held) == len(room)
