"""transformers' own generation loop, for any decoding strategy it supports.

Shapes: B prompts, T tokens of the longest one, N new tokens.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from neuroada.decoding.answers import Stops, end_tokens
from neuroada.decoding.growing_cache import growing_cache, keeps_all_tokens


class PlainDecoder:
    """Token by token, until the last row of a batch has ended."""

    def __init__(
        self, model: PreTrainedModel, config: GenerationConfig, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        self._model = model
        self._config = config
        self._tokenizer = tokenizer

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached."""
        written: list[list[int]] = [[] for _ in prompts]
        for limit, rows in of_one_limit(limits):
            limited = with_limit(self._config, limit)
            new = generate(self._model, [prompts[row] for row in rows], limited, self._tokenizer)
            for row, ids in zip(rows, new, strict=True):
                written[row] = ids
        return written


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt of one batch, up to and including the end token; a tokenizer reads stop texts."""
    pad = config.pad_token_id
    assert isinstance(pad, int), "pad_token_id always finds one"
    ids_BT, mask_BT = padded_left(prompts, pad)
    stops = _stops(config, tokenizer)
    shipped = model.generation_config
    # transformers fills open settings from the checkpoint's own configuration, which may enable sampling.
    model.generation_config = GenerationConfig()
    try:
        sequences: Any = model.generate(  # type: ignore[operator]  # typed as a module attribute
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            generation_config=without_stops(config),
            stopping_criteria=StoppingCriteriaList([_StopTexts(stops, ids_BT.shape[1], pad)] if stops else []),
            **({"past_key_values": growing_cache(model)} if _can_grow(model, config) else {}),
        )
    finally:
        model.generation_config = shipped
    assert isinstance(sequences, Tensor)
    new_BN = sequences[:, ids_BT.shape[1] :]
    ends = end_tokens(config)
    return [_up_to(ids, ends, pad, stops) for ids in new_BN.tolist()]


class _StopTexts(StoppingCriteria):
    """Ends rows as the other engines do: transformers' own criterion also reads the end of the prompt."""

    def __init__(self, stops: Stops, prompt_length: int, pad: int) -> None:
        self._stops = stops
        self._prompt_length = prompt_length
        self._pad = pad

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """(B,) whether each row contains a stop text."""
        rows = input_ids[:, self._prompt_length :].tolist()
        # Padding adds no text, so that a row that has ended is not read again.
        found = [ids[-1] != self._pad and self._stops.found_in(ids) for ids in rows]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)


def _stops(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase | None) -> Stops | None:
    if not config.stop_strings:
        return None
    assert tokenizer is not None, "a tokenizer reads stop texts"
    return Stops(tokenizer, config.stop_strings)


def _can_grow(model: PreTrainedModel, config: GenerationConfig) -> bool:
    """Whether transformers would make a plain cache; beams are reordered with a copy of it in any case."""
    has_own = config.cache_implementation is not None or config.use_cache is False or (config.num_beams or 1) > 1
    return not has_own and keeps_all_tokens(model)


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


def without_stops(config: GenerationConfig) -> GenerationConfig:
    """A copy for engines that do not get stop texts from it: they write on, or are stopped, and the answer is cut."""
    plain = copy.deepcopy(config)
    plain.stop_strings = None
    return plain


def _up_to(ids: list[int], ends: Sequence[int], pad: int, stops: Stops | None) -> list[int]:
    """The ids without padding after the end token; the padding may repeat that token.

    A row that ended at a stop text has no end token, so its padding is removed.
    """
    place = next((place for place, token in enumerate(ids) if token in ends), None)
    if place is not None:
        return ids[:place] if stops is not None and stops.found_in(ids[:place]) else ids[: place + 1]
    if stops is not None:
        while ids and ids[-1] == pad:
            ids = ids[:-1]
    return ids
