"""Examples -> token ids -> padded tensors. Masks and labels come from lengths, never from ids.

Shapes: B rows of a batch, T tokens of its longest row.
"""

import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.tasks.prompts import Example, Protocol

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token that carries no loss (PyTorch's default ``ignore_index``)."""

_ROWS_PER_CALL = 1024
"""Rows tokenised at once: enough to keep a fast tokenizer's threads busy, few enough to keep the lists small."""


@dataclass(frozen=True)
class Encoded:
    """One training example in tokens; four bytes a token, since a data set of 170k rows is held in memory."""

    input_ids: Sequence[int]
    labels_from: int
    """First position that carries loss."""

    @property
    def labels(self) -> list[int]:
        """The ids, with IGNORED before ``labels_from``."""
        masked = min(self.labels_from, len(self.input_ids))
        return [IGNORED] * masked + list(self.input_ids[masked:])

    @property
    def num_labels(self) -> int:
        """Labels that a next-token loss sees: it has no prediction for position 0."""
        return max(0, len(self.input_ids) - max(self.labels_from, 1))


class TrainingBatch(TypedDict):
    """What a training step gets."""

    input_ids: torch.Tensor
    """(B, T) int64, padded on the right."""
    attention_mask: torch.Tensor
    """(B, T) int64: 1 on tokens, 0 on padding."""
    labels: torch.Tensor
    """(B, T) int64: IGNORED on padding and where no loss is wanted."""
    num_step_tokens: int
    """Labelled tokens of the whole optimizer step, over all ranks and micro-batches; at least 1, so it can divide."""


class PromptBatch(TypedDict):
    """What generation gets."""

    input_ids: torch.Tensor
    """(B, T) int64, padded on the left."""
    attention_mask: torch.Tensor
    """(B, T) int64."""
    index: list[int]
    """``Example.index`` of each row."""


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to pad with: the tokenizer's pad, else unk, else eos. Nothing is added, so nothing needs resizing."""
    for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise UserError(f"tokenizer {tokenizer.name_or_path}: has no pad, unk or eos token; set tokenizer.eos_token")


def encode(
    example: Example, protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> Encoded:
    """One example; see ``encode_all``."""
    return encode_all([example], protocol, tokenizer, max_length, loss_on)[0]


def encode_all(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str
) -> list[Encoded]:
    """Prompt + completion + one eos, cut on the right at ``max_length``.

    Prompt and completion are tokenised as one text, as LoReFT and NeuroAda do. Where a token straddles the border (a
    byte-level tokenizer merges "\\n" + "\\n"), the two are tokenised apart instead: the prompt's ids are then those
    that generation starts from, always.
    """
    eos = _eos_token_id(tokenizer)
    encoded: list[Encoded] = []
    for start in range(0, len(examples), _ROWS_PER_CALL):
        chunk = examples[start : start + _ROWS_PER_CALL]
        prompts = [protocol.prompt(example.instruction) for example in chunk]
        completions = [protocol.completion(example) for example in chunk]
        for prompt_ids, ids in _joined(prompts, completions, tokenizer):
            labels_from = len(prompt_ids) if loss_on == "completion" else 0
            encoded.append(Encoded(array("i", [*ids, eos][:max_length]), labels_from))
    _warn_of_cut_completions(encoded, max_length)
    return encoded


def encode_prompts(
    examples: Sequence[Example], protocol: Protocol, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The ids generation starts from, whole."""
    prompts = [protocol.prompt(example.instruction) for example in examples]
    encoded: list[list[int]] = []
    for start in range(0, len(prompts), _ROWS_PER_CALL):
        encoded += _tokenise(prompts[start : start + _ROWS_PER_CALL], tokenizer)
    return encoded


def collate_training(encoded: Sequence[Encoded], pad_id: int, num_step_tokens: int) -> TrainingBatch:
    """Pad on the right to the longest row."""
    shape = (len(encoded), max(len(row.input_ids) for row in encoded))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, example in enumerate(encoded):
        ids = torch.tensor(example.input_ids, dtype=torch.int64)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        labels[row, example.labels_from : len(ids)] = ids[example.labels_from :]
    return TrainingBatch(
        input_ids=input_ids, attention_mask=attention_mask, labels=labels, num_step_tokens=max(num_step_tokens, 1)
    )


def collate_prompts(prompts: Sequence[tuple[int, Sequence[int]]], pad_id: int) -> PromptBatch:
    """Pad (index, ids) pairs on the left to the longest row."""
    shape = (len(prompts), max(len(ids) for _, ids in prompts))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    for row, (_, ids) in enumerate(prompts):
        input_ids[row, shape[1] - len(ids) :] = torch.tensor(ids, dtype=torch.int64)
        attention_mask[row, shape[1] - len(ids) :] = 1
    return PromptBatch(input_ids=input_ids, attention_mask=attention_mask, index=[index for index, _ in prompts])


def _joined(
    prompts: list[str], completions: list[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[int]]]:
    """(prompt ids, prompt + completion ids) of each row; the first always open the second."""
    wholes = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    rows = zip(_tokenise(prompts, tokenizer), _tokenise(wholes, tokenizer), completions, strict=True)
    for prompt_ids, ids, completion in rows:
        if ids[: len(prompt_ids)] != prompt_ids:
            ids = prompt_ids + tokenizer(completion, add_special_tokens=False)["input_ids"]
        yield prompt_ids, ids


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids with whatever the tokenizer opens a text with (bos for Llama), but without a closing eos."""
    eos = tokenizer.eos_token_id
    rows: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    return [ids[:-1] if ids and ids[-1] == eos and tokenizer.num_special_tokens_to_add() > 0 else ids for ids in rows]


def _eos_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: has no eos token, so a trained model would never stop; "
            "set one in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _warn_of_cut_completions(encoded: list[Encoded], max_length: int) -> None:
    num_cut = sum(row.num_labels == 0 for row in encoded)
    if num_cut:
        logger.warning(
            "%d of %d training rows carry no loss: their prompts fill all of data.max_length=%d tokens",
            num_cut,
            len(encoded),
            max_length,
        )
