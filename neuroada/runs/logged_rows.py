"""Rows of the CSV files that loggers write; of a damaged file, those that are whole."""

import csv
from collections.abc import Iterator
from pathlib import Path

STEP = "step"


def logged_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows with a cell for every column and a step.

    A run that was killed, or whose disk was full, may have written half of the last one.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        table = csv.DictReader(file)
        while True:
            try:
                row = next(table)
            except (StopIteration, csv.Error):
                return
            if None not in row and None not in row.values() and row.get(STEP, "").isdecimal():
                yield row


def attempt(path: Path) -> int:
    """Numeric sort key of the start of a run that wrote a file: ``version_10`` comes after ``version_9``."""
    number = path.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else 0
