"""Held-out rows of training sets, for validation: from the set's validation file, or a sample of its training file."""

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch

from neuroada.config.errors import UserError, shown
from neuroada.config.schema import ValidationConfig
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.data_split import DataSplit
from neuroada.data.labelled_rows import LabelledRows
from neuroada.data.token_cache import TokenisedRows

logger = logging.getLogger(__name__)

HELD_OUT_SEED = 42
"""Draws the rows; a constant, so that runs with different seeds measure the loss on the same rows."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of all training sets of a run."""

    rows: TokenisedRows | LabelledRows
    """The rows whose loss is measured."""
    questions: Sequence[BenchmarkItems]
    """The questions whose answers are judged: a sample of the rows of each training set; may be empty."""
    places: Sequence[tuple[str, int]] = ()
    """Of each row: its data set, and its place, from 0, among the rows that ``where`` and ``clean_of`` leave of it."""

    @property
    def num_tokens(self) -> int:
        """Labelled tokens of all rows."""
        return int(self.rows.num_labels.sum())


@dataclass(frozen=True)
class HeldOutPart:
    """The held-out rows of one training set."""

    file: DataSplit
    """The file they come from: ``validation.json`` or ``train.json``."""
    indices: Sequence[int]
    """Their places among the rows that are left of the file."""
    rows: datasets.Dataset


class HeldOutSets:
    """Chooses the held-out rows of a run's training sets.

    Args:
        config: How many rows, if any.
        training: The training files.

    Attributes:
        is_wanted: Whether anything is held out.
        asks: Whether some of the held-out rows are answered.
        files: The ``validation.json`` of each training set that has one.
    """

    def __init__(self, config: ValidationConfig, training: Sequence[DataSplit]) -> None:
        self.is_wanted = config.every_n_steps is not None
        self.asks = config.accuracy_rows is not None
        self._config = config
        self._training = training
        candidates = [dataclasses.replace(file, split="validation") for file in training if self.is_wanted]
        trained = {_source(file) for file in training}
        self.files = [file for file in candidates if _source(file) not in trained and _is_there(file)]

    def refuse_as_benchmarks(self, benchmarks: Collection[DataSplit]) -> None:
        """Raises UserError if the best adapter would be selected on the items that it is scored on."""
        scored = [file.dataset.name for file in self.files if file in benchmarks]
        if scored and self._config.keep_best:
            raise UserError(
                f"validation.keep_best=true: {scored[0]}/validation would both select the adapter and score it; "
                "use data.split=test, or keep the last adapter"
            )

    def apart(
        self, training: Sequence[datasets.Dataset], validation: Mapping[str, datasets.Dataset]
    ) -> tuple[list[datasets.Dataset], list[HeldOutPart]]:
        """The rows to train on, and the held-out ones, of each training set in order.

        Args:
            training: Rows of the training files.
            validation: Rows of ``files``, by the name of their data set.

        Raises:
            UserError: No row of a set would be left to train on.
        """
        rest, held_out = [], []
        for file, rows in zip(self._training, training, strict=True):
            own = validation.get(file.dataset.name)
            kept, part = self._divided(rows, file) if own is None else (rows, self._sample(own, file))
            rest.append(kept)
            held_out.append(part)
        return rest, held_out

    def asked(self, part: HeldOutPart) -> list[int]:
        """Row indices, in its file, of the rows to answer: a sample of the held-out ones."""
        num_all = len(part.indices)
        return [part.indices[place] for place in _drawn(num_all, self._config.accuracy_rows or num_all)]

    def _sample(self, rows: datasets.Dataset, file: DataSplit) -> HeldOutPart:
        kept = _drawn(len(rows), self._config.num_rows or len(rows))
        logger.info("validation on %d of %d rows of %s/validation", len(kept), len(rows), file.dataset.name)
        return HeldOutPart(dataclasses.replace(file, split="validation"), kept, _part(rows, kept))

    def _divided(self, rows: datasets.Dataset, file: DataSplit) -> tuple[datasets.Dataset, HeldOutPart]:
        name, num_rows = file.dataset.name, self._config.num_rows
        if num_rows is None or num_rows >= len(rows):
            raise UserError(
                f"validation.num_rows={shown(num_rows)}: {name} has no validation.json and only {len(rows)} rows; "
                "hold out fewer, or add a validation.json next to its train.json"
            )
        drawn = _drawn(len(rows), num_rows)
        logger.info("validation on %d rows held out of the %d of %s/train", num_rows, len(rows), name)
        gone = set(drawn)
        rest = _part(rows, [index for index in range(len(rows)) if index not in gone])
        return rest, HeldOutPart(file, drawn, _part(rows, drawn))


def _source(file: DataSplit) -> tuple[Path, str]:
    """Where rows come from: one file is one source, whatever its split; folders and hub data sets have more."""
    return file.path, "" if file.path.is_file() else file.split


def _is_there(file: DataSplit) -> bool:
    """Whether a validation split exists or can be fetched; a training file that is named by itself has none."""
    held_out, origin = file.dataset.held_out, file.dataset.origin
    if file.dataset.glue is not None:
        return True
    if origin is not None:
        return file.path.name.startswith("validation") if file.path.is_file() else file.is_there
    is_known = file.split in file.dataset.remote or (held_out is not None and file.split in held_out.sha256)
    return is_known or file.is_there


def _drawn(num_all: int, num_rows: int) -> list[int]:
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    return sorted(torch.randperm(num_all, generator=generator)[:num_rows].tolist())


def _part(rows: datasets.Dataset, indices: Sequence[int]) -> datasets.Dataset:
    # Copy into a new table: a selection by index would keep all rows in the table that lengths are read from.
    return datasets.Dataset(rows.with_format("arrow")[list(indices)])
