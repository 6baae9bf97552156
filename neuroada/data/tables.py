"""Read the rows of a data file, a folder of files, or a Hugging Face data set, as plain dictionaries.

CSV, TSV, Parquet, folders and hub names are read by the ``datasets`` library. JSON is read by Python's own reader: that
library gives a column one type, which would turn the answer 18 into 18.0 where another row has 4.5, and refuse a file
whose answers are numbers and letters; and a mistake is named by its row.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import datasets
import pandas

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.data.progress_bars import shown_from

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Of data files, in the order in which they are looked for."""
_SAVED_TO_DISK = ("dataset_info.json", "dataset_dict.json", "state.json")

Row = dict[str, Any]


def read_file(path: Path) -> list[Any]:
    """The rows of one file, by its suffix; a JSON file holds a list of rows, or one row per line.

    Raises:
        UserError: The file is missing, empty or malformed; it names the line.
    """
    if path.suffix in (".csv", ".tsv", ".parquet"):
        return _read_table(path)
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


def read_folder(folder: Path, split: str) -> list[Row]:
    """The rows of a split: a data set that ``save_to_disk`` wrote, or data files as ``load_dataset`` finds them.

    Raises:
        UserError: It holds no such split, or cannot be read.
    """
    is_saved = any((folder / name).is_file() for name in _SAVED_TO_DISK)
    load = datasets.load_from_disk if is_saved else datasets.load_dataset
    try:
        with shown_from(0):
            found = load(str(folder))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{folder}: cannot be read as a data set ({_cause(error)})") from error
    if isinstance(found, datasets.Dataset):
        return list(found)
    parts = {str(name): rows for name, rows in found.items()}
    if split not in parts:
        raise UserError(f"{folder}: has no split {split!r} (it has {', '.join(parts)}); give one with split")
    return list(parts[split])


def read_hub(name: str, config: str | None, split: str, revision: str | None) -> list[Row]:
    """The rows of a data set on the Hugging Face hub, or of its cached copy.

    Raises:
        UserError: There is no such data set or split, or it cannot be fetched.
    """
    try:
        found = datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{name}: no such file or folder, and no data set of the hub that can be read ({_cause(error)}); "
            "correct path, config, split or revision"
        ) from error
    return list(found)


def content_hash(rows: list[Any]) -> str:
    """SHA-256 of rows that come from no single file."""
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _read_table(path: Path) -> list[Row]:
    try:
        kind, settings = ("parquet", {}) if path.suffix == ".parquet" else ("csv", _cells_as_text(path))
        with shown_from(0):
            found = datasets.load_dataset(kind, data_files=str(path), split="train", **settings)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct its path") from None
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{path}: cannot be read ({_cause(error)})") from error
    if not len(found):
        raise UserError(f"{path}: contains no rows; add at least one")
    return list(found)


def _cells_as_text(path: Path) -> dict[str, Any]:
    """Reader settings with which an answer 007 is not 7, and NA is not missing."""
    separator = "\t" if path.suffix == ".tsv" else ","
    columns = pandas.read_csv(path, sep=separator, nrows=0).columns
    features = datasets.Features(**{name: datasets.Value("string") for name in columns})
    return {"sep": separator, "features": features, "keep_default_na": False}


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
    except ValueError:
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


def _cause(error: BaseException) -> str:
    """The reader's own message: the library wraps it in a general one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)  # type: ignore[arg-type]
