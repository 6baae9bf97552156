"""Group runs: those that differ only in their seed are a cell; cells of one model, task and benchmarks are a group."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroada.data.catalog import DATASETS
from neuroada.report.estimates import Estimate, Interval, combined
from neuroada.report.labels import Names, flat, names
from neuroada.runs.files import ADAPTER_FOLDER
from neuroada.runs.identity import identity
from neuroada.runs.listing import Run, Status

_DIGEST_LETTERS = 8
_STEM_LETTERS = 72
"""Longer titles are shortened in names of files."""
_MOST_NAMES = 3
"""More benchmarks are counted in a title instead of named, if that is enough."""
_SEED_FOLDER = re.compile(rf"(?<=-[0-9a-f]{{{_DIGEST_LETTERS}}})/s\d+(/{ADAPTER_FOLDER})?/?$")
"""Below the folder of a setting, whose name ends with a digest: other folders called s1 may be of other settings."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The finished runs of one setting, one per seed.

    Attributes:
        names: Unique to this cell: the method's label, and whatever else distinguishes it.
        runs: At least one.
    """

    names: Names
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return self.names.label

    @property
    def series(self) -> str:
        """Name shared by the cells that one line connects."""
        return self.names.series

    @property
    def method(self) -> str:
        return self.first.method

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
        """The 95 % interval of the macro accuracy; see ``neuroada.report.estimates``."""
        return combined([run.scores for run in self.runs])

    def interval_of(self, benchmark: str) -> Interval | None:
        """The 95 % interval of one benchmark, or of the macro accuracy for ``macro``."""
        if benchmark == "macro":
            return self.interval
        return combined([{benchmark: run.scores[benchmark]} for run in self.runs if benchmark in run.scores])


@dataclass(frozen=True)
class Group:
    """The cells of one model, task and set of benchmarks: macro averages over other benchmarks are not comparable.

    Attributes:
        cells: The base first, then by method, k and trained parameters.
        benchmarks: Those that each run scored, in the papers' order.
        which: What tells it from groups of the same model and task on other benchmarks; empty if there are none.
        methods: All methods of the comparison, also those of other groups: they share the colours.
        repeats: Runs left out because another one has the same settings and the same seed.
    """

    model: str
    task: str
    cells: tuple[Cell, ...]
    benchmarks: tuple[str, ...] = ()
    which: str = ""
    methods: tuple[str, ...] = ()
    repeats: tuple[Run, ...] = ()

    @property
    def title(self) -> str:
        """Unique to this group."""
        return f"{self.model} on {self.task}{f' ({self.which})' if self.which else ''}"

    @property
    def file_stem(self) -> str:
        """Unique to this group, for names of files."""
        stem = re.sub(r"[^\w.+-]+", "_", f"{self.model}-{self.task}{f'-{self.which}' if self.which else ''}")
        if len(stem) <= _STEM_LETTERS:
            return stem
        return f"{stem[:_STEM_LETTERS]}-{hashlib.sha256(stem.encode()).hexdigest()[:_DIGEST_LETTERS]}"

    @property
    def runs(self) -> list[Run]:
        """The runs of all cells."""
        return [run for cell in self.cells for run in cell.runs]

    @property
    def base(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.is_base), None)

    @property
    def trained(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if not cell.is_base)

    @property
    def base_loss(self) -> float | None:
        """The base's held-out loss, which every training run measures at step 0; None if the runs disagree."""
        return loss_before_training(run for cell in self.trained for run in cell.runs)

    @property
    def series(self) -> dict[str, list[Cell]]:
        """The cells that train, by series."""
        found: dict[str, list[Cell]] = {}
        for cell in self.trained:
            found.setdefault(cell.series, []).append(cell)
        return found

    def has(self, number: str) -> bool:
        """Whether any run recorded this entry of ``Run.numbers``."""
        return any(cell.estimate(number) is not None for cell in self.cells)


def over_learning_rates(group: Group) -> Group | None:
    """The group with one series per setting, if some cells differ only in their learning rate; else None."""
    told_apart = [cell for cell in group.trained if _rate(cell) in cell.names.parts]
    if not told_apart:
        return None
    cells = (replace(cell, names=replace(cell.names, series=_without_rate(cell))) for cell in told_apart)
    ordered = sorted(cells, key=lambda cell: (cell.series, cell.learning_rate))
    return replace(group, cells=(*([group.base] if group.base else []), *ordered))


