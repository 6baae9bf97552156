"""The chat template of a tokenizer: the user's, if one is given, and the token that ends a turn."""

from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from neuroada.config.errors import UserError

_PROBE = "Good."


def with_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer, with ``data.chat_template`` in place of its own if one is given.

    Raises:
        UserError: It is the name of a file that cannot be read.
    """
    if template is None:
        return tokenizer
    if "{" in template:
        tokenizer.chat_template = template
        return tokenizer
    try:
        tokenizer.chat_template = Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.chat_template={template}: cannot be read ({error}); give a Jinja template, or a file with one"
        ) from error
    return tokenizer


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that its chat template writes after an assistant's turn; None if there is none, or not one token."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": _PROBE}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except (TemplateError, ValueError, TypeError):
        return None
    ending = text.rpartition(_PROBE)[2].strip()
    ids = tokenizer.encode(ending, add_special_tokens=False) if ending else []
    return ids[0] if len(ids) == 1 else None
