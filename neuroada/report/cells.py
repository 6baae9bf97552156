"""Runs that differ only in their seed are one cell; cells of one model and task are compared with each other."""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroada.data.catalog import DATASETS
from neuroada.runs.files import ADAPTER_FOLDER
from neuroada.runs.identity import identity
from neuroada.runs.listing import Run, Status

SPREAD = "±"
_SEED_FOLDER = re.compile(rf"/s\d+(/{ADAPTER_FOLDER})?/?$")


@dataclass(frozen=True)
class Estimate:
    """A number over the seeds of a cell."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, decimals: int) -> str:
        """``85.3``, or ``85.3 ± 0.4`` where there are several values."""
        spread = "" if self.std is None else f" {SPREAD} {self.std:.{decimals}f}"
        return f"{self.mean:,.{decimals}f}{spread}"


@dataclass(frozen=True, eq=False)
class Cell:
    """The finished runs of one setting, one for each seed.

    Attributes:
        series: What the cells that one line connects have in common.
        runs: At least one.
    """

    series: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def top_k(self) -> int | None:
        return self.first.top_k

    @property
    def learning_rate(self) -> float | None:
        return self.first.learning_rate

    @property
    def is_base(self) -> bool:
        return self.first.method == "base"

    @property
    def label(self) -> str:
        return self.series if self.top_k is None else f"{self.series} k={self.top_k}"

    @property
    def percent(self) -> float | None:
        """Trained parameters, in percent of all."""
        percent: float | None = self.first.outcome("budget.percent")
        return percent

    @property
    def trainable(self) -> int:
        return int(self.first.outcome("budget.trainable") or 0)

    def estimate(self, number: str) -> Estimate | None:
        """One of ``Run.numbers`` over the seeds; None where no run recorded it."""
        values = tuple(run.numbers[number] for run in self.runs if number in run.numbers)
        return Estimate(values) if values else None


@dataclass(frozen=True)
class Group:
    """All cells of one model and task: those that train nothing first, then by method, k and parameters."""

    model: str
    task: str
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        return f"{self.model} on {self.task}"

    @property
    def base(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.is_base), None)

    @property
    def trained(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if not cell.is_base)

    @property
    def base_loss(self) -> float | None:
        """The base's held-out loss, which every training run measures at step 0; None where they do not agree."""
        found = {run.outcome("validation.base_loss") for cell in self.trained for run in cell.runs} - {None}
        losses = {round(loss, 4) for loss in found}
        return losses.pop() if len(losses) == 1 else None

    @property
    def series(self) -> dict[str, list[Cell]]:
        """The cells that train, by what one line connects."""
        found: dict[str, list[Cell]] = {}
        for cell in self.trained:
            found.setdefault(cell.series, []).append(cell)
        return found

    @property
    def benchmarks(self) -> list[str]:
        """Those that any run scored, in the papers' order."""
        return in_order(name for cell in self.cells for run in cell.runs for name in run.scores)

    def has(self, number: str) -> bool:
        """Whether any run recorded this one of ``Run.numbers``."""
        return any(cell.estimate(number) is not None for cell in self.cells)


def over_learning_rates(group: Group) -> Group | None:
    """The same with a series for each k, if learning rates tell cells of one k apart; else None."""
    told_apart = [cell for cell in group.trained if f" lr={cell.learning_rate}" in cell.series]
    if not told_apart:
        return None
    cells = (replace(cell, series=cell.label.replace(f" lr={cell.learning_rate}", "")) for cell in told_apart)
    ordered = sorted(cells, key=lambda cell: (cell.series, cell.learning_rate))
    return replace(group, cells=(*([group.base] if group.base else []), *ordered))


def in_order(names: Iterable[str]) -> list[str]:
    """Each benchmark once, in the papers' order; a user's own come last."""
    known = {name: place for place, name in enumerate(DATASETS)}
    return sorted(dict.fromkeys(names), key=lambda name: known.get(name, len(known)))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The finished runs by model and task, then by all but the seed.

    Of several runs with the same configuration and seed, the first counts.
    """
    by_group: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.status is Status.FINISHED:
            by_group.setdefault((run.model, run.task), []).append(run)
    return [Group(*names, cells=_cells(members)) for names, members in by_group.items()]


def _cells(runs: Sequence[Run]) -> tuple[Cell, ...]:
    settings: dict[str, dict[str, Any]] = {}
    by_setting: dict[str, dict[Any, Run]] = {}
    # Of each job one declaration for all of its runs, so that those of several versions are compared alike.
    declared = {run.job: run.config["job"] for run in runs if run.setting("job.depends_on")}
    for run in runs:
        setting = _setting(run, declared.get(run.job))
        key = json.dumps(setting, sort_keys=True, default=str)
        settings[key] = _flat(setting)
        by_setting.setdefault(key, {}).setdefault((run.setting("seed"), run.setting("adapter")), run)
    firsts = {key: next(iter(members.values())) for key, members in by_setting.items()}
    names = _series(firsts, settings)
    cells = [Cell(names[key], tuple(members.values())) for key, members in by_setting.items()]
    return tuple(sorted(cells, key=lambda cell: (not cell.is_base, cell.series, cell.top_k or 0, cell.trainable)))


def _setting(run: Run, declared: Mapping[str, Any] | None) -> dict[str, Any]:
    """What decides the outcome of a run, but for its seed and that of the adapter that it scored.

    Args:
        declared: The ``job`` section that says what counts; without one, every key does.
    """
    try:
        setting = identity(run.config, declared)
    except (KeyError, TypeError, AttributeError):
        setting = {key: value for key, value in run.config.items() if key != "seed"}
    if isinstance(setting.get("adapter"), str):
        setting["adapter"] = _SEED_FOLDER.sub("", setting["adapter"])
    return setting


def _series(firsts: Mapping[str, Run], settings: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Setting -> name of its series: the method, and what tells it from others of the same method and k.

    What only ever changes along with k, as a learning rate chosen for each k, does not split a series.
    """
    names = {}
    jobs: dict[str, set[str]] = {}
    for run in firsts.values():
        jobs.setdefault(run.method, set()).add(run.job)
    for method, job in dict.fromkeys((run.method, run.job) for run in firsts.values()):
        members = [key for key, run in firsts.items() if (run.method, run.job) == (method, job)]
        splitting = _splitting_keys([(firsts[key].top_k, settings[key]) for key in members])
        which = [f"({job})"] if len(jobs[method]) > 1 else []
        for key in members:
            parts = [f"{_short(name)}={settings[key].get(name)}" for name in splitting]
            names[key] = " ".join([method, *which, *parts])
    return names


def _splitting_keys(members: Sequence[tuple[int | None, Mapping[str, Any]]]) -> list[str]:
    """As few keys as tell apart the settings of the same k."""
    chosen: list[str] = []

    def num_told_apart(keys: list[str]) -> int:
        return len({(top_k, *(str(setting.get(key)) for key in keys)) for top_k, setting in members})

    for name in dict.fromkeys(name for _, setting in members for name in setting):
        if name != "budget.top_k" and num_told_apart([*chosen, name]) > num_told_apart(chosen):
            chosen.append(name)
    return chosen


def _short(key: str) -> str:
    last = key.rpartition(".")[2]
    return key if last == "name" else last


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
