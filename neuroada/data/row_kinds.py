"""The kinds of row that are understood without any setting, and what of a row is its question, text and answer.

=============================  ==============================================
columns                        protocol, unless the data set names another
=============================  ==============================================
messages                       chat
instruction, input, output     alpaca (``answer`` is needed where rows are scored)
prompt, completion             completion
question, choices, answer      choice
question, answer               question
=============================  ==============================================

Other columns need ``columns``, which renames them, or a prompt of one's own.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.tasks.template_protocol import MESSAGES

Row = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")


class RowError(ValueError):
    """A mistake in one column of a row.

    Attributes:
        field: The column.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


@dataclass(frozen=True)
class RowKind:
    """Rows with certain columns."""

    protocol: str
    """Name of the protocol for rows of this kind."""
    columns: tuple[str, ...]
    """Columns that tell the kind."""
    question: Callable[[Row], str]
    output: Callable[[Row], str]
    answer: Callable[[Row], str]


def text(row: Row, field: str) -> str:
    """A column as text; raises RowError if it is missing, or is no text."""
    if field not in row:
        raise RowError(field, "is missing; add it")
    value = row[field]
    if not isinstance(value, str):
        raise RowError(field, f"is a JSON {kind_of_value(value)}; write it as a string")
    return value


def answer_text(row: Row, field: str = "answer") -> str:
    """An answer as text: some files write it as a bare number."""
    value = row.get(field)
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if is_number and not isinstance(value, bool):
        return str(value)
    return text(row, field)


def kind_of_value(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "object", list: "list", str: "string", bool: "true/false", int: "number", float: "number"}
    return names.get(type(value), "null")


def conversation(row: Row) -> list[dict[str, str]]:
    """The checked messages of a row; raises RowError."""
    messages = row.get(MESSAGES)
    if not isinstance(messages, (list, tuple)) or not messages:
        raise RowError(MESSAGES, 'must be a list of {"role": ..., "content": ...}')
    for place, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if not (isinstance(message, Mapping) and isinstance(message.get(key), str)):
                raise RowError(MESSAGES, f"message {place} has no text for {key!r}; add it")
    if messages[-1]["role"] != "assistant":
        raise RowError(MESSAGES, "does not end with a message of the assistant, so there is nothing to learn")
    return [dict(message) for message in messages]


def _asked(row: Row) -> str:
    return "\n".join(message["content"] for message in conversation(row) if message["role"] == "user")


def _said(row: Row) -> str:
    return conversation(row)[-1]["content"]


def _instruction(row: Row) -> str:
    given = row.get("input")
    if given is not None and not isinstance(given, str):
        raise RowError("input", f"is a JSON {kind_of_value(given)}; write it as a string")
    return f"{text(row, 'instruction')}\n{given}" if given else text(row, "instruction")


CHAT = RowKind("chat", (MESSAGES,), _asked, _said, lambda row: answer_text(row) if "answer" in row else _said(row))
ALPACA = RowKind("alpaca", ("instruction",), _instruction, lambda row: text(row, "output"), answer_text)
COMPLETION = RowKind(
    "completion",
    ("prompt", "completion"),
    lambda row: text(row, "prompt"),
    lambda row: text(row, "completion"),
    lambda row: answer_text(row) if "answer" in row else text(row, "completion"),
)
CHOICE = RowKind(
    "choice", ("question", "choices"), lambda row: text(row, "question"), lambda row: answer_text(row), answer_text
)
QUESTION = RowKind("question", ("question",), lambda row: text(row, "question"), answer_text, answer_text)

KINDS: Sequence[RowKind] = (CHAT, ALPACA, COMPLETION, CHOICE, QUESTION)


def kind_of(row: Row) -> RowKind | None:
    """The first kind whose columns a row has; None if it has those of none."""
    return next((kind for kind in KINDS if all(column in row for column in kind.columns)), None)


def require_characters(row: Row) -> None:
    """Raises RowError where a text holds half of a surrogate pair: a JSON file can, though it is no character."""
    for field, value in row.items():
        for part in _texts(value):
            odd = None if part.isascii() else _SURROGATE.search(part)
            if odd:
                raise RowError(
                    field,
                    f"has half of a surrogate pair (\\u{ord(odd.group()):04x}), as a text cut inside an emoji has; "
                    "remove it, or write the whole character",
                )


def _texts(value: Any) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def renamed(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """A row with columns under other names.

    Args:
        row: As it was read.
        columns: Name to use -> column of the row; ``answers.text`` is the key ``text`` of the column ``answers``.

    Raises:
        RowError: The row has no such column.
    """
    return {**row, **{name: _at(row, path) for name, path in columns.items()}}


def _at(row: Row, path: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise RowError(path, f"is missing (there are {', '.join(map(str, row))}); correct columns")
        value = value[key]
    return value
