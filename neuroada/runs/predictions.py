"""Stored predictions of a finished run: a file is read and checked in full, and rejected if any row is wrong."""

from pathlib import Path
from typing import Any, NoReturn, cast

from neuroada.config.errors import UserError
from neuroada.config.json_files import checked, parsed
from neuroada.config.requirements import require_name
from neuroada.runs.files import PREDICTIONS_FOLDER
from neuroada.tasks.scoring import Prediction

# Fields that files of earlier versions lack, and their values there.
_LATER: dict[str, Any] = {"strict_extracted": None, "too_long": False}


def predictions_path(folder: Path, benchmark: str) -> Path:
    """The file with a run's predictions for a benchmark; raises UserError if its name would lead elsewhere."""
    require_name("benchmark", benchmark)
    return folder / PREDICTIONS_FOLDER / f"{benchmark}.jsonl"


def read_predictions(path: Path) -> list[Prediction]:
    """Every row of the file.

    Raises:
        UserError: The file is missing or empty, or a row is damaged, lacks a field or repeats an index.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; score the run again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); score the run again") from error
    # Not splitlines(): a generation may contain other line separators, which JSON does not escape.
    lines = text.removesuffix("\n").split("\n") if text else []
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    if not rows:
        raise UserError(f"{path} holds no rows; score the run again")
    seen: set[int] = set()
    for number, row in enumerate(rows, start=1):
        if row["index"] in seen:
            refuse_row(path, number, f"repeats the item with index {row['index']}")
        seen.add(row["index"])
    return rows


def _row(path: Path, number: int, line: str) -> Prediction:
    try:
        row = {**_LATER, **parsed(line, dict[str, Any])}
        return cast(Prediction, checked(row, Prediction))
    except ValueError as error:
        refuse_row(path, number, f"is damaged ({error})")


def refuse_row(path: Path, number: int, problem: str) -> NoReturn:
    """Raise the UserError for a row, counted from 1."""
    raise UserError(f"{path}: row {number}: {problem}; fix it, or score the run again")
