"""Data files are read and checked in full, or rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.data.catalog import lookup
from neuroada.data.entries import Sources
from neuroada.data.rows import require_completions
from neuroada.tasks.protocols import MATH

from ..small_data import known_examples

Row = Callable[[int], dict[str, Any]]
Write = Callable[[str, Any], Path]


def test_rows_come_back_in_order_and_untouched(write_rows: Write, choice_row: Row) -> None:
    path = write_rows("test.json", [choice_row(0) | {"instruction": " Ünï\n "}, choice_row(1)])
    first, second = known_examples(path, "boolq")
    assert (first.index, first.instruction, first.answer) == (0, " Ünï\n ", "answer1")
    assert (second.index, second.output) == (1, "the correct answer is answer2")


@pytest.mark.parametrize(("number", "text"), [(4, "4"), (4.5, "4.5"), ("1,200", "1,200")])
def test_math_answers_may_be_bare_numbers(write_rows: Write, number: Any, text: str, sum_row: Row) -> None:
    path = write_rows("test.json", [sum_row(1) | {"answer": number}])
    assert known_examples(path, "gsm8k")[0].answer == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": None}, "field 'instruction': is a JSON null; write it as a string"),
        ({"instruction": " \n"}, "field 'instruction': is empty; fill it or drop the row"),
        ({"output": ["x"]}, "field 'output': is a JSON list; write it as a string"),
        ({"answer": True}, "field 'answer': is a JSON true/false; write it as a string"),
        ({"answer": ""}, "field 'answer': is empty"),
        ({"answer": 10**400}, "field 'answer': is '1"),
        ({"answer": "three"}, "field 'answer': is 'three'; it must be a number or one of the letters A to E"),
        ({"input": "more"}, "field 'input': must be empty.*move it into 'instruction'"),
    ],
)
def test_bad_field_is_named_with_file_row_and_way_out(
    write_rows: Write, change: dict[str, Any], message: str, sum_row: Row
) -> None:
    path = write_rows("gsm8k/test.json", [sum_row(0), sum_row(1) | change, sum_row(2)])
    with pytest.raises(UserError, match=f"gsm8k/test.json: row 2, {message}") as caught:
        known_examples(path, "gsm8k")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "cut \ud83d"},
        {"output": "\ude00 cut"},
        {"note": "in a column that nobody reads \ud83d"},
        {"tags": [{"of": ["\ud83d"]}]},
        {"tags": {"\ud83d": 1}},
    ],
    ids=["instruction", "output", "unused", "inside", "key"],
)
def test_half_a_character_is_named(write_rows: Write, change: dict[str, Any], sum_row: Row) -> None:
    path = write_rows("gsm8k/test.json", [sum_row(0), sum_row(1) | change])
    message = rf"row 2, field '{next(iter(change))}': has half of a surrogate pair \(\\ud(83d|e00)\)"
    with pytest.raises(UserError, match=message):
        known_examples(path, "gsm8k")


def test_a_whole_character_of_two_halves_is_fine(tmp_path: Path, sum_row: Row) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps([sum_row(0) | {"instruction": "How many \U0001f600?"}]), encoding="ascii")
    assert known_examples(path, "gsm8k")[0].instruction == "How many \U0001f600?"


def test_what_is_only_trained_on_need_not_suit_the_judge(write_rows: Write) -> None:
    path = write_rows("mine.json", [{"question": "Where?", "answer": "Rome"}])
    judged = {"path": str(path), "protocol": {"judge": "number"}}
    (split,) = Sources.of(path.parent).splits([judged], "train", "task.train")
    assert split.examples(scored=False)[0].answer == "Rome"
    with pytest.raises(UserError, match="field 'answer': is 'Rome'; it must contain a number"):
        split.examples()


@pytest.mark.parametrize("field", ["instruction", "output", "answer"])
def test_missing_field_is_named(write_rows: Write, field: str, choice_row: Row) -> None:
    row = choice_row(0)
    del row[field]
    path = write_rows("test.json", [row])
    with pytest.raises(UserError, match=f"test.json: row 1, field '{field}': is missing; add it"):
        known_examples(path, "boolq")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'[{"instruction": "a"', "not JSON"),
        (b'{"instruction": "a"}\n{"instruction": "b"\n', "line 2, column 20: not JSON"),
        (b"3", "contains one JSON value; it must be a list of rows, or one row per line"),
        (b"[]", "contains no rows"),
        (b"[3]", "row 1: is a JSON number; make it an object"),
        (b'["\xff"]', "not JSON in UTF-8"),
        (b'[{"answer": NaN}]', "not JSON \\(NaN is not a JSON value\\)"),
        (b"[" * 200_000, "not JSON"),
    ],
)
def test_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "test.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        known_examples(path, "boolq")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_names_data_dir(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test.json: no such file; put it there or set data\.dir"):
        known_examples(tmp_path / "test.json", "boolq")


def test_byte_order_mark_is_no_obstacle(tmp_path: Path, choice_row: Row) -> None:
    path = tmp_path / "test.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([choice_row(0)]).encode())
    assert len(known_examples(path, "boolq")) == 1


def test_only_training_needs_an_output(write_rows: Write, sum_row: Row) -> None:
    path = write_rows("train.json", [sum_row(0), sum_row(1) | {"output": " "}])
    examples = known_examples(path, "gsm8k")
    with pytest.raises(UserError, match="row 2, field 'output': is empty, so there is nothing to train on"):
        require_completions(path, examples, MATH)


def test_every_real_file_reads(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("*/*.json"))
    sizes = {f"{path.parent.name}/{path.stem}": len(known_examples(path, path.parent.name)) for path in paths}
    assert sizes["commonsense_15k/train"] == 10583
    for name in ("boolq", "piqa", "gsm8k", "AQuA"):
        assert sizes[f"{name}/test"] == lookup(name).remote["test"].num_rows