def _rate(cell: Cell) -> str:
    return f"lr={cell.learning_rate}"


def _without_rate(cell: Cell) -> str:
    return " ".join([cell.names.stem, *(part for part in cell.names.parts if part != _rate(cell))])


def in_order(names: Iterable[str]) -> list[str]:
    """Each benchmark once, in the papers' order; the user's own come last."""
    known = {name: place for place, name in enumerate(DATASETS)}
    return sorted(dict.fromkeys(names), key=lambda name: known.get(name, len(known)))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The finished runs by model, task and benchmarks, then by all but the seed.

    Of several runs with the same configuration and seed on the same data, the first counts.
    """
    by_group: dict[tuple[str, str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        if run.status is Status.FINISHED:
            by_group.setdefault((run.model, run.task, tuple(in_order(run.scores))), []).append(run)
    named = {key: _told_apart(key, by_group) for key in by_group}
    groups = [_group(*key, members, named[key]) for key, members in by_group.items()]
    methods = tuple(sorted({cell.method for group in groups for cell in group.trained}))
    return [replace(group, methods=methods) for group in groups]


def _told_apart(key: tuple[str, str, tuple[str, ...]], keys: Iterable[tuple[str, str, tuple[str, ...]]]) -> str:
    """What distinguishes a group from those of the same model and task: names of benchmarks, or only their number."""
    model, task, benchmarks = key
    others = [names for other, of_task, names in keys if (other, of_task) == (model, task) and names != benchmarks]
    if not others:
        return ""
    if len(benchmarks) > _MOST_NAMES and len(benchmarks) not in map(len, others):
        return f"{len(benchmarks)} benchmarks"
    return ", ".join(benchmarks) or "not scored"


def _group(model: str, task: str, benchmarks: tuple[str, ...], runs: Sequence[Run], which: str) -> Group:
    settings: dict[str, dict[str, Any]] = {}
    by_setting: dict[str, dict[Any, Run]] = {}
    repeats = []
    # One declaration per job for all of its runs, so that runs of several versions are compared in the same way.
    declared = {run.job: run.config["job"] for run in runs if run.setting("job.depends_on")}
    for run in runs:
        setting = _setting(run, declared.get(run.job))
        # A method may choose settings that its configuration leaves open, so the recorded label counts too.
        key = json.dumps([run.method, run.label, setting], sort_keys=True, default=str)
        settings[key] = flat(setting)
        members = by_setting.setdefault(key, {})
        # The content of an adapter: the same one may be given by its run folder, or by its own.
        adapter = run.outcome("content.adapter") or run.setting("adapter")
        if members.setdefault((run.setting("seed"), adapter), run) is not run:
            repeats.append(run)
    named = names({key: next(iter(members.values())) for key, members in by_setting.items()}, settings)
    cells = [Cell(named[key], tuple(members.values())) for key, members in by_setting.items()]
    return Group(model, task, tuple(sorted(cells, key=_place)), benchmarks, which, repeats=tuple(repeats))


def _place(cell: Cell) -> tuple[Any, ...]:
    """Sort key: the base first, then each method from small to large."""
    return not cell.is_base, cell.series, cell.top_k or 0, cell.trainable, cell.label


def _setting(run: Run, declared: Mapping[str, Any] | None) -> dict[str, Any]:
    """What determines the outcome of a run, except its seed and that of the adapter it scored.

    The files that it read count as well as their names: the same configuration on other data is another setting.

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
    content = run.outcome("content") or {}
    return {**setting, "content": {key: _digest(value) for key, value in content.items() if key != "adapter"}}


def _digest(value: Any) -> Any:
    """The first letters of a hash, and of every hash in a mapping."""
    if isinstance(value, Mapping):
        return {key: _digest(inner) for key, inner in value.items()}
    return value.removeprefix("sha256:")[:_DIGEST_LETTERS] if isinstance(value, str) else value


def loss_before_training(runs: Iterable[Run]) -> float | None:
    """The held-out loss that runs measured at step 0; None if they disagree, or none measured it."""
    found = {run.outcome("validation.base_loss") for run in runs} - {None}
    losses = {round(loss, 4) for loss in found}
    return losses.pop() if len(losses) == 1 else None
