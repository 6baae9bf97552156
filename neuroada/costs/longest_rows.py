"""Training rows of the greatest length, and their loss: what a planned or measured step computes.

Shapes: B rows, T tokens of each.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.config.schema import REGRESSION, DataConfig, RunConfig
from neuroada.data.encoding import Encoded
from neuroada.data.labelled_rows import LabelledBatch
from neuroada.data.packing import TrainingBatch, collate_packed, collate_padded
from neuroada.training.labelling import Labelling
from neuroada.training.loss import SummedLoss

_PAD, _TOKEN = 0, 1


def largest_micro_batch(data: DataConfig) -> TrainingBatch:
    """All examples have the maximum length, and all their tokens carry loss."""
    lengths = [data.max_length] * data.chosen_micro_batch_size
    if data.batching == "packed":
        return collate_packed(_examples(lengths), num_step_tokens=1)
    lengths[-1] -= 1  # a padded row needs an attention mask
    return collate_padded(_examples(lengths), num_step_tokens=1, pad_id=_PAD)


def longest_texts(number: int, length: int, is_regression: bool) -> LabelledBatch:
    """Texts with labels; the last one is a token shorter, so that there is an attention mask."""
    input_ids_BT, attention_mask_BT = (
        torch.full((number, length), _TOKEN),
        torch.ones(number, length, dtype=torch.int64),
    )
    input_ids_BT[-1, -1], attention_mask_BT[-1, -1] = _PAD, 0
    targets_B = torch.full((number,), math.pi) if is_regression else torch.zeros(number, dtype=torch.int64)
    return {
        "input_ids": input_ids_BT,
        "attention_mask": attention_mask_BT,
        "token_type_ids": None,
        "targets": targets_B,
        "num_step_tokens": number,
    }


def loss_of_micro_batch(model: PreTrainedModel, run: RunConfig) -> Callable[[], Tensor]:
    """What computes the summed loss, (), of a run's largest micro-batch."""
    if run.task.objective is None:
        return _language_loss(model, largest_micro_batch(run.data))
    return _label_loss(model, run, run.data.chosen_micro_batch_size)


def loss_of_rows(model: PreTrainedModel, run: RunConfig, number: int) -> Callable[[], Tensor]:
    """What computes the summed loss, (), of rows that pass through the model one at a time."""
    if run.task.objective is None:
        row = collate_packed(_examples([run.data.max_length]), num_step_tokens=1)
        one = _language_loss(model, row)
    else:
        one = _label_loss(model, run, number=1)
    return lambda: torch.stack([one() for _ in range(number)]).sum()


def _language_loss(model: PreTrainedModel, batch: TrainingBatch) -> Callable[[], Tensor]:
    summed_loss = SummedLoss(model)
    return lambda: summed_loss(batch)[0]


def _label_loss(model: PreTrainedModel, run: RunConfig, number: int) -> Callable[[], Tensor]:
    objective = Labelling(model, _PAD, num_benchmarks=0)
    batch = longest_texts(number, run.data.max_length, run.task.objective == REGRESSION)
    return lambda: objective.summed_loss(batch)[0]


def _examples(lengths: Sequence[int]) -> list[Encoded]:
    return [Encoded.after([0] * length, 0) for length in lengths]
