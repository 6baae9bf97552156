"""Find and read data files, as plain dictionaries.

JSON is read by Python's own reader: the ``datasets`` library, which reads everything else (``library_rows.py``), gives
a column one type. That would turn the answer 18 into 18.0 where another row has 4.5, and refuse a file whose answers
are numbers and letters. And here a mistake is named by its row.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

from neuroada.config.errors import UserError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Of data files, in the order in which they are looked for."""


def suffix_of(path: Path | str) -> str:
    """The suffix that says how a file is read, in lower case."""
    return Path(path).suffix.lower()


def read_file(path: Path) -> list[Any]:
    """The rows of one file, by its suffix; a JSON file holds a list of rows, or one row per line.

    Raises:
        UserError: The file is missing, empty or malformed; it names the line.
    """
    if suffix_of(path) in (".csv", ".tsv", ".parquet"):
        from neuroada.data.library_rows import read_table  # imports datasets and pandas, which take seconds

        return read_table(path)
    text = _text(path)
    opening = text.lstrip()[:1]
    rows = _json_lines(path, text) if opening == "{" else _json_list(path, text)
    if not rows:
        raise UserError(f"{path}: contains no rows; add at least one")
    return rows


def find_file(folder: Path, split: str) -> Path | None:
    """The one file ``<split>.<suffix>`` of a folder; None if there is none.

    Raises:
        UserError: There are several.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: holds {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def content_hash(rows: list[Any]) -> str:
    """SHA-256 of rows that come from no single file."""
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put it there or set data.dir to the folder that has it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not JSON in UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check data.dir and its permissions") from error


def _json_list(path: Path, text: str) -> list[Any]:
    rows = _parsed(path, text, first_line_number=1)
    if not isinstance(rows, list):
        raise UserError(f"{path}: contains one JSON value; it must be a list of rows, or one row per line")
    return rows


def _json_lines(path: Path, text: str) -> list[Any]:
    """One row per line; a single row over several lines is one, too."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    try:
        json.loads(lines[0][1])
    except (ValueError, RecursionError):
        if len(lines) > 1:
            return [_parsed(path, text, first_line_number=1)]
    return [_parsed(path, line, number) for number, line in lines]


def _parsed(path: Path, text: str, first_line_number: int) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        line = first_line_number + error.lineno - 1
        raise UserError(f"{path}: line {line}, column {error.colno}: not JSON ({error.msg}); fix the file") from error
    except (ValueError, RecursionError) as error:  # NaN, nested too deeply
        raise UserError(f"{path}: line {first_line_number}: not JSON ({error}); fix the file") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")
