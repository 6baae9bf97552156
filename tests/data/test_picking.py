"""Entries that use some rows of a data set: where an expression holds, and the first of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.data.entries import Sources

Write = Callable[[str, Any], Path]
ROWS = [{"query": f"{number} + 1?", "reply": str(number + 1)} for number in range(20)]
COLUMNS = {"question": "query", "answer": "reply"}


@pytest.fixture
def answers(write_rows: Write, tmp_path: Path) -> Callable[..., list[str]]:
    """The answers of the rows that an entry with these keys uses."""
    path = write_rows("sums.json", ROWS)

    def read(**keys: Any) -> list[str]:
        entry = {"path": str(path), "columns": COLUMNS, **keys}
        (split,) = Sources.of(tmp_path).splits([entry], "train", "task.train")
        return [row["answer"] for row in split.rows]

    return read


def test_all_rows_are_used_unless_something_is_said(answers: Callable[..., list[str]]) -> None:
    assert answers() == [row["reply"] for row in ROWS]


def test_the_first_rows_are_used_in_their_order(answers: Callable[..., list[str]]) -> None:
    assert answers(rows=3) == ["1", "2", "3"]
    assert answers(rows=100) == answers()


def test_an_expression_chooses_by_the_columns_of_the_file(answers: Callable[..., list[str]]) -> None:
    assert answers(where="reply | length == 2") == [str(number) for number in range(10, 21)]
    assert answers(where="(query ~ ' ' ~ reply) | length > 8", rows=2) == ["10", "11"]


def test_rows_after_the_last_one_chosen_are_not_looked_at(write_rows: Write, tmp_path: Path) -> None:
    path = write_rows("sums.json", [ROWS[0], {"other": "column"}])
    entry = {"path": str(path), "columns": COLUMNS, "where": "query | length > 0", "rows": 1}
    (split,) = Sources.of(tmp_path).splits([entry], "train", "task.train")
    assert len(split.rows) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"where": "length("}, r"task\.train\[0\]\.where: not a Jinja expression"),
        ({"where": 3}, r"task\.train\[0\]\.where=3: must be a text"),
        ({"where": "answr == 'x'"}, r"sums\.json: row 1: where: 'answr' is undefined"),
        ({"where": "reply == 'x'"}, r"sums\.json: where: holds for none of 20 rows; correct \"reply == 'x'\""),
        ({"rows": 0}, r"task\.train\[0\]\.rows=0: must be a whole number of at least 1"),
        ({"rows": 2.5}, r"task\.train\[0\]\.rows=2\.5: must be a whole number of at least 1"),
    ],
)
def test_a_mistake_is_one_line(answers: Callable[..., list[str]], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        answers(**keys)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"rows": 2}, {"rows": 8}),
        ({"rows": 2}, {}),
        ({"where": "reply == '3'"}, {"where": "reply == '4'"}),
        ({}, {"columns": {"question": "reply", "answer": "query"}}),
    ],
)
def test_other_rows_of_a_file_are_other_tokens(
    first: dict[str, Any], second: dict[str, Any], write_rows: Write, tmp_path: Path
) -> None:
    """The tokens of a short trial would otherwise be those of the whole run after it."""
    path = write_rows("sums.json", ROWS)
    keys = [{"path": str(path), "columns": COLUMNS, **one} for one in (first, second, first)]
    one, other, again = (Sources.of(tmp_path).splits([key], "train", "task.train")[0] for key in keys)
    assert one.sha256 == other.sha256  # what records say of the file
    assert one.rows_sha256 == again.rows_sha256 != other.rows_sha256


def test_rows_keep_their_numbers_of_the_file(write_rows: Write, tmp_path: Path) -> None:
    path = write_rows("sums.json", [*ROWS, {"query": 5, "reply": "25"}])
    picked = {"path": str(path), "columns": COLUMNS, "where": "reply | length == 2"}
    (split,) = Sources.of(tmp_path).splits([{**picked, "rows": 2}], "train", "task.train")
    assert [example.index for example in split.examples()] == [9, 10]
    (split,) = Sources.of(tmp_path).splits([picked], "train", "task.train")
    with pytest.raises(UserError, match=r"sums\.json: row 21, field 'question': is a JSON number"):
        split.examples()
