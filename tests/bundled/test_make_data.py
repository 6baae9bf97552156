"""The bundled data sets: the schema of LLM-Adapters, no test items in training, and no gain from guessing."""

import json
import re
from collections import Counter

import pytest

from neuroada.bundled import DATA_DIR
from neuroada.bundled.make_data import Row, data_sets

DATA_SETS = ("bundled_choice", "bundled_arithmetic")


def rows_on_disk(data_set: str, split: str) -> list[Row]:
    rows: list[Row] = json.loads((DATA_DIR / data_set / f"{split}.json").read_text(encoding="utf-8"))
    return rows


def letters_and_digits(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_the_files_are_what_the_script_writes() -> None:
    on_disk = {name: {split: rows_on_disk(name, split) for split in ("train", "test")} for name in DATA_SETS}
    assert on_disk == data_sets()


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA_DIR.rglob("*.json")) < 1_000_000


@pytest.mark.parametrize("data_set", DATA_SETS)
class TestEachDataSet:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_has_the_four_string_fields_and_no_input(self, data_set: str, split: str) -> None:
        for row in rows_on_disk(data_set, split):
            assert set(row) == {"instruction", "input", "output", "answer"}
            assert all(isinstance(value, str) for value in row.values())
            assert row["input"] == ""
            assert row["instruction"]
            assert row["answer"]

    def test_has_at_least_120_test_items(self, data_set: str) -> None:
        assert len(rows_on_disk(data_set, "test")) >= 120

    def test_never_repeats_an_instruction_or_trains_on_a_test_item(self, data_set: str) -> None:
        rows = rows_on_disk(data_set, "train") + rows_on_disk(data_set, "test")
        normalised = Counter(letters_and_digits(row["instruction"]) for row in rows)
        assert max(normalised.values()) == 1

    def test_no_constant_answer_scores_above_a_third(self, data_set: str) -> None:
        answers = Counter(row["answer"] for row in rows_on_disk(data_set, "test"))
        assert max(answers.values()) <= len(rows_on_disk(data_set, "test")) / 3


class TestChoice:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_the_answer_is_one_of_four_different_options(self, split: str) -> None:
        for row in rows_on_disk("bundled_choice", split):
            options = row["instruction"].split("Answer format: ")[1].split("/")
            assert len(set(options)) == 4
            assert row["answer"] in options
            assert row["output"] == f"the correct answer is {row['answer']}"

    def test_the_right_option_stands_in_every_place_about_as_often(self) -> None:
        rows = rows_on_disk("bundled_choice", "test")
        places = Counter(row["instruction"].split("Answer format: ")[1].split("/").index(row["answer"]) for row in rows)
        assert max(places.values()) <= len(rows) / 3

    def test_asks_in_the_test_set_only_what_no_training_row_asks(self) -> None:
        def questions(split: str) -> set[str]:
            return {row["instruction"].split("\n")[0] for row in rows_on_disk("bundled_choice", split)}

        assert not questions("train") & questions("test")


class TestArithmetic:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_the_output_is_a_true_sum_of_the_numbers_in_the_text(self, split: str) -> None:
        for row in rows_on_disk("bundled_arithmetic", split):
            left, sign, right, _, result = row["output"].split()
            assert int(result) == int(left) + int(right) * (1 if sign == "+" else -1)
            assert sorted(re.findall(r"\d+", row["instruction"])) == sorted([left, right])
            assert row["answer"] == result

    def test_no_sum_of_the_test_set_is_trained_on(self) -> None:
        train, test = (
            {row["output"] for row in rows_on_disk("bundled_arithmetic", split)} for split in ("train", "test")
        )
        assert not train & test

    def test_the_same_numbers_are_added_here_and_subtracted_there(self) -> None:
        signs = Counter(row["output"].split()[1] for row in rows_on_disk("bundled_arithmetic", "test"))
        assert min(signs["+"], signs["-"]) >= 40
