"""Held-out rows of training sets, for the validation loss: those a set brings along, or a drawn part of its own."""

import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
import torch

from neuroada.config.errors import UserError
from neuroada.tasks.download import DataFile

logger = logging.getLogger(__name__)

HELD_OUT_SEED = 42
"""Draws the rows; a constant, so that the losses of runs with different seeds are over the same rows."""


def validation_file(training: DataFile, data_dir: Path) -> DataFile | None:
    """The ``validation.json`` beside a training file, if the set has one."""
    file = DataFile(training.dataset, "validation")
    held_out = training.dataset.held_out
    is_known = file.split in training.dataset.remote or (held_out is not None and file.split in held_out.sha256)
    return file if is_known or file.path(data_dir).is_file() else None


def sample(rows: datasets.Dataset, num_rows: int | None, file: DataFile) -> datasets.Dataset:
    """A drawn part of a validation file; all of it where ``num_rows`` is None or as many."""
    kept = _drawn(len(rows), num_rows or len(rows))
    logger.info("validation on %d of %d rows of %s/validation", len(kept), len(rows), file.dataset.name)
    return _part(rows, kept)


def divide(rows: datasets.Dataset, num_rows: int | None, file: DataFile) -> tuple[datasets.Dataset, datasets.Dataset]:
    """What remains of a training set, and the rows drawn out of it.

    Raises:
        UserError: Nothing would be left to train on.
    """
    if num_rows is None or num_rows >= len(rows):
        wanted = "null" if num_rows is None else num_rows
        raise UserError(
            f"validation.num_rows={wanted}: {file.dataset.name} has no validation.json and {len(rows)} rows in all; "
            "hold out fewer, or put a validation.json beside its train.json"
        )
    drawn = _drawn(len(rows), num_rows)
    logger.info("validation on %d rows held out of the %d of %s/train", num_rows, len(rows), file.dataset.name)
    held_out = set(drawn)
    return _part(rows, [index for index in range(len(rows)) if index not in held_out]), _part(rows, drawn)


def _drawn(num_all: int, num_rows: int) -> list[int]:
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    return sorted(torch.randperm(num_all, generator=generator)[:num_rows].tolist())


def _part(rows: datasets.Dataset, indices: Sequence[int]) -> datasets.Dataset:
    # A table of its own: a selection by index would leave all rows in the table that lengths are read from.
    return datasets.Dataset(rows.with_format("arrow")[list(indices)])
