"""Rows of a data set -> checked examples. A data set with any mistake is rejected."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from neuroada.config.errors import UserError
from neuroada.data.choice_answers import ANSWER, unclear_answer, with_numbered_choice
from neuroada.data.row_kinds import (
    ALPACA,
    CHAT,
    KINDS,
    RowError,
    RowKind,
    answer_text,
    conversation,
    kind_of,
    kind_of_value,
    renamed,
    require_characters,
)
from neuroada.tasks.label_protocol import LABEL, LabelProtocol
from neuroada.tasks.protocol import Example, Protocol, ProtocolError
from neuroada.tasks.template_protocol import MESSAGES, TemplateProtocol

_EMPTY = "is empty, so there is nothing to train on; fill it or drop the row"


def renamed_rows(place: object, rows: Mapping[int, Any], columns: Mapping[str, str]) -> dict[int, dict[str, Any]]:
    """Every row as an object, with columns renamed.

    Args:
        place: The file or data set, for messages.
        rows: By their indices in it.
        columns: See ``renamed``.

    Raises:
        UserError: It names the place and the row, from 1.
    """
    result = {}
    for index, row in rows.items():
        if not isinstance(row, Mapping):
            raise UserError(f"{place}: row {index + 1}: is a JSON {kind_of_value(row)}; make it an object")
        try:
            require_characters(row)
            result[index] = renamed(row, columns)
        except RowError as error:
            _refuse(place, index, error.field, str(error))
    return result


def examples_of(
    place: object, rows: Mapping[int, Mapping[str, Any]], protocol: Protocol, scored: bool = True
) -> list[Example]:
    """Every row checked.

    Args:
        place: The file or data set, for messages.
        rows: By their indices in the file, with columns renamed.
        protocol: Its columns are needed.
        scored: Whether every row needs a gold answer; otherwise only if the protocol trains on it.

    Raises:
        UserError: A row is wrong, or its answer could name two choices; it names the place, the row (from 1) and the
            field.
    """
    if isinstance(protocol, LabelProtocol):
        kind: RowKind | None = _labelled(protocol)
        named = frozenset({"answer"})
    else:
        kind = kind_of(next(iter(rows.values())))
        named = protocol.columns if isinstance(protocol, TemplateProtocol) else frozenset({"instruction", "output"})
    examples = [_example(place, index, row, kind, protocol, named, scored) for index, row in rows.items()]
    _refuse_unclear_answer(place, examples, protocol)
    return examples


def questions_of(place: object, rows: Mapping[int, Mapping[str, Any]], kind: RowKind) -> list[Example]:
    """Every row with its question alone.

    Raises:
        UserError: A row has none; it names the place, the row (from 1) and the field.
    """
    found = []
    for index, row in rows.items():
        try:
            found.append(Example(index, kind.question(row), "", "", row))
        except RowError as error:
            _refuse(place, index, error.field, str(error))
    return found


def require_completions(place: object, examples: Sequence[Example], protocol: Protocol) -> None:
    """Raises UserError at the first example that has nothing to train on."""
    for example in examples:
        try:
            is_empty = not protocol.completion(example).strip() if MESSAGES not in example.row else False
        except ProtocolError as error:
            raise UserError(f"{place}: row {example.index + 1}: {error}") from error
        if is_empty:
            _refuse(place, example.index, "output", _EMPTY)


def described_kinds() -> str:
    """The columns of every kind of row, for messages."""
    return "; ".join(" and ".join(kind.columns) for kind in KINDS)


def _example(
    place: object,
    index: int,
    row: Mapping[str, Any],
    kind: RowKind | None,
    protocol: Protocol,
    named: frozenset[str],
    scored: bool,
) -> Example:
    try:
        example = _read(index, row, kind, named, needs_answer=scored or "answer" in named)
        if kind is ALPACA and row.get("input") and "input" not in named:
            raise RowError("input", "must be empty, because prompts do not use it; move it into 'instruction'")
        _refuse_left_out_turns(example, protocol)
        prompt = "" if MESSAGES in example.row else protocol.prompt(example)
        example = with_numbered_choice(example, protocol)
        if scored:  # what is only trained on need not suit the judge
            _check_answer(example, protocol)
    except RowError as error:
        _refuse(place, index, error.field, str(error))
    except ProtocolError as error:
        raise UserError(f"{place}: row {index + 1}: {error}") from error
    return example if kind is not None else Example(index, prompt, "", example.answer, example.row)


def _read(
    index: int, row: Mapping[str, Any], kind: RowKind | None, named: frozenset[str], needs_answer: bool
) -> Example:
    if kind is None:
        missing = sorted(named - row.keys() - {"answer"})
        if missing:
            raise RowError(missing[0], "is missing; add it")
        return Example(index, "", "", answer_text(row) if needs_answer or "answer" in row else "", row)
    question = kind.question(row)
    if not question.strip():
        raise RowError(kind.columns[0], "is empty; fill it or drop the row")
    # Six gsm8k test rows have an empty output; only training needs one (require_completions).
    output = kind.output(row)
    answer = kind.answer(row) if needs_answer or row.get("answer") is not None else ""
    return Example(index, question, output, answer, {**row, MESSAGES: conversation(row)} if kind is CHAT else row)


def _refuse_left_out_turns(example: Example, protocol: Protocol) -> None:
    """A prompt of the user's texts alone would lose a system message and what the assistant said before."""
    if MESSAGES not in example.row or protocol.chat:
        return
    roles = [message["role"] for message in example.row[MESSAGES]]
    writes_all = isinstance(protocol, TemplateProtocol) and MESSAGES in protocol.columns
    if roles != ["user", "assistant"] and not writes_all:
        raise RowError(
            MESSAGES,
            f"has turns that the prompt leaves out ({', '.join(roles[:-1])}); use protocol.chat=true, or write all "
            "messages with protocol.prompt",
        )


def _refuse_unclear_answer(place: object, examples: Sequence[Example], protocol: Protocol) -> None:
    try:
        unclear = unclear_answer(examples, protocol)
    except ProtocolError:  # of a row that is only trained on; it is refused with what is missing there
        return
    if unclear is not None:
        _refuse(
            place,
            unclear.index,
            ANSWER,
            f"{unclear.answer!r} is the text of one choice and names the place of another, and not all rows give "
            "texts; give its letter, from A, or its number, from 0, without quotes",
        )


def _check_answer(example: Example, protocol: Protocol) -> None:
    problem = protocol.gold_problem(example.answer)
    if problem:
        raise RowError("answer", problem)
    if protocol.choices(example) is not None:
        protocol.completion(example)  # raises unless the answer is one of the choices


def _labelled(protocol: LabelProtocol) -> RowKind:
    """Rows whose columns the protocol reads itself; each needs its label."""

    def question(row: Mapping[str, Any]) -> str:
        return "\n".join(text for text in protocol.texts(row) if text is not None)

    return RowKind(protocol.name, (LABEL,), question, protocol.label_of, protocol.label_of)


def _refuse(place: object, index: int, field: str, problem: str) -> NoReturn:
    raise UserError(f"{place}: row {index + 1}, field '{field}': {problem}")
