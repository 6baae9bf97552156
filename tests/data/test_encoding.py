"""Token ids and the position where their loss begins."""

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.data.encoding import encode, encode_all, encode_prompts, encode_segments
from neuroada.data.segments import Segments
from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.protocols import COMMONSENSE, MATH, made

EXAMPLES = [
    Example(0, "Please answer: is the sky blue?", "the correct answer is true", "true"),
    Example(1, "How many apples are 12 and 30?", "12 + 30 = 42. The answer is 42.", "42"),
    Example(2, "Two lines\n\n", "\n\nA: an output that opens with line breaks", "3"),
    Example(3, "Ünïcödé 🙂 ", " 🙂 padded ", "🙂"),
]
PROTOCOLS = [COMMONSENSE, MATH]
PLAIN = made("plain", {"prompt": "{{ instruction }}", "completion": "{{ output }}"})


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example.index))
def test_training_continues_the_very_ids_that_generation_starts_from(
    tokenizer: PreTrainedTokenizerFast, protocol: Protocol, example: Example
) -> None:
    encoded = encode(example, protocol, tokenizer, max_length=512, loss_on="completion")
    (prompt,) = encode_prompts([example], protocol, tokenizer)
    ids = list(encoded.input_ids)
    assert ids[: len(prompt)] == prompt
    assert tokenizer.decode(ids[len(prompt) :]) == protocol.completion(example) + "</s>"
    assert encoded.labelled[0][0] == len(prompt)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_one_bos_opens_and_one_eos_closes(tokenizer: PreTrainedTokenizerFast, protocol: Protocol) -> None:
    for encoded in encode_all(EXAMPLES, protocol, tokenizer, max_length=512, loss_on="completion"):
        ids = list(encoded.input_ids)
        assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)
        assert (ids[-1], ids.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)


def test_tokenizer_that_closes_texts_itself_adds_no_second_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    closing = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert encode(EXAMPLES[0], MATH, closing, 512, "completion") == encode(
        EXAMPLES[0], MATH, tokenizer, 512, "completion"
    )


def test_a_prompt_that_opens_with_the_bos_text_gets_no_second_one(tokenizer: PreTrainedTokenizerFast) -> None:
    example = Example(0, f"{tokenizer.bos_token}How many?", "It is 3.", "3")
    (prompt,) = encode_prompts([example], PLAIN, tokenizer)
    trained = encode(example, PLAIN, tokenizer, 512, "completion").input_ids
    assert list(trained)[: len(prompt)] == prompt
    assert (prompt[0], prompt.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_completion_that_ends_with_the_eos_text_gets_no_second_one(
    tokenizer: PreTrainedTokenizerFast, adds_bos: bool
) -> None:
    used = tokenizer if adds_bos else without_bos(tokenizer)
    written, plain = (Example(0, "How many?", text, "3") for text in (f"3.{used.eos_token}", "3."))
    assert encode(written, PLAIN, used, 512, "completion") == encode(plain, PLAIN, used, 512, "completion")


@pytest.mark.parametrize("adds_bos", [True, False])
def test_an_eos_text_at_the_end_of_a_prompt_stays(tokenizer: PreTrainedTokenizerFast, adds_bos: bool) -> None:
    used = tokenizer if adds_bos else without_bos(tokenizer)
    (prompt,) = encode_prompts([Example(0, f"How many?{used.eos_token}", "", "3")], PLAIN, used)
    assert prompt[-1] == used.eos_token_id


def without_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def test_a_token_across_the_border_is_taken_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    example = EXAMPLES[2]
    (prompt,) = encode_prompts([example], MATH, tokenizer)
    whole = tokenizer(MATH.prompt(example) + example.output)["input_ids"]
    assert whole[: len(prompt)] != prompt  # else this tokenizer does not show the case
    encoded = encode(example, MATH, tokenizer, max_length=512, loss_on="completion")
    assert list(encoded.input_ids)[: len(prompt)] == prompt


def test_loss_on_all_labels_the_prompt_too(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(EXAMPLES[1], MATH, tokenizer, max_length=512, loss_on="all")
    assert encoded.labelled[0][0] == 0
    assert encoded.num_labels == len(encoded.input_ids) - 1  # nothing predicts the first token


def test_long_rows_are_cut_on_the_right(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode(EXAMPLES[1], MATH, tokenizer, max_length=512, loss_on="completion")
    cut = encode(EXAMPLES[1], MATH, tokenizer, max_length=len(whole.input_ids) - 3, loss_on="completion")
    assert list(cut.input_ids) == list(whole.input_ids)[:-3]
    assert cut.num_labels == whole.num_labels - 3
    assert (whole.is_cut, cut.is_cut) == (False, True)


def test_a_row_that_just_fits_has_its_end(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode(EXAMPLES[1], MATH, tokenizer, max_length=512, loss_on="completion")
    fitting = encode(EXAMPLES[1], MATH, tokenizer, max_length=len(whole.input_ids), loss_on="completion")
    assert fitting == whole


def test_a_conversation_is_cut_where_it_loses_what_it_trains_on(tokenizer: PreTrainedTokenizerFast) -> None:
    talk = Segments(["ask", " say", " ask more"], [False, True, False], is_chat=True)
    (whole,) = encode_segments([talk], tokenizer, 512, "completion")
    length, (_, stop) = len(whole.input_ids), whole.labelled[0]
    for max_length, is_cut in ((length - 1, False), (stop, False), (stop - 1, True), (1, True)):
        (cut,) = encode_segments([talk], tokenizer, max_length, "completion")
        assert (len(cut.input_ids), cut.is_cut) == (max_length, is_cut)


def test_row_without_room_for_a_completion_carries_no_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_all(EXAMPLES[:2], MATH, tokenizer, max_length=5, loss_on="completion")
    assert [row.num_labels for row in encoded] == [0, 0]
    assert [len(row.input_ids) for row in encoded] == [5, 5]


def test_tokenizer_without_eos_can_not_train(tokenizer: PreTrainedTokenizerFast) -> None:
    without = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match="has no eos token"):
        encode(EXAMPLES[0], MATH, without, 512, "completion")
