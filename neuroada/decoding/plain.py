"""transformers' own generation loop, for any decoding strategy it knows.

Shapes: B prompts, N new tokens.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from neuroada.data.batches import PromptBatch, collate_prompts


class PlainDecoder:
    """Token by token, until the last row of a batch has ended."""

    def __init__(self, model: PreTrainedModel, config: GenerationConfig) -> None:
        self._model = model
        self._config = config

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt, at most ``limits`` of them; those that end early are filled with padding."""
        pad = self._config.pad_token_id
        assert isinstance(pad, int), "pad_token_id always finds one"
        written: list[list[int]] = [[] for _ in prompts]
        for limit, rows in of_one_limit(limits):
            batch = collate_prompts([(row, list(prompts[row])) for row in rows], pad)
            new_BN = generate(self._model, batch, with_limit(self._config, limit))
            for row, ids in zip(rows, new_BN.tolist(), strict=True):
                written[row] = ids
        return written


def generate(model: PreTrainedModel, batch: PromptBatch, config: GenerationConfig) -> Tensor:
    """(B, N) new tokens of a left-padded batch of prompts."""
    shipped = model.generation_config
    # transformers fills what a configuration leaves open from the checkpoint's own, which may ask for sampling.
    model.generation_config = GenerationConfig()
    try:
        sequences: Any = model.generate(  # type: ignore[operator]  # typed as a module attribute
            input_ids=batch["input_ids"].to(model.device),
            attention_mask=batch["attention_mask"].to(model.device),
            generation_config=config,
        )
    finally:
        model.generation_config = shipped
    assert isinstance(sequences, Tensor)
    return sequences[:, batch["input_ids"].shape[1] :]


def of_one_limit(limits: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each limit and the rows that have it: transformers takes one limit a call."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, limit in enumerate(limits):
        rows_of[limit].append(row)
    yield from rows_of.items()


def with_limit(config: GenerationConfig, max_new_tokens: int) -> GenerationConfig:
    """A copy that ends earlier."""
    limited = copy.deepcopy(config)
    limited.max_new_tokens = max_new_tokens
    return limited
