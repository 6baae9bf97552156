"""An example as segments of text: what the model only reads, and what it is trained to write."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError
from neuroada.tasks.protocol import Example, Message, Protocol


@dataclass(frozen=True)
class Segments:
    """Texts of one example that are read end to end."""

    texts: Sequence[str]
    trained: Sequence[bool]
    """For each text, whether it carries loss."""
    is_chat: bool = False
    """Whether a chat template wrote them: it has its own opening and end tokens, so none are added."""


def segments(example: Example, protocol: Protocol, tokenizer: PreTrainedTokenizerBase) -> Segments:
    """Prompt and completion; of a conversation, each of the assistant's turns and what stands between them.

    Raises:
        UserError: The tokenizer has no chat template, or it refuses the conversation.
    """
    if not protocol.chat:
        return Segments([protocol.prompt(example), protocol.completion(example)], [False, True])
    messages = protocol.messages(example)
    texts: list[str] = []
    trained: list[bool] = []
    read = ""
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(messages[:place], tokenizer, opens_turn=True)
        after = _rendered(messages[: place + 1], tokenizer, opens_turn=False)
        if not (before.startswith(read) and after.startswith(before)):
            # Some templates rewrite earlier turns (they drop its reasoning): only the last turn is like generation.
            texts, trained, read = [], [], ""
        turn = after[len(before) :]
        ending = turn[len(turn.rstrip()) :]
        texts += [before[len(read) :], turn[: len(turn) - len(ending)]]
        trained += [False, True]
        read = before + texts[-1]
    return Segments(texts, trained, is_chat=True)


def prompt_text(example: Example, protocol: Protocol, tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that generation starts from.

    Raises:
        UserError: The tokenizer has no chat template, or it refuses the conversation.
    """
    if not protocol.chat:
        return protocol.prompt(example)
    return _rendered(protocol.messages(example)[:-1], tokenizer, opens_turn=True)


def _rendered(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, opens_turn: bool) -> str:
    """The chat template's text; ``opens_turn`` adds the opening of the assistant's next turn."""
    if not tokenizer.chat_template:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: has no chat template; give one with data.chat_template=<file>"
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=opens_turn
            )
        )
    except (TemplateError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"tokenizer {tokenizer.name_or_path}: its chat template refuses a conversation ({reason}); change the "
            "messages, or give another template with data.chat_template"
        ) from error
