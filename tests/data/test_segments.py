"""Conversations: the chat template renders them, and the loss is on the assistant's turns."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.data.chat_templates import end_of_turn, with_chat_template
from neuroada.data.encoding import encode, encode_prompts
from neuroada.data.rows import examples_of
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import PROTOCOLS, made

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = PROTOCOLS["chat"]
ROW = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "And 3?"},
        {"role": "assistant", "content": "4"},
    ]
}


@pytest.fixture
def chatty(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    copy = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>")
    copy.chat_template = TEMPLATE
    return copy


def read(row: dict[str, Any]) -> Example:
    return examples_of("chat.jsonl", {0: row}, CHAT)[0]


def test_loss_is_on_the_assistant_s_turns_only(chatty: PreTrainedTokenizerFast) -> None:
    encoded = encode(read(ROW), CHAT, chatty, 512, "completion")
    trained = [chatty.decode(list(encoded.input_ids)[start:stop]) for start, stop in encoded.labelled]
    assert trained == ["It is 2.</s>", "4</s>"]
    assert chatty.decode(list(encoded.input_ids)) == (
        "<s>[system]Be brief.</s>\n[user]1 + 1?</s>\n[assistant]It is 2.</s>\n[user]And 3?</s>\n[assistant]4</s>"
    )


def test_generation_starts_from_the_ids_before_the_last_turn(chatty: PreTrainedTokenizerFast) -> None:
    example = read(ROW)
    (prompt,) = encode_prompts([example], CHAT, chatty)
    ids = list(encode(example, CHAT, chatty, 512, "completion").input_ids)
    assert ids[: len(prompt)] == prompt
    assert chatty.decode(ids[len(prompt) :]) == "4</s>"


def test_a_cut_conversation_keeps_the_labels_that_are_left(chatty: PreTrainedTokenizerFast) -> None:
    whole = encode(read(ROW), CHAT, chatty, 512, "completion")
    (_, first_end), (second, _) = whole.labelled
    cut = encode(read(ROW), CHAT, chatty, second, "completion")
    assert list(cut.labelled) == [whole.labelled[0]]
    assert cut.num_labels == first_end - whole.labelled[0][0]


def test_the_end_of_a_turn_is_found(chatty: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast) -> None:
    assert end_of_turn(chatty) == chatty.eos_token_id
    assert end_of_turn(tokenizer) is None


def test_a_template_that_rewrites_earlier_turns_trains_the_last_one(chatty: PreTrainedTokenizerFast) -> None:
    last_only = TEMPLATE.replace("{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else '...' }}")
    tokenizer = with_chat_template(chatty, last_only)
    encoded = encode(read(ROW), CHAT, tokenizer, 512, "completion")
    trained = [tokenizer.decode(list(encoded.input_ids)[start:stop]) for start, stop in encoded.labelled]
    assert trained == ["4</s>"]
    assert "[assistant]..." in tokenizer.decode(list(encoded.input_ids))


def test_a_prompt_and_a_completion_become_turns(chatty: PreTrainedTokenizerFast) -> None:
    protocol = made("own", {"prompt": "{{ question }}", "completion": "{{ answer }}", "chat": True})
    (example,) = examples_of("qa.csv", {0: {"question": "1 + 1?", "answer": "2"}}, protocol)
    (prompt,) = encode_prompts([example], protocol, chatty)
    assert chatty.decode(prompt) == "<s>[user]1 + 1?</s>\n[assistant]"


def test_a_tokenizer_without_a_template_is_told_how_to_get_one(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"has no chat template; give one with data\.chat_template=<file>"):
        encode(read(ROW), CHAT, tokenizer, 512, "completion")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"must be a list of"),
        ([{"role": "user"}], "message 1 has no text for 'content'"),
        ([{"role": "user", "content": "?"}], "does not end with a message of the assistant"),
    ],
)
def test_a_broken_conversation_is_named(messages: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"chat.jsonl: row 1, field 'messages': {message}"):
        read({"messages": messages})


def test_a_prompt_that_brings_its_bos_gets_no_second_one(tokenizer: PreTrainedTokenizerFast) -> None:
    protocol = made("own", {"prompt": "{{ text }}", "completion": " {{ answer }}", "judge": "exact"})
    (example,) = examples_of("x", {0: {"text": "<s>Why?", "answer": "so"}}, protocol)
    (prompt,) = encode_prompts([example], protocol, tokenizer)
    assert prompt.count(tokenizer.bos_token_id) == 1
    ids = list(encode(example, protocol, tokenizer, 512, "completion").input_ids)
    assert (ids[: len(prompt)], ids.count(tokenizer.bos_token_id)) == (prompt, 1)


PAIR = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
WITHOUT = {"prompt": "{{ instruction }}\n", "completion": "{{ output }}", "judge": "normalised", "chat": False}


@pytest.mark.parametrize("kept", [ROW["messages"][1:], [ROW["messages"][0], *PAIR["messages"]]])
def test_turns_are_not_left_out_without_a_word(kept: list[dict[str, str]]) -> None:
    message = (
        r"chat\.jsonl: row 1, field 'messages': has turns that the prompt leaves out \((system|user).*; use protoc"
    )
    with pytest.raises(UserError, match=message):
        examples_of("chat.jsonl", {0: {"messages": kept}}, made("chat", WITHOUT))


def test_a_question_with_its_answer_needs_no_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    protocol = made("chat", WITHOUT)
    (example,) = examples_of("chat.jsonl", {0: PAIR}, protocol)
    assert tokenizer.decode(list(encode(example, protocol, tokenizer, 512, "all").input_ids)).endswith("1 + 1?\n2</s>")


def test_a_prompt_of_one_s_own_may_write_all_turns() -> None:
    turns = "{% for turn in messages[:-1] %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    protocol = made("chat", {**WITHOUT, "prompt": turns})
    (example,) = examples_of("chat.jsonl", {0: ROW}, protocol)
    assert protocol.prompt(example).startswith("system: Be brief.\nuser: 1 + 1?\nassistant: It is 2.\n")
