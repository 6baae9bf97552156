"""transformers' own generation loop, for any decoding strategy it supports.

Shapes: B prompts, T tokens of the longest one, N new tokens.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel


class PlainDecoder:
    """Token by token, until the last row of a batch has ended."""

    def __init__(self, model: PreTrainedModel, config: GenerationConfig) -> None:
        self._model = model
        self._config = config

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached."""
        written: list[list[int]] = [[] for _ in prompts]
        for limit, rows in of_one_limit(limits):
            new = generate(self._model, [prompts[row] for row in rows], with_limit(self._config, limit))
            for row, ids in zip(rows, new, strict=True):
                written[row] = ids
        return written


def generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """The new tokens of each prompt of one batch, up to and including the end token."""
    pad, end = config.pad_token_id, config.eos_token_id
    assert isinstance(pad, int), "pad_token_id always finds one"
    assert end is None or isinstance(end, int), "a tokenizer has one end token"
    ids_BT, mask_BT = padded_left(prompts, pad)
    shipped = model.generation_config
    # transformers fills open settings from the checkpoint's own configuration, which may enable sampling.
    model.generation_config = GenerationConfig()
    try:
        sequences: Any = model.generate(  # type: ignore[operator]  # typed as a module attribute
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            generation_config=config,
        )
    finally:
        model.generation_config = shipped
    assert isinstance(sequences, Tensor)
    new_BN = sequences[:, ids_BT.shape[1] :]
    return [_up_to(ids, end) for ids in new_BN.tolist()]


def padded_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) int64 ids, padded on the left, and the (B, T) int64 mask: 1 on tokens, 0 on padding."""
    shape = (len(prompts), max(map(len, prompts)))
    ids_BT = torch.full(shape, pad_id, dtype=torch.int64)
    mask_BT = torch.zeros(shape, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        start = shape[1] - len(prompt)
        ids_BT[row, start:] = torch.tensor(prompt, dtype=torch.int64)
        mask_BT[row, start:] = 1
    return ids_BT, mask_BT


def of_one_limit(limits: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each limit and the rows that have it: transformers takes one limit per call."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, limit in enumerate(limits):
        rows_of[limit].append(row)
    yield from rows_of.items()


def with_limit(config: GenerationConfig, max_new_tokens: int) -> GenerationConfig:
    """A copy with this limit."""
    limited = copy.deepcopy(config)
    limited.max_new_tokens = max_new_tokens
    return limited


def _up_to(ids: list[int], end: int | None) -> list[int]:
    """The ids without padding after the end token; the padding may repeat that token."""
    return ids[: ids.index(end) + 1] if end is not None and end in ids else ids
