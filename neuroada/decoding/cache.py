"""The key-value caches of verified decoding: creating, cropping, padding and joining them.

Shapes: B rows, H key-value heads, S slots, D head size.
"""

import inspect
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from neuroada.decoding.growing_cache import GrowingLayer, growing_cache, keeps_all_tokens


def can_verify(model: PreTrainedModel) -> bool:
    """Whether a model can continue from a cache with masked slots, and skip logits that are not needed.

    A sliding window would count masked slots, and a recurrent state cannot undo a wrong draft.
    """
    keywords = inspect.signature(model.forward).parameters
    return "position_ids" in keywords and "logits_to_keep" in keywords and keeps_all_tokens(model)


class SharedStart:
    """The longest common prefix of all prompts so far: read once, and shortened as other prompts come."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._tokens: Sequence[int] | None = None
        self._cache = growing_cache(model)

    def shared_with(self, prompts: Sequence[Sequence[int]]) -> int:
        """Length of the common prefix of these prompts and all earlier ones; leaves at least one token per prompt."""
        if self._tokens is None and len(prompts) == 1:
            return 0
        known = [] if self._tokens is None else [self._tokens]
        shared = _common_start([*known, *(prompt[:-1] for prompt in prompts)])
        if self._tokens is None and shared:
            ids = torch.tensor([shared], device=self._model.device)
            cache = growing_cache(self._model)  # a pass that runs out of memory leaves a partial cache
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._cache = cache
        self._tokens = shared
        return len(shared)

    def cache_of(self, num_rows: int) -> DynamicCache:
        """A cache that holds the common prefix for each row."""
        cache = growing_cache(self._model)
        length = len(self._tokens or ())
        for index in range(len(self._cache.layers) if length else 0):
            parts = _keys_and_values(self._cache, index)
            keys, values = (part[:, :, :length].expand(num_rows, -1, -1, -1) for part in parts)
            cache.update(keys, values, index)
        return cache


def joined(parts: Sequence[DynamicCache], model: PreTrainedModel) -> DynamicCache:
    """One cache of all rows, the shorter ones padded on the left; the parts are empty afterwards."""
    cache = growing_cache(model)
    width = max(part.get_seq_length() for part in parts)
    for index in range(len(parts[0].layers)):
        keys, values = zip(*(_keys_and_values(part, index) for part in parts), strict=True)
        cache.update(_padded(keys, width), _padded(values, width), index)
        for part in parts:  # layer by layer, because memory may not hold everything twice
            part.layers[index] = GrowingLayer()
    return cache


def _padded(parts: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts, (B, H, S, D) each, in ``width`` slots."""
    num_rows = sum(map(len, parts))
    whole = parts[0].new_zeros((num_rows, parts[0].shape[1], width, parts[0].shape[3]))
    for rows, part in zip(whole.split([len(part) for part in parts]), parts, strict=True):
        rows[:, :, width - part.shape[2] :] = part
    return whole


def _keys_and_values(cache: DynamicCache, index: int) -> tuple[Tensor, Tensor]:
    """(B, H, S, D) each."""
    layer = cache.layers[index]
    assert isinstance(layer, DynamicLayer), "can_verify"
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _common_start(sequences: Sequence[Sequence[int]]) -> list[int]:
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return [column[0] for column in columns]
