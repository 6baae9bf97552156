"""The loss of every held-out row at the end of a run, in its folder: what paired comparisons of runs need."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neuroada.config.errors import UserError
from neuroada.runs.files import HELD_OUT_FILE
from neuroada.storage.whole_files import write_whole

_TOLERANCE = 1e-4
"""Of the mean, by which the file is recognised as that of the result; losses are written with seven digits."""


class HeldOutRow(NamedTuple):
    """One row."""

    dataset: str
    row: int
    """In the file of the data set, from 0."""
    num_tokens: int
    """That carry a loss; 1 for a labelled text."""
    loss: float
    """Summed over them, in nats; the squared error of a regression."""

    @property
    def mean(self) -> float:
        """Per token; 0 for a row that carries no loss."""
        return self.loss / self.num_tokens if self.num_tokens else 0.0


def write_rows(folder: Path, rows: Sequence[HeldOutRow]) -> None:
    """Write the file into a run folder."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HeldOutRow._fields)
    table.writerows((row.dataset, row.row, row.num_tokens, f"{row.loss:.7g}") for row in rows)
    write_whole(folder / HELD_OUT_FILE, text.getvalue())


def read_rows(folder: Path, result: Mapping[str, Any]) -> list[HeldOutRow]:
    """The rows of a finished run; empty if it wrote none.

    Args:
        result: The run's ``result.json``.

    Raises:
        UserError: The file is damaged, or is not of this result.
    """
    path = folder / HELD_OUT_FILE
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                HeldOutRow(row["dataset"], int(row["row"]), int(row["num_tokens"]), float(row["loss"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); train the run again with resume=never") from None
    mean = sum(row.loss for row in rows) / max(1, sum(row.num_tokens for row in rows))
    recorded = (result.get("validation") or {}).get("loss")
    if recorded is None or not math.isclose(mean, recorded, rel_tol=_TOLERANCE):
        raise UserError(
            f"{path} is not of this result: its mean loss is {mean:.4f} and the result's {recorded}; put the run's "
            "file back, or train it again with resume=never"
        )
    return rows
