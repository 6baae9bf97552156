"""Group runs: those that differ only in their seed form a cell; cells of one model and task form a group."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroada.data.catalog import DATASETS
from neuroada.report.estimates import Estimate, Interval, over_items, over_seeds
from neuroada.report.labels import flat, names
from neuroada.runs.files import ADAPTER_FOLDER
from neuroada.runs.identity import identity
from neuroada.runs.listing import Run, Status

_SEED_FOLDER = re.compile(rf"/s\d+(/{ADAPTER_FOLDER})?/?$")


@dataclass(frozen=True, eq=False)
class Cell:
    """The finished runs of one setting, one per seed.

    Attributes:
        label: Unique to this cell: the method's label, and whatever else distinguishes it.
        series: Name shared by the cells that one line connects.
        runs: At least one.
    """

    label: str
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
        return self.first.is_base

    @property
    def percent(self) -> float | None:
        """Trained parameters, in percent of all parameters."""
        percent: float | None = self.first.outcome("budget.percent")
        return percent

    @property
    def trainable(self) -> int:
        return int(self.first.outcome("budget.trainable") or 0)

    @property
    def wanted(self) -> int | None:
        """The requested number of trained parameters; None if none was requested."""
        wanted: int | None = self.first.outcome("budget.wanted")
        return wanted

    def estimate(self, number: str) -> Estimate | None:
        """One of ``Run.numbers`` over the seeds; None if no run recorded it."""
        values = tuple(run.numbers[number] for run in self.runs if number in run.numbers)
        return Estimate(values) if values else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the macro accuracy: over seeds if there are several, else over items."""
        macro = self.estimate("macro")
        if macro is None:
            return None
        return over_seeds(macro.values) if len(macro.values) > 1 else over_items(self.first.scores)


@dataclass(frozen=True)
class Group:
    """All cells of one model and task: the base first, then by method, k and trained parameters."""

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
        """The base's held-out loss, which every training run measures at step 0; None if the runs disagree."""
        found = {run.outcome("validation.base_loss") for cell in self.trained for run in cell.runs} - {None}
        losses = {round(loss, 4) for loss in found}
        return losses.pop() if len(losses) == 1 else None

    @property
    def series(self) -> dict[str, list[Cell]]:
        """The cells that train, by series."""
        found: dict[str, list[Cell]] = {}
        for cell in self.trained:
            found.setdefault(cell.series, []).append(cell)
        return found

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that any run scored, in the papers' order."""
        return in_order(name for cell in self.cells for run in cell.runs for name in run.scores)

    def has(self, number: str) -> bool:
        """Whether any run recorded this entry of ``Run.numbers``."""
        return any(cell.estimate(number) is not None for cell in self.cells)


def over_learning_rates(group: Group) -> Group | None:
    """The group with one series per label, if some cells differ only in their learning rate; else None."""
    told_apart = [cell for cell in group.trained if _rate_suffix(cell) in cell.label]
    if not told_apart:
        return None
    cells = (replace(cell, series=cell.label.replace(_rate_suffix(cell), "")) for cell in told_apart)
    ordered = sorted(cells, key=lambda cell: (cell.series, cell.learning_rate))
    return replace(group, cells=(*([group.base] if group.base else []), *ordered))


def _rate_suffix(cell: Cell) -> str:
    return f" lr={cell.learning_rate}"


def in_order(names: Iterable[str]) -> list[str]:
    """Each benchmark once, in the papers' order; the user's own come last."""
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
    # One declaration per job for all of its runs, so that runs of several versions are compared in the same way.
    declared = {run.job: run.config["job"] for run in runs if run.setting("job.depends_on")}
    for run in runs:
        setting = _setting(run, declared.get(run.job))
        # A method may choose settings that its configuration leaves open, so the recorded label counts too.
        key = json.dumps([run.method, run.label, setting], sort_keys=True, default=str)
        settings[key] = flat(setting)
        by_setting.setdefault(key, {}).setdefault((run.setting("seed"), run.setting("adapter")), run)
    named = names({key: next(iter(members.values())) for key, members in by_setting.items()}, settings)
    cells = [Cell(named[key].label, named[key].series, tuple(members.values())) for key, members in by_setting.items()]
    return tuple(sorted(cells, key=_place))


def _place(cell: Cell) -> tuple[Any, ...]:
    """Sort key: the base first, then each method from small to large."""
    return not cell.is_base, cell.series, cell.top_k or 0, cell.trainable, cell.label


def _setting(run: Run, declared: Mapping[str, Any] | None) -> dict[str, Any]:
    """What determines the outcome of a run, except its seed and that of the adapter it scored.

    Args:
        declared: The ``job`` section that says what counts; without one, every key counts.
    """
    try:
        setting = identity(run.config, declared)
    except (KeyError, TypeError, AttributeError):
        # An earlier version stored the configuration in another form; then every key counts.
        setting = {key: value for key, value in run.config.items() if key != "seed"}
    if isinstance(setting.get("adapter"), str):
        setting["adapter"] = _SEED_FOLDER.sub("", setting["adapter"])
    return setting
