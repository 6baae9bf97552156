"""The scores printed in the README of the reference implementation, next to ours for the same settings.

``published.csv`` holds its 16 rows (https://github.com/FightingFighting/NeuroAda, one run each, seeds not stated).
The average of LLaMA-7B on commonsense with one input per neuron is printed as 80.0, while its columns average 80.4.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from neuroada.report.cells import Cell, Group

_FILE = "published.csv"
_NO_BENCHMARKS = {
    "task", "model", "method", "top_k", "trainable_percent", "average_printed", "mean_of_columns", "url",
}  # fmt: skip
_ROUNDING = 0.051
"""Largest difference that rounding to one decimal causes between a printed average and that of its columns."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of the reference's tables; accuracies in percent."""

    task: str
    model: str
    method: str
    top_k: int
    trainable_percent: float
    accuracies: Mapping[str, float]
    """By benchmark, in the order of the table."""
    average_printed: float
    mean_of_columns: float
    url: str
    """URL of the run."""

    @property
    def is_average_off(self) -> bool:
        """Whether the printed average differs from that of the columns."""
        return abs(self.average_printed - self.mean_of_columns) > _ROUNDING


@dataclass(frozen=True)
class Beside:
    """One of our cells and the published row with the same setting."""

    cell: Cell
    published: PublishedRow

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that both scored."""
        return [name for name in self.published.accuracies if self.cell.estimate(name) is not None]

    @property
    def is_whole(self) -> bool:
        """Whether our cell scored every benchmark of the row, so that the averages are comparable."""
        return self.benchmarks == list(self.published.accuracies)

    def difference(self, benchmark: str) -> float:
        """Ours minus theirs, in percentage points."""
        ours = self.cell.estimate(benchmark)
        assert ours is not None, f"{benchmark} was not scored"
        return ours.mean - self.published.accuracies[benchmark]

    @property
    def average_difference(self) -> float | None:
        """Ours minus the printed average; None if the averages are over different benchmarks."""
        ours = self.cell.estimate("macro")
        return ours.mean - self.published.average_printed if ours and self.is_whole else None


def published_rows() -> list[PublishedRow]:
    """All rows, in the order of the README."""
    text = resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    return [_row(values) for values in csv.DictReader(text.splitlines())]


_NOT_PUBLISHED = (
    *("task.clean_of", "method.skip_layers", "method.neuron_fraction", "method.bias", "method.modules_to_save"),
    *("budget.spread", "budget.by_depth", "budget.top_k_pattern"),
)
"""Settings that no published row has."""
_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""Of a LLaMA, all that the published rows adapt."""


def beside_published(group: Group, rows: Sequence[PublishedRow]) -> list[Beside]:
    """The cells of a group whose setting was published: same model, task, method and k, all items scored."""
    by_setting = {(row.model, row.task, row.method, row.top_k): row for row in rows}
    found = []
    for cell in group.trained:
        row = by_setting.get((group.model, group.task, cell.first.method, cell.top_k or 0))
        if row is not None and _is_comparable(cell):
            found.append(Beside(cell, row))
    return [pair for pair in found if pair.benchmarks]


def _is_comparable(cell: Cell) -> bool:
    """Whether inputs are selected as published, training used all its data, and whole test sets are scored."""
    run = cell.first
    is_magnitude = run.setting("method.selection") in (None, "magnitude")
    is_plain = not any(run.setting(key) for key in _NOT_PUBLISHED)
    targets = run.setting("model.target_modules")
    is_every_layer = targets in (None, "all-linear") or set(targets) == _LAYERS
    is_trained = run.setting("trainer.max_steps") in (None, -1) and (run.setting("trainer.max_epochs") or 1) >= 1
    is_all_data = all(isinstance(entry, str) for entry in run.setting("task.train") or [])
    is_whole = run.setting("evaluation.limit") is None and run.setting("data.split") in (None, "test")
    return is_magnitude and is_plain and is_every_layer and is_trained and is_all_data and is_whole


def _row(values: Mapping[str, str]) -> PublishedRow:
    return PublishedRow(
        task=values["task"],
        model=values["model"],
        method=values["method"],
        top_k=int(values["top_k"]),
        trainable_percent=float(values["trainable_percent"]),
        accuracies={name: float(value) for name, value in values.items() if name not in _NO_BENCHMARKS and value},
        average_printed=float(values["average_printed"]),
        mean_of_columns=float(values["mean_of_columns"]),
        url=values["url"],
    )
