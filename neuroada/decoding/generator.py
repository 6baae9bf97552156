"""From the prompts of a test loop to new tokens, within the limits of context and memory."""

import logging

import torch
from transformers import GenerationConfig, PreTrainedModel

from neuroada.backbones.limits import context_length
from neuroada.config.errors import UserError
from neuroada.data.prompt_batches import PromptBatch
from neuroada.decoding.decoders import decoders
from neuroada.decoding.memory import within_memory
from neuroada.decoding.settings import Decoding

logger = logging.getLogger(__name__)


class Generator:
    """Generates the completions of a test loop's batches.

    Args:
        model: The backbone, adapted in place; its weights must not change.
        decoding: How each benchmark is generated.
    """

    def __init__(self, model: PreTrainedModel, decoding: Decoding) -> None:
        self._model = model
        self._decoding = decoding
        self._context = context_length(model)
        self._most_rows: int | None = None
        self._decoders = decoders(model, decoding)

    def __call__(self, batch: PromptBatch, benchmark: int) -> list[list[int]]:
        """The new tokens of each prompt, including the end token if there is one.

        A completion stops at the end of the model's context; a prompt that fills the context gets none.
        """
        prompts = batch["prompts"]
        config = self._decoding.configs[benchmark]
        limits = [self._limit(len(prompt), config) for prompt in prompts]
        going = [row for row, limit in enumerate(limits) if limit > 0]
        with torch.inference_mode():
            written = self._fitting([prompts[row] for row in going], [limits[row] for row in going], benchmark)
        new: list[list[int]] = [[] for _ in prompts]
        for row, ids in zip(going, written, strict=True):
            new[row] = ids
        return new

    def _limit(self, prompt_length: int, config: GenerationConfig) -> int:
        most = config.max_new_tokens
        assert most is not None
        return most if self._context is None else min(most, self._context - prompt_length)

    def _fitting(self, prompts: list[list[int]], limits: list[int], benchmark: int) -> list[list[int]]:
        """The new tokens of each prompt, decoded in parts that fit into memory."""
        most = self._most_rows or len(prompts)
        written: list[list[int]] = []
        while len(written) < len(prompts):
            part = slice(len(written), len(written) + most)
            new = within_memory(self._decoders[benchmark].decode, prompts[part], limits[part])
            if new is not None:
                written += new
                continue
            if most == 1:
                raise UserError(
                    f"a prompt of {len(prompts[part][0])} tokens does not fit into the memory of "
                    f"{self._model.device} by itself; lower evaluation.max_new_tokens, or use model.dtype=bfloat16"
                )
            self._most_rows = most = -(-min(most, len(prompts)) // 2)
            logger.warning("out of memory: generating at most %d prompts at a time from now on", most)
        return written
