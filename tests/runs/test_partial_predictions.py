"""Partial predictions: read by any number of ranks, rejected if from another run, intact after a crash."""

from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.runs.partial_predictions import PartialPredictions
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import COMMONSENSE
from neuroada.tasks.scoring import Prediction, judge

RUN = {"base": "one", "decoding": {"max_new_tokens": 32}}


def prediction(index: int, generation: str = "the correct answer is true") -> Prediction:
    example = Example(index=index, instruction="Which?\nThis –", output="the correct answer is true", answer="true")
    return judge(example, generation, COMMONSENSE)


def partial(folder: Path, rank: int = 0, run: Any = RUN) -> PartialPredictions:
    return PartialPredictions(folder, "boolq", run, rank)


def test_all_ranks_are_read(tmp_path: Path) -> None:
    for rank in (0, 1):
        file = partial(tmp_path, rank)
        file.append([prediction(rank)])
        file.append([prediction(rank + 2), prediction(rank + 4)])
    assert sorted(row["index"] for row in partial(tmp_path, rank=7).read()) == [0, 1, 2, 3, 4, 5]
    assert partial(tmp_path).read()[0] == prediction(0)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\r\n", "\x1c"])
def test_generation_with_line_separators_is_one_row(tmp_path: Path, separator: str) -> None:
    row = prediction(0, f"one{separator}two")
    partial(tmp_path).append([row, prediction(1)])
    assert partial(tmp_path).read() == [row, prediction(1)]


def test_nothing_is_there_at_first_and_after_removal(tmp_path: Path) -> None:
    assert partial(tmp_path).read() == []
    partial(tmp_path, 1).append([prediction(1)])
    partial(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 30])
def test_line_that_was_cut_off_is_written_again(tmp_path: Path, cut: int) -> None:
    partial(tmp_path).append([prediction(0), prediction(1)])
    path = tmp_path / "boolq.rank0.partial.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = partial(tmp_path)
    assert [row["index"] for row in again.read()] == [0]
    again.append([prediction(1)])
    assert path.read_bytes() == whole


def test_first_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "boolq.rank0.partial.jsonl"
    path.write_text('{"run": {"ba')
    assert partial(tmp_path).read() == []
    partial(tmp_path).append([prediction(3)])
    assert [row["index"] for row in partial(tmp_path).read()] == [3]


def test_predictions_of_another_run_are_refused(tmp_path: Path) -> None:
    partial(tmp_path, 1).append([prediction(0)])
    other = {**RUN, "decoding": {"max_new_tokens": 64}}
    with pytest.raises(UserError, match=r"rank1.*another run \(decoding\.max_new_tokens: 32 there, 64 here\).*never"):
        partial(tmp_path, run=other).read()


@pytest.mark.parametrize(
    "lines",
    ["{}\n[[\n", '{"run": {}}\n{"generation": "x"}\n', '{"run": {}}\n{"index": "0"}\n', '{"run": {}}\n[]\n'],
    ids=["no run", "no index", "a wrong index", "no object"],
)
def test_damaged_file_is_named(tmp_path: Path, lines: str) -> None:
    (tmp_path / "boolq.rank0.partial.jsonl").write_text(lines)
    with pytest.raises(UserError, match=r"boolq\.rank0\.partial\.jsonl is damaged"):
        partial(tmp_path).read()
