"""Rows that the ``datasets`` library reads: Parquet files, folders, and data sets of the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets.packaged_modules.csv.csv import CsvConfig

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.data.progress_bars import shown_from
from neuroada.data.tables import read_cells, suffix_of

Row = dict[str, Any]

_SAVED_TO_DISK = ("dataset_info.json", "dataset_dict.json", "state.json")
_ERRORS = (OSError, ValueError, datasets.exceptions.DatasetsError)


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file.

    Raises:
        UserError: It is missing, empty or malformed.
    """
    try:
        with shown_from(0):
            found = datasets.load_dataset("parquet", data_files=str(path), split="train")
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
    try:
        with shown_from(0):
            found = datasets.load_from_disk(str(folder)) if is_saved else _found(folder)
    except _ERRORS as error:
        raise UserError(f"{folder}: cannot be read as a data set ({_cause(error)})") from error
    if isinstance(found, datasets.Dataset):
        return list(found)
    parts = {str(name): part for name, part in found.items()}
    if split not in parts:
        raise UserError(f"{folder}: has no split {split!r} (it has {', '.join(parts)}); give one with split")
    part = parts[split]
    return [row for file in part for row in read_cells(file)] if isinstance(part, list) else list(part)


def _found(folder: Path) -> datasets.Dataset | Mapping[Any, Any]:
    """Split -> its rows; of CSV and TSV files a list of their paths, for the library would give cells types."""
    builder = datasets.load_dataset_builder(str(folder))
    files = {name: [Path(file) for file in listed] for name, listed in (builder.config.data_files or {}).items()}
    if isinstance(builder.config, CsvConfig) and all(_has_cells(file) for listed in files.values() for file in listed):
        return files
    builder.download_and_prepare()
    return builder.as_dataset()


def _has_cells(file: Path) -> bool:
    return suffix_of(file) in (".csv", ".tsv") and file.is_file()  # not one inside an archive


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


def _cause(error: BaseException) -> str:
    """The reader's own message: the library wraps it in a general one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
