"""Rows that the ``datasets`` library reads: CSV, TSV and Parquet files, folders, and data sets of the hub."""

from pathlib import Path
from typing import Any

import datasets
import pandas

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.data.progress_bars import shown_from
from neuroada.data.tables import suffix_of

Row = dict[str, Any]

_SAVED_TO_DISK = ("dataset_info.json", "dataset_dict.json", "state.json")
_ERRORS = (OSError, ValueError, datasets.exceptions.DatasetsError)


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV, TSV or Parquet file.

    Raises:
        UserError: It is missing, empty or malformed.
    """
    try:
        kind, settings = ("parquet", {}) if suffix_of(path) == ".parquet" else ("csv", _cells_as_text(path))
        with shown_from(0):
            found = datasets.load_dataset(kind, data_files=str(path), split="train", **settings)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct its path") from None
    except _ERRORS as error:
        raise UserError(f"{path}: cannot be read ({_cause(error)})") from error
    if not len(found):
        raise UserError(f"{path}: contains no rows; add at least one")
    return list(found)


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
    except _ERRORS as error:
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
    except _ERRORS as error:
        raise UserError(
            f"{name}: no such file or folder, and no data set of the hub that can be read ({_cause(error)}); "
            "correct path, config, split or revision"
        ) from error
    return list(found)


def _cells_as_text(path: Path) -> dict[str, Any]:
    """Reader settings with which an answer 007 is not 7, and NA is not missing."""
    separator = "\t" if suffix_of(path) == ".tsv" else ","
    columns = pandas.read_csv(path, sep=separator, nrows=0).columns
    features = datasets.Features(**{name: datasets.Value("string") for name in columns})
    return {"sep": separator, "features": features, "keep_default_na": False}


def _cause(error: BaseException) -> str:
    """The reader's own message: the library wraps it in a general one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
