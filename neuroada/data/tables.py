"""Find and read data files, as plain dictionaries.

JSON, CSV and TSV are read by Python's own readers: the ``datasets`` library, which reads everything else
(``library_rows.py``), gives a column one type. That would turn the answer 18 into 18.0 where another row has 4.5, the
answer 007 into 7, and refuse a file whose answers are numbers and letters. And here a mistake is named by its line.
"""

import csv
import hashlib
import io
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
    if suffix_of(path) == ".parquet":
        from neuroada.data.library_rows import read_parquet  # imports datasets, which takes seconds

        return read_parquet(path)
    if suffix_of(path) in (".csv", ".tsv"):
        return read_cells(path)
    text = io.StringIO(_text(path, "JSON"), newline=None).read()
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


def read_cells(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or TSV file, each cell as it stands there: 007 is not 7, and NA is not missing.

    Raises:
        UserError: The file is missing, empty or malformed; it names the line.
    """
    separator, kind = ("\t", "TSV") if suffix_of(path) == ".tsv" else (",", "CSV")
    lines = csv.reader(io.StringIO(_text(path, kind), newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    rows = []
    first_line = 1
    try:
        for cells in lines:
            if names and cells:
                rows.append(_named_cells(path, first_line, names, cells))
            elif cells:
                names = _column_names(path, cells)
            first_line = lines.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}: line {first_line}: not {kind} ({error}); fix it, or save the file as JSON") from error
    if not rows:
        raise UserError(f"{path}: contains no rows; add at least one")
    return rows


def _column_names(path: Path, cells: list[str]) -> list[str]:
    twice = next((name for name in cells if name and cells.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: has two columns {twice!r}; rename one of them")
    return cells


def _named_cells(path: Path, line: int, names: list[str], cells: list[str]) -> dict[str, str]:
    """A row; one with more cells than columns has a separator inside a text, so no cell can be told from the next."""
    if len(cells) != len(names):
        raise UserError(
            f"{path}: line {line}: cells do not match columns ({len(cells)} for {len(names)}); put texts that hold the "
            "separator in double quotes, or give all cells"
        )
    return dict(zip(names, cells, strict=True))


def _text(path: Path, kind: str) -> str:
    try:
        # No translation of line ends: a cell keeps its own.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put it there or set data.dir to the folder that has it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not {kind} in UTF-8 ({error}); save it as UTF-8") from error
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
