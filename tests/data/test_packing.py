"""Training batches: packed rows, padded rows, labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.data.encoding import Encoded
from neuroada.data.packing import collate_packed, collate_padded, pad_token_id

PAD = 7
ROWS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=5)


def examples(shapes: list[tuple[int, int]]) -> list[Encoded]:
    """One for each (length, labels_from), with pad ids inside the text."""
    return [Encoded.after([PAD, *range(1, length)], labels_from) for length, labels_from in shapes]


def expected_labels(example: Encoded) -> list[int]:
    # Nothing before it may predict the first token.
    carrying = {place for start, stop in example.labelled for place in range(max(start, 1), stop)}
    return [token if place in carrying else -100 for place, token in enumerate(example.input_ids)]


@given(ROWS)
def test_padded_batch_is_its_rows_and_padding(shapes: list[tuple[int, int]]) -> None:
    rows = examples(shapes)
    batch = collate_padded(rows, num_step_tokens=99, pad_id=PAD)
    assert batch["num_step_tokens"] == 99
    assert batch["position_ids"] is None
    assert batch["attention_mask"] is not None
    width = max(length for length, _ in shapes)
    for index, row in enumerate(rows):
        length = len(row.input_ids)
        assert batch["input_ids"][index].tolist() == [*row.input_ids, *[PAD] * (width - length)]
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (width - length)
        assert batch["labels"][index].tolist() == expected_labels(row) + [-100] * (width - length)
    assert batch["labels"][:, 1:].ne(-100).sum() == sum(row.num_labels for row in rows)


@given(ROWS)
def test_packed_batch_is_its_rows_end_to_end(shapes: list[tuple[int, int]]) -> None:
    rows = examples(shapes)
    batch = collate_packed(rows, num_step_tokens=99)
    assert batch["num_step_tokens"] == 99
    assert batch["attention_mask"] is None
    assert batch["position_ids"] is not None
    assert batch["input_ids"].tolist() == [[token for row in rows for token in row.input_ids]]
    assert batch["position_ids"].tolist() == [[place for row in rows for place in range(len(row.input_ids))]]
    assert batch["labels"].tolist() == [[label for row in rows for label in expected_labels(row)]]
    assert batch["labels"][:, 1:].ne(-100).sum() == sum(row.num_labels for row in rows)


@given(ROWS)
def test_places_of_labels_come_with_the_batch(shapes: list[tuple[int, int]]) -> None:
    """The host then knows how many there are, which on a GPU it would have to wait for."""
    for batch in (collate_padded(examples(shapes), 1, PAD), collate_packed(examples(shapes), 1)):
        num_tokens = batch["labels"].shape[1]
        rows, columns = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
        assert batch["label_places"].tolist() == (rows * num_tokens + columns).tolist()
        assert batch["label_columns"].tolist() == (sorted(set(columns.tolist())) or [0])


def test_all_tensors_are_int64_whatever_the_ids_are_kept_as() -> None:
    rows = [Encoded.after(np.arange(4, dtype=np.int32), 2)]  # type: ignore[arg-type]  # as they come from Arrow
    for batch in (collate_padded(rows, 1, PAD), collate_packed(rows, 1)):
        assert {part.dtype for part in batch.values() if isinstance(part, torch.Tensor)} == {torch.int64}


def test_step_without_labels_can_still_be_divided_by() -> None:
    rows = [Encoded.after([1, 2], 2)]
    assert collate_padded(rows, num_step_tokens=0, pad_id=PAD)["num_step_tokens"] == 1
    assert collate_packed(rows, num_step_tokens=0)["num_step_tokens"] == 1


def test_pad_is_the_tokenizers_own_else_unk_else_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    def with_specials(**names: str) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **names)

    size = len(tokenizer)
    assert pad_token_id(with_specials(pad_token="a", unk_token="b", eos_token="</s>")) == tokenizer.vocab["a"]
    assert pad_token_id(with_specials(unk_token="b", eos_token="</s>")) == tokenizer.vocab["b"]
    assert pad_token_id(with_specials(eos_token="</s>")) == tokenizer.eos_token_id
    assert len(tokenizer) == size
    with pytest.raises(UserError, match="has no pad, unk or eos token"):
        pad_token_id(with_specials())
