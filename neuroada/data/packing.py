"""Token ids -> training batches: examples packed end to end in one row, or padded to one row each.

Masks and labels come from lengths, never from ids.

Shapes: B rows of a batch, T tokens of a row.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.data.encoding import Encoded

IGNORED = -100
"""Label of a token that carries no loss (PyTorch's default ``ignore_index``)."""


class TrainingBatch(TypedDict):
    """The input of a training step."""

    input_ids: torch.Tensor
    """(B, T) int64."""
    attention_mask: torch.Tensor | None
    """(B, T) int64: 1 on tokens, 0 on padding. None for packed rows, which have no padding."""
    position_ids: torch.Tensor | None
    """(B, T) int64, restarting from 0 at each example of a packed row. None if a row is one example."""
    example_lengths: list[int] | None
    """Tokens of each example of a packed row, in order. None if a row is one example."""
    labels: torch.Tensor
    """(B, T) int64: IGNORED on padding, on the first token of each example, and on tokens without loss."""
    label_places: torch.Tensor
    """(N,) int64: the tokens of the flattened (B, T) whose next token has a label, ascending."""
    label_columns: torch.Tensor
    """(S,) int64: the places of T of those tokens in any row, ascending; the first place if there is no label."""
    num_step_tokens: int
    """Labelled tokens of the whole optimizer step, over all ranks and micro-batches; at least 1, as it is a divisor."""


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to pad with: the tokenizer's pad, else unk, else eos. No token is added, so no embedding is resized."""
    for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise UserError(f"tokenizer {tokenizer.name_or_path}: has no pad, unk or eos token; set tokenizer.eos_token")


def collate_padded(encoded: Sequence[Encoded], num_step_tokens: int, pad_id: int) -> TrainingBatch:
    """One row per example, padded on the right to the longest."""
    shape = (len(encoded), max(len(example.input_ids) for example in encoded))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, example in enumerate(encoded):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids, dtype=torch.int64)
        attention_mask[row, :length] = 1
        labels[row, :length] = _labels(example, input_ids[row, :length])
    return TrainingBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=None,
        example_lengths=None,
        **with_places(labels),
        num_step_tokens=max(num_step_tokens, 1),
    )


def collate_packed(encoded: Sequence[Encoded], num_step_tokens: int) -> TrainingBatch:
    """All examples end to end in one row: B = 1 and no padding.

    Restarting positions separate them. transformers detects these only without an attention mask and without a cache;
    with either, an example would attend to the previous ones.
    """
    ids = [torch.tensor(example.input_ids, dtype=torch.int64) for example in encoded]
    labels = torch.cat([_labels(example, row) for example, row in zip(encoded, ids, strict=True)])[None]
    return TrainingBatch(
        input_ids=torch.cat(ids)[None],
        attention_mask=None,
        position_ids=torch.cat([torch.arange(len(row)) for row in ids])[None],
        example_lengths=[len(row) for row in ids],
        **with_places(labels),
        num_step_tokens=max(num_step_tokens, 1),
    )


class LabelParts(TypedDict):
    """The parts of a batch that say where its labels are."""

    labels: torch.Tensor
    label_places: torch.Tensor
    label_columns: torch.Tensor


def with_places(labels_BT: torch.Tensor) -> LabelParts:
    """Labels and where they are, see ``TrainingBatch``.

    Made with the batch: on a GPU, how many there are is known only when all earlier work is done, and the host would
    wait for that in every step.
    """
    predicting = (labels_BT[:, 1:] != IGNORED).nonzero()
    rows_N, columns_N = predicting.unbind(1)
    return LabelParts(
        labels=labels_BT,
        label_places=rows_N * labels_BT.shape[1] + columns_N,
        label_columns=columns_N.unique() if len(columns_N) else columns_N.new_zeros(1),
    )


def _labels(example: Encoded, ids: torch.Tensor) -> torch.Tensor:
    """(T,) labels of one example; its first token has none, because no token before it may predict it."""
    labels = torch.full_like(ids, IGNORED)
    for start, stop in example.labelled:
        labels[max(start, 1) : stop] = ids[max(start, 1) : stop]
    return labels
