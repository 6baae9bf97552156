"""Log-likelihoods of continuations: how probable a model finds each choice of a question.

Shapes: R rows (one for each choice), T tokens of the longest, V vocabulary.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones.limits import context_length
from neuroada.config.errors import UserError
from neuroada.data.prompt_batches import PromptBatch
from neuroada.decoding.memory import within_memory

logger = logging.getLogger(__name__)

_CPU_TOKENS_PER_PASS = 4096
_GPU_TOKENS_PER_PASS = 16_384


class ChoiceScorer:
    """Scores the choices of a test loop's batches.

    Args:
        model: The backbone, in evaluation mode.
        pad_id: An id to pad with; padding is on the right, so causal attention never reads it.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        is_cpu = model.device.type == "cpu"
        self._context = context_length(model)
        self._tokens_per_pass = _CPU_TOKENS_PER_PASS if is_cpu else _GPU_TOKENS_PER_PASS

    def __call__(self, batch: PromptBatch) -> list[list[float]]:
        """For each item, the log-probability of each choice given the prompt: summed over its tokens, in nats."""
        rows = [
            (self._within_context(prompt, choice), choice)
            for prompt, choices in zip(batch["prompts"], batch["choices"], strict=True)
            for choice in choices
        ]
        # Rows of similar length together; the order is undone below.
        order = sorted(range(len(rows)), key=lambda row: -sum(map(len, rows[row])))
        totals = [0.0] * len(rows)
        start = 0
        while start < len(order):
            width = sum(map(len, rows[order[start]]))
            part = order[start : start + max(1, self._tokens_per_pass // width)]
            found = within_memory(self._totals, [rows[row] for row in part])
            if found is None:
                self._halve(len(part), width)
                continue
            for row, total in zip(part, found, strict=True):
                totals[row] = total
            start += len(part)
        left = iter(totals)
        return [[next(left) for _ in choices] for choices in batch["choices"]]

    def _halve(self, num_rows: int, width: int) -> None:
        """Allow half as many rows of this width from now on."""
        if num_rows == 1:
            raise UserError(
                f"a prompt and choice of {width} tokens do not fit into the memory of {self._model.device} by "
                "themselves; use model.dtype=bfloat16"
            )
        self._tokens_per_pass = num_rows // 2 * width
        logger.warning("out of memory: scoring at most %d tokens at a time from now on", self._tokens_per_pass)

    def _within_context(self, prompt: Sequence[int], choice: Sequence[int]) -> Sequence[int]:
        """The end of a prompt that is too long for the model's positions; such items count as wrong anyway."""
        most = len(prompt) if self._context is None else max(1, self._context - len(choice))
        return prompt[-most:]

    def _totals(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        lengths = [len(prompt) + len(choice) for prompt, choice in rows]
        ids_RT = torch.full((len(rows), max(lengths)), self._pad_id, dtype=torch.int64)
        mask_RT = torch.zeros_like(ids_RT)
        for place, (prompt, choice) in enumerate(rows):
            ids_RT[place, : lengths[place]] = torch.tensor([*prompt, *choice])
            mask_RT[place, : lengths[place]] = 1
        device = self._model.device
        with torch.inference_mode():
            logits_RTV = self._model(input_ids=ids_RT.to(device), attention_mask=mask_RT.to(device)).logits
            return [_total(logits_RTV[place], prompt, choice) for place, (prompt, choice) in enumerate(rows)]


def _total(logits_TV: Tensor, prompt: Sequence[int], choice: Sequence[int]) -> float:
    """Sum of the log-probabilities of the choice's tokens; in float32, whatever the model computes in."""
    start = len(prompt) - 1
    predicted = logits_TV[start : start + len(choice)].float().log_softmax(dim=-1)
    chosen = torch.tensor(list(choice), device=predicted.device)[:, None]
    return float(predicted.gather(1, chosen).sum())
