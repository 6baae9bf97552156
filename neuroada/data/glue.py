"""The eight data sets of GLUE: from the benchmark's own TSV files, from other files with its columns, or from the hub.

Labels of GLUE's test sets are hidden, so its development sets are divided as the published comparisons do (LoReFT, and
NeuroAda's code): one part picks the checkpoint (``validation``), the other is reported (``test``). The division is the
same for every seed of a run.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.data import tables

HUB = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
DIVISION_SEED = 42
_LARGE, _FROM_LARGE = 5000, 1000
"""Rows from which on a development set gives this many to pick by; smaller ones give half."""
_NO_LABEL = "-"
"""Label of rows on which MNLI's annotators did not agree."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Glue:
    """One of the data sets.

    Attributes:
        folder: Its folder in GLUE's distribution.
        config: Its configuration on the hub.
        columns: Name to use -> column of its TSV files; a number where they have no header.
        dev: What its development set is called: ``dev`` and ``validation``, with this ending.
        picks: Whether a part of the development set picks the checkpoint.
    """

    folder: str
    config: str
    columns: Mapping[str, str | int] = field(default_factory=dict)
    dev: str = ""
    picks: bool = True

    def file(self, name: str, data_dir: Path, split: str) -> Path | None:
        """The file on disk: ``<data.dir>/<name>/``, or GLUE's own folder there; None if it is to come from the hub.

        Args:
            name: The data set's name.
            split: train, validation or test; the last two are parts of one file.

        Raises:
            UserError: There are several.
        """
        stems = ("train",) if split == "train" else (f"dev{self.dev}", f"validation{self.dev}")
        places = [(data_dir / folder, stem) for folder in (name, self.folder) for stem in stems]
        return next((found for folder, stem in places if (found := tables.find_file(folder, stem)) is not None), None)

    def rows(self, file: Path | None, split: str) -> list[dict[str, Any]]:
        """The rows of a split, with the columns that the hub has.

        Raises:
            UserError: They cannot be read.
        """
        rows = self._of_hub(split) if file is None else self._of_file(file)
        labelled = [row for row in rows if row.get("label") not in (None, "", _NO_LABEL)]
        return labelled if split == "train" else self.part(labelled, split)

    def part(self, rows: Sequence[dict[str, Any]], split: str) -> list[dict[str, Any]]:
        """The rows of a development set that pick the checkpoint (validation) or are reported (test)."""
        if not self.picks:
            return list(rows) if split == "test" else []
        import torch  # here: a mistake in the configuration is said before the second that this takes

        count = _FROM_LARGE if len(rows) > _LARGE else len(rows) // 2
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(DIVISION_SEED)).tolist()
        return [rows[place] for place in sorted(order[:count] if split == "validation" else order[count:])]

    def _of_hub(self, split: str) -> list[dict[str, Any]]:
        from neuroada.data import library_rows  # imports datasets and pandas, which take seconds

        name = "train" if split == "train" else f"validation{self.dev}"
        try:
            return library_rows.read_hub(HUB, self.config, name, REVISION)
        except UserError as error:
            raise UserError(f"{HUB} {self.config}: {error}; or put GLUE's own {self.folder}/ into data.dir") from error

    def _of_file(self, path: Path) -> list[dict[str, Any]]:
        if path.suffix != ".tsv":
            return list(tables.read_file(path))
        lines = _lines(path)
        if any(isinstance(column, int) for column in self.columns.values()):
            return [{name: line[int(place)] for name, place in self.columns.items()} for line in lines if len(line) > 3]
        header, *rest = lines
        places = {name: _place(path, header, str(column)) for name, column in self.columns.items()}
        most = max(places.values())
        # A few lines of QQP are cut off in the distribution.
        return [{name: line[place] for name, place in places.items()} for line in rest if len(line) > most]


def _lines(path: Path) -> list[list[str]]:
    """Cells of a TSV file in which a quotation mark is a character like any other."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy GLUE's file again") from error
    if not lines:
        raise UserError(f"{path}: contains no rows; copy GLUE's file again")
    return lines


def _place(path: Path, header: Sequence[str], column: str) -> int:
    if column not in header:
        raise UserError(f"{path}: has no column {column} (there are {', '.join(header)}); copy GLUE's file again")
    return header.index(column)


_TWO = {"sentence1": "sentence1", "sentence2": "sentence2"}
_MNLI = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}

GLUE: Mapping[str, Glue] = {
    "cola": Glue("CoLA", "cola", {"sentence": 3, "label": 1}),
    "sst2": Glue("SST-2", "sst2", {"sentence": "sentence", "label": "label"}),
    "mrpc": Glue("MRPC", "mrpc", {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"}),
    "qqp": Glue("QQP", "qqp", {"question1": "question1", "question2": "question2", "label": "is_duplicate"}),
    "stsb": Glue("STS-B", "stsb", {**_TWO, "label": "score"}),
    "mnli": Glue("MNLI", "mnli", _MNLI, dev="_matched"),
    "mnli_mismatched": Glue("MNLI", "mnli", _MNLI, dev="_mismatched", picks=False),
    "qnli": Glue("QNLI", "qnli", {"question": "question", "sentence": "sentence", "label": "label"}),
    "rte": Glue("RTE", "rte", {**_TWO, "label": "label"}),
}
"""By the names of the hub."""
