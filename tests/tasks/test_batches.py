"""Token ids, labels and padding."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.tasks.batches import (
    Encoded,
    collate_prompts,
    collate_training,
    encode,
    encode_all,
    encode_prompts,
    pad_token_id,
)
from neuroada.tasks.prompts import COMMONSENSE, MATH, Example, Protocol

EXAMPLES = [
    Example(0, "Please answer: is the sky blue?", "the correct answer is true", "true"),
    Example(1, "How many apples are 12 and 30?", "12 + 30 = 42. The answer is 42.", "42"),
    Example(2, "Two lines\n\n", "\n\nA: an output that opens with line breaks", "3"),
    Example(3, "Ünïcödé 🙂 ", " 🙂 padded ", "🙂"),
]
PROTOCOLS = [COMMONSENSE, MATH]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example.index))
def test_training_continues_the_very_ids_that_generation_starts_from(
    tokenizer: PreTrainedTokenizerFast, protocol: Protocol, example: Example
) -> None:
    encoded = encode(example, protocol, tokenizer, max_length=512, loss_on="completion")
    (prompt,) = encode_prompts([example], protocol, tokenizer)
    ids = list(encoded.input_ids)
    assert ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [-100] * len(prompt)
    assert tokenizer.decode(ids[len(prompt) :]) == protocol.completion(example) + "</s>"
    assert encoded.labels[len(prompt) :] == ids[len(prompt) :]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_one_bos_opens_and_one_eos_closes(tokenizer: PreTrainedTokenizerFast, protocol: Protocol) -> None:
    for encoded in encode_all(EXAMPLES, protocol, tokenizer, max_length=512, loss_on="completion"):
        ids = list(encoded.input_ids)
        assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)
        assert (ids[-1], ids.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)


def test_tokenizer_that_closes_texts_itself_adds_no_second_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    closing = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert encode(EXAMPLES[0], MATH, closing, 512, "completion") == encode(
        EXAMPLES[0], MATH, tokenizer, 512, "completion"
    )


def test_a_token_across_the_border_is_taken_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    example = EXAMPLES[2]
    (prompt,) = encode_prompts([example], MATH, tokenizer)
    whole = tokenizer(MATH.prompt(example.instruction) + example.output)["input_ids"]
    assert whole[: len(prompt)] != prompt  # else this tokenizer does not show the case
    encoded = encode(example, MATH, tokenizer, max_length=512, loss_on="completion")
    assert list(encoded.input_ids)[: len(prompt)] == prompt


def test_loss_on_all_labels_the_prompt_too(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(EXAMPLES[1], MATH, tokenizer, max_length=512, loss_on="all")
    assert encoded.labels == list(encoded.input_ids)
    assert encoded.num_labels == len(encoded.input_ids) - 1  # nothing predicts the first token


def test_long_rows_are_cut_on_the_right(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode(EXAMPLES[1], MATH, tokenizer, max_length=512, loss_on="completion")
    cut = encode(EXAMPLES[1], MATH, tokenizer, max_length=len(whole.input_ids) - 3, loss_on="completion")
    assert list(cut.input_ids) == list(whole.input_ids)[:-3]
    assert cut.num_labels == whole.num_labels - 3


def test_rows_without_room_for_a_completion_are_kept_and_reported(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        encoded = encode_all(EXAMPLES[:2], MATH, tokenizer, max_length=5, loss_on="completion")
    assert [row.num_labels for row in encoded] == [0, 0]
    assert [len(row.labels) for row in encoded] == [5, 5]
    assert [record.message for record in caplog.records] == [
        "2 of 2 training rows carry no loss: their prompts fill all of data.max_length=5 tokens"
    ]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=5))
def test_training_batch_is_its_rows_and_padding(shapes: list[tuple[int, int]]) -> None:
    pad = 7
    rows = [Encoded([pad] * length, labels_from) for length, labels_from in shapes]  # pad ids inside the text, too
    batch = collate_training(rows, pad, num_step_tokens=99)
    assert batch["num_step_tokens"] == 99
    for index, row in enumerate(rows):
        length = len(row.input_ids)
        assert batch["input_ids"][index].tolist() == [pad] * max(length for length, _ in shapes)
        assert batch["attention_mask"][index].sum() == length
        assert batch["attention_mask"][index, :length].all()
        assert batch["labels"][index, :length].tolist() == row.labels
        assert batch["labels"][index, length:].eq(-100).all()
    assert batch["labels"][:, 1:].ne(-100).sum() == sum(row.num_labels for row in rows)
    assert {batch[key].dtype for key in ("input_ids", "attention_mask", "labels")} == {torch.int64}  # type: ignore[literal-required]


def test_prompts_are_padded_on_the_left() -> None:
    batch = collate_prompts([(5, [3, 4]), (2, [1, 2, 3, 0])], pad_id=0)
    assert batch["input_ids"].tolist() == [[0, 0, 3, 4], [1, 2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["index"] == [5, 2]


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


def test_tokenizer_without_eos_can_not_train(tokenizer: PreTrainedTokenizerFast) -> None:
    without = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match="has no eos token"):
        encode(EXAMPLES[0], MATH, without, 512, "completion")
