"""Rows of a CSV log: the whole ones, whatever happened to the file."""

from pathlib import Path

import pytest

from neuroada.runs.logged_rows import logged_rows

ROWS = b"loss,step\r\n0.5,0\r\n0.25,1\r\n"


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        (ROWS, ["0", "1"]),
        (ROWS[:-4], ["0"]),
        (ROWS[:15], []),
        (ROWS[:7], []),
        (b"", []),
        (ROWS.replace(b"step", b"stfp"), []),
        (ROWS.replace(b"0.5", b"\xff.5"), ["0", "1"]),
        (ROWS.replace(b",1", b",\x00"), ["0"]),
        (ROWS.replace(b",1", b",x"), ["0"]),
        (ROWS.replace(b"0.5", b'"0.5'), []),
    ],
)
def test_only_whole_rows_with_a_step_are_read(tmp_path: Path, content: bytes, steps: list[str]) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert [row["step"] for row in logged_rows(tmp_path / "metrics.csv")] == steps
