"""Batched generation with the adapted backbone.

Shapes: B prompts of a batch, N new tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from neuroada.config.errors import UserError, suggest
from neuroada.tasks.batches import PromptBatch, pad_token_id

_KEYWORDS = frozenset(vars(GenerationConfig()))


@dataclass(frozen=True)
class Decoding:
    """How each benchmark is generated, in the order of the test loaders."""

    configs: Sequence[GenerationConfig]

    @classmethod
    def make(
        cls, tokenizer: PreTrainedTokenizerBase, max_new_tokens: Sequence[int], keywords: dict[str, Any]
    ) -> "Decoding":
        """One configuration for each benchmark's longest generation, from ``evaluation.generation`` keywords.

        Raises:
            UserError: A keyword is not one of ``generate``'s, or has a value it refuses.
        """
        for key in sorted(keywords.keys() - _KEYWORDS):
            raise UserError(f"evaluation.generation.{key}: generate has no such keyword; {suggest(key, _KEYWORDS)}")
        try:
            return cls(cls._configs(tokenizer, max_new_tokens, keywords))
        except ValueError as error:
            raise UserError(f"evaluation.generation: {str(error).splitlines()[0]}") from error

    @staticmethod
    def _configs(
        tokenizer: PreTrainedTokenizerBase, max_new_tokens: Sequence[int], keywords: dict[str, Any]
    ) -> list[GenerationConfig]:
        return [
            GenerationConfig(
                max_new_tokens=length,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=pad_token_id(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                **keywords,
            )
            for length in max_new_tokens
        ]


def generate(model: PreTrainedModel, batch: PromptBatch, decoding: Decoding, benchmark: int = 0) -> Tensor:
    """(B, N) new tokens of a left-padded batch of prompts; rows that end early are filled with the pad token."""
    shipped = model.generation_config
    # transformers fills what a configuration leaves open from the checkpoint's own, which may ask for sampling.
    model.generation_config = GenerationConfig()
    try:
        with torch.inference_mode():
            sequences: Any = model.generate(  # type: ignore[operator]  # typed as a module attribute
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                generation_config=decoding.configs[benchmark],
            )
    finally:
        model.generation_config = shipped
    assert isinstance(sequences, Tensor)
    return sequences[:, batch["input_ids"].shape[1] :]
