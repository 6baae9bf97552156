"""Classification and regression of texts: the loss of a head on the backbone, and its results.

Shapes: B texts of a batch, T tokens of the longest, C outputs of the head.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.labelled_rows import NO_CLASS, LabelledBatch, pad
from neuroada.data.module import InstructionDataModule
from neuroada.data.prompt_batches import PromptBatch
from neuroada.decoding.memory import within_memory

logger = logging.getLogger(__name__)

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Labelling:
    """The objective of classification, with cross-entropy, and of regression, with the squared error.

    Args:
        model: The backbone with a head, and with the method on it.
        pad_id: The id that texts are padded with; the model is told.
        benchmarks: Number of benchmarks that are scored.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int, num_benchmarks: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._num_benchmarks = num_benchmarks
        self._most_rows: int | None = None
        # A decoder reads the last token that is not this one: with another id it would read padding.
        model.config.get_text_config().pad_token_id = pad_id

    @property
    def _has_classes(self) -> bool:
        return int(self._model.config.num_labels or 0) > 1

    def start_fit(self, data: InstructionDataModule) -> None:
        """Any backbone with a head will do: rows are never packed."""

    def end_fit(self) -> None:
        """Nothing was prepared."""

    def summed_loss(self, batch: LabelledBatch) -> tuple[Tensor, int]:
        """Over the rows that carry one; a regression's is the squared error."""
        losses_B = self._losses(batch)
        return losses_B.sum(), len(losses_B)

    @torch.no_grad()
    def example_losses(self, batch: LabelledBatch) -> Tensor:
        """(B,) of each text; zero for one without a label."""
        return self._losses(batch)

    def _losses(self, batch: LabelledBatch) -> Tensor:
        logits_BC, targets_B = self._logits({key: batch.get(key) for key in _INPUTS}), batch["targets"]
        if self._has_classes:
            return F.cross_entropy(logits_BC, targets_B, ignore_index=NO_CLASS, reduction="none")
        is_given_B = ~targets_B.isnan()
        return torch.where(is_given_B, logits_BC.squeeze(1) - targets_B.nan_to_num(), 0.0).square()

    def start_test(self) -> None:
        """Nothing is remembered."""

    def asked(self, questions: Sequence[BenchmarkItems]) -> "Labelling":
        return self

    def outputs(self, batch: PromptBatch, benchmark: int) -> dict[str, Any]:
        """``probabilities`` of the classes of each text, or ``values``."""
        found: list[Any] = []
        rows = list(zip(batch["prompts"], batch["type_ids"], strict=True))
        most = self._most_rows or len(rows)
        while len(found) < len(rows):
            results = within_memory(self._results, rows[len(found) : len(found) + most])
            if results is None:
                most = self._halved(min(most, len(rows) - len(found)))
            else:
                found += results
        return {"probabilities" if self._has_classes else "values": found}

    def answered_by(self) -> list[Any]:
        return ["head"] * self._num_benchmarks

    def _results(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
        ids, types = zip(*rows, strict=True)
        with torch.inference_mode():
            inputs = {name: part.to(self._model.device) for name, part in pad(ids, types, self._pad_id).items()}
            logits_BC = self._logits(inputs)
            results: list[Any] = (logits_BC.softmax(dim=-1) if self._has_classes else logits_BC.squeeze(1)).tolist()
        return results

    def _logits(self, inputs: dict[str, Any]) -> Tensor:
        """(B, C) fp32, whatever the model computes in."""
        given = {name: part for name, part in inputs.items() if part is not None}
        logits: Tensor = self._model(**given).logits.float()
        return logits

    def _halved(self, num_rows: int) -> int:
        """Half as many rows at a time from now on."""
        if num_rows == 1:
            raise UserError(
                f"one text does not fit into the memory of {self._model.device} by itself; use model.dtype=bfloat16"
            )
        self._most_rows = -(-num_rows // 2)
        logger.warning("out of memory: scoring at most %d texts at a time from now on", self._most_rows)
        return self._most_rows
