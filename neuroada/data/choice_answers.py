"""The gold answer of a row with choices, where it can be read in more than one way: ``2`` of the choices 1, 2, 3, 4."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from neuroada.data.row_kinds import RowError
from neuroada.tasks.log_likelihood import place_named
from neuroada.tasks.protocol import Example, Protocol

ANSWER = "answer"


def with_numbered_choice(example: Example, protocol: Protocol) -> Example:
    """The example; if its answer is a number in the file, not a text, it becomes the text of the choice in that place.

    Raises:
        RowError: There is no such choice.
        ProtocolError: The row has no list of choices.
    """
    given = example.row.get(ANSWER)
    if not _is_whole(given) or (choices := protocol.choices(example)) is None:
        return example
    if not 0 <= given < len(choices):
        raise RowError(ANSWER, f"is {given}, but there are {len(choices)} choices; give the number of one, from 0")
    return replace(example, answer=choices[given])


def unclear_answer(examples: Sequence[Example], protocol: Protocol) -> Example | None:
    """The first example whose answer is the text of one choice and the number or letter of another.

    It is taken for a text if the answers of all rows are texts of their choices, so then there is none.

    Args:
        examples: All of a data set, for each file writes its answers in one way.
        protocol: What makes their choices.

    Raises:
        ProtocolError: A row has no list of choices.
    """
    are_texts, unclear = True, None
    for example in examples:
        if not example.answer or _is_whole(example.row.get(ANSWER)):
            continue
        choices = protocol.choices(example)
        if choices is None:
            return None
        answer, texts = example.answer.strip(), [choice.strip() for choice in choices]
        are_texts = are_texts and answer in texts
        named = place_named(answer, len(choices))
        if unclear is None and answer in texts and named is not None and texts[named] != answer:
            unclear = example
    return None if are_texts else unclear


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
