"""The chat template of a tokenizer: the user's, if one is given, and the token that ends a turn."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_PROBE = "Good."


def with_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer, with ``data.chat_template`` in place of its own if one is given."""
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that its chat template writes after an assistant's turn; None if there is none."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": _PROBE}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except (TemplateError, ValueError, TypeError):
        return None
    ending = text.rpartition(_PROBE)[2].strip()
    ids = tokenizer.encode(ending, add_special_tokens=False) if ending else []
    return ids[0] if ids and (len(ids) == 1 or ids[0] in tokenizer.added_tokens_decoder) else None
