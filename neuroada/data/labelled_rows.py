"""Texts with labels -> token ids, stored rows and batches, for classification and regression.

Shapes: B rows of a batch, T tokens of the longest.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from neuroada.data.encoding import ROWS_PER_CALL
from neuroada.data.token_cache import fingerprint_of
from neuroada.tasks.label_protocol import Classes, LabelProtocol
from neuroada.tasks.protocol import Example

NO_CLASS = -100
"""Target of a row without loss (PyTorch's default ``ignore_index``); that of a regression is NaN."""

_FORMAT = 2
"""Increase it when the tokenising changes: older files of the cache are then ignored."""
_TYPES = "token_type_ids"


@dataclass(frozen=True)
class LabelledText:
    """One text, or pair of texts, in tokens."""

    input_ids: Sequence[int]
    type_ids: Sequence[int]
    """0 on the tokens of the first text and 1 on those of the second; empty for a model that is not told."""
    target: float
    """See ``LabelProtocol.target``; NaN carries no loss."""

    def without_loss(self) -> "LabelledText":
        """The same text as filler."""
        return LabelledText(self.input_ids, self.type_ids, math.nan)


class LabelledBatch(TypedDict):
    """The input of a training step."""

    input_ids: Tensor
    """(B, T) int64."""
    attention_mask: Tensor
    """(B, T) int64: 1 on tokens, 0 on padding."""
    token_type_ids: Tensor | None
    """(B, T) int64; None for a model that is not told."""
    targets: Tensor
    """(B,) int64 with NO_CLASS, or float32 with NaN, on rows without loss."""
    num_step_tokens: int
    """Rows of the whole optimizer step, over all ranks and micro-batches: each counts as one labelled token would."""


class LabelledRows:
    """The rows of all training sets of a task, in order; the counterpart of ``TokenisedRows``."""

    def __init__(self, parts: Sequence[datasets.Dataset]) -> None:
        self._rows = datasets.concatenate_datasets(list(parts)).with_format("arrow")
        table = self._rows.data
        self.lengths: np.ndarray = pc.list_value_length(table.column("input_ids")).to_numpy().astype(np.int64)
        """(number of rows,) tokens of each row."""
        self.num_labels: np.ndarray = np.ones(len(self.lengths), dtype=np.int64)
        """(number of rows,) every row has one label."""
        self.is_cut: np.ndarray = table.column("is_cut").to_numpy()
        """(number of rows,) whether the end of a text is missing."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def highest_id(self) -> int:
        """The highest token id of all rows."""
        return max(pc.max(chunk.flatten()).as_py() for chunk in self._rows.data.column("input_ids").chunks)

    def take(self, indices: Sequence[int]) -> list[LabelledText]:
        """The rows at these places, in this order."""
        table: pa.Table = self._rows[list(indices)]
        ids, types = (table[name].combine_chunks() for name in ("input_ids", "type_ids"))
        targets = table["target"].to_pylist()
        return [
            LabelledText(ids[place].values.to_numpy(), types[place].values.to_numpy(), target)
            for place, target in enumerate(targets)
        ]


@dataclass(frozen=True)
class LabelRecipe:
    """How a training file becomes stored rows; the counterpart of ``Recipe``."""

    protocol: LabelProtocol
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    cleaned_of: tuple[str, ...] = ()

    @property
    def features(self) -> datasets.Features:
        """Columns of the stored rows."""
        return datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")),
            type_ids=datasets.List(datasets.Value("int8")),
            target=datasets.Value("float64"),
            is_cut=datasets.Value("bool"),
        )

    def fingerprint(self, file_sha256: str) -> str:
        """Identifies the result for one file; equal fingerprints mean equal rows."""
        settings = {"labels": _FORMAT, "max_length": self.max_length}
        return fingerprint_of(file_sha256, self.protocol, self.tokenizer, self.cleaned_of, settings)

    def columns(self, examples: Sequence[Example]) -> dict[str, list[Any]]:
        """What ``encode`` is given."""
        texts = [self.protocol.texts(example.row) for example in examples]
        return {
            "first": [first for first, _ in texts],
            "second": [second for _, second in texts],
            "target": [self.protocol.target(example.answer) for example in examples],
        }

    def encode(self, first: list[str], second: list[str | None], target: list[float]) -> dict[str, list[Any]]:
        """Rows of ``features``."""
        encoded = encode_texts(list(zip(first, second, strict=True)), self.tokenizer, self.max_length)
        return {
            "input_ids": [text.input_ids for text in encoded],
            "type_ids": [text.type_ids for text in encoded],
            "target": target,
            "is_cut": [text.is_cut for text in encoded],
        }


@dataclass(frozen=True)
class EncodedText:
    """One text, or pair of texts, in tokens, with those that the tokenizer puts around them."""

    input_ids: list[int]
    type_ids: list[int]
    is_cut: bool
    """Whether tokens were cut off, of the longer of two texts first."""


def encode_texts(
    texts: Sequence[tuple[str, str | None]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[EncodedText]:
    """Every text, cut at ``max_length`` tokens."""
    encoded: list[EncodedText] = []
    for start in range(0, len(texts), ROWS_PER_CALL):
        encoded += _encoded(texts[start : start + ROWS_PER_CALL], tokenizer, max_length)
    return encoded


def _encoded(
    texts: Sequence[tuple[str, str | None]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[EncodedText]:
    if len({second is None for _, second in texts}) > 1:  # the tokenizer takes only rows of one kind together
        return [_encoded([text], tokenizer, max_length)[0] for text in texts]
    first, second = zip(*texts, strict=True)
    pair = None if second[0] is None else list(second)
    rows = tokenizer(list(first), pair, truncation=True, max_length=max_length, verbose=False)
    types = rows.get(_TYPES) or [[]] * len(texts)
    lengths = [len(ids) for ids in rows["input_ids"]]
    # Only a row that is full can have been cut; few are, so that tokenising those again costs little.
    full = [place for place, length in enumerate(lengths) if length >= max_length]
    cut = {place for place in full if _length(texts[place], tokenizer) > max_length}
    return [EncodedText(ids, list(types[place]), place in cut) for place, ids in enumerate(rows["input_ids"])]


def _length(text: tuple[str, str | None], tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer(*text, verbose=False)["input_ids"])


def collate(texts: Sequence[LabelledText], num_step_rows: int, pad_id: int, dtype: torch.dtype) -> LabelledBatch:
    """One row per text, padded on the right to the longest.

    Args:
        dtype: Of the targets: int64 for classes, float32 for values.
    """
    padded = pad([text.input_ids for text in texts], [text.type_ids for text in texts], pad_id)
    targets = torch.tensor([text.target for text in texts], dtype=torch.float64)
    if dtype == torch.int64:
        targets = targets.nan_to_num(nan=NO_CLASS)
    return LabelledBatch(
        input_ids=padded["input_ids"],
        attention_mask=padded["attention_mask"],
        token_type_ids=padded.get(_TYPES),
        targets=targets.to(dtype),
        num_step_tokens=max(num_step_rows, 1),
    )


def collate_for(protocol: LabelProtocol, pad_id: int) -> Any:
    """``collate`` for the rows of a protocol."""
    dtype = torch.int64 if isinstance(protocol, Classes) else torch.float32
    return functools.partial(collate, pad_id=pad_id, dtype=dtype)


def pad(ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """The inputs of a model, (B, T) int64 each: ids, mask, and types where there are some."""
    shape = (len(ids), max(map(len, ids)))
    inputs = {"input_ids": torch.full(shape, pad_id), "attention_mask": torch.zeros(shape, dtype=torch.int64)}
    if any(len(row) for row in types):
        inputs[_TYPES] = torch.zeros(shape, dtype=torch.int64)
    for place, row in enumerate(ids):
        inputs["input_ids"][place, : len(row)] = torch.tensor(row)
        inputs["attention_mask"][place, : len(row)] = 1
        if _TYPES in inputs:
            inputs[_TYPES][place, : len(row)] = torch.tensor(types[place])
    return inputs


def part_of(batch: Mapping[str, Any], start: int, stop: int) -> LabelledBatch:
    """Some rows of a batch, without the padding that only longer ones need."""
    longest = int(batch["attention_mask"][start:stop].sum(dim=1).max())
    types = batch[_TYPES]
    return LabelledBatch(
        input_ids=batch["input_ids"][start:stop, :longest],
        attention_mask=batch["attention_mask"][start:stop, :longest],
        token_type_ids=None if types is None else types[start:stop, :longest],
        targets=batch["targets"][start:stop],
        num_step_tokens=batch["num_step_tokens"],
    )
