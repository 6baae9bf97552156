"""The file with the loss of every held-out row."""

from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.runs.held_out_rows import HeldOutRow, read_rows, write_rows

ROWS = [HeldOutRow("boolq", 3, 2, 1.0), HeldOutRow("boolq", 7, 0, 0.0), HeldOutRow("a, b", 0, 6, 3.0000001)]
RESULT = {"validation": {"loss": 0.5}}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    assert read_rows(tmp_path, RESULT) == [*ROWS[:2], HeldOutRow("a, b", 0, 6, 3.0)]
    assert [row.mean for row in read_rows(tmp_path, RESULT)] == [0.5, 0.0, 0.5]


def test_a_run_that_measured_nothing_has_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path, {}) == []


@pytest.mark.parametrize("text", ["", "dataset,row\nboolq,1\n", "dataset,row,num_tokens,loss\nboolq,1,2,x\n"])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "held_out_losses.csv").write_text(text)
    with pytest.raises(UserError, match=r"held_out_losses\.csv is (damaged|not of this result)"):
        read_rows(tmp_path, RESULT)


@pytest.mark.parametrize("result", [{}, {"validation": {"loss": 0.51}}])
def test_the_file_of_another_result_is_refused(result: dict[str, object], tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    with pytest.raises(UserError, match=r"not of this result: its mean loss is 0\.5000"):
        read_rows(tmp_path, result)
