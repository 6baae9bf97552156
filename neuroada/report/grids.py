"""The tables of a comparison as rows of text, independent of the output format."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neuroada.report.cells import Cell, Group, in_order
from neuroada.report.published import Beside
from neuroada.runs.listing import Run, Status

MISSING = "–"
DECIMALS = {"held-out loss": 4, "fit seconds": 0, "step ms": 1, "tokens/s": 0, "peak GiB": 2, "forgetting": 3}
_ACCURACY_DECIMALS = 1


@dataclass(frozen=True)
class Grid:
    """A table: text columns on the left, numbers on the right.

    Attributes:
        num_words: Number of text columns, from the left.
        emphasised: Indices of rows, from 0, to highlight.
    """

    header: list[str]
    rows: list[list[str]]
    num_words: int = 1
    emphasised: frozenset[int] = frozenset()


def methods_grid(group: Group) -> Grid:
    """A row for each cell: its accuracy, trained parameters and cost."""
    columns = _method_columns(group)
    return Grid(list(columns), [[read(cell) for read in columns.values()] for cell in group.cells])


def cells_grid(group: Group) -> Grid:
    """The same rows, followed by all scores and further costs; mean ± std over seeds."""
    methods = methods_grid(group)
    further = [name for name in ("held-out loss", "fit seconds", "tokens/s") if group.has(name)]
    numbers = [*group.benchmarks, "strict macro", *further]
    rows = [
        [*row, *(_of_group(group, cell, name) for name in numbers)]
        for row, cell in zip(methods.rows, group.cells, strict=True)
    ]
    return Grid([*methods.header, *numbers], rows)


def _method_columns(group: Group) -> dict[str, Callable[[Cell], str]]:
    """Header -> text of a cell, without columns that would be empty."""
    with_k = {"k": lambda cell: _text(cell.top_k)}
    with_wanted = {"wanted": lambda cell: _count(cell.wanted)}
    costs = [name for name in ("step ms", "peak GiB", "forgetting") if group.has(name)]
    return {
        "setting": lambda cell: cell.label,
        "macro": lambda cell: _estimate(cell, "macro"),
        "95 %": lambda cell: MISSING if cell.interval is None else cell.interval.text,
        **(with_k if any(cell.top_k is not None for cell in group.cells) else {}),
        "trained": lambda cell: _count(cell.trainable),
        "trained %": lambda cell: _number(cell.percent, 3),
        **(with_wanted if any(cell.wanted is not None for cell in group.cells) else {}),
        "seeds": lambda cell: str(len(cell.runs)),
        **{name: partial(_estimate, name=name) for name in costs},
    }


def published_grid(pairs: Sequence[Beside]) -> Grid:
    """Three rows for each setting: our accuracies, the published ones, and the difference in points."""
    benchmarks = list(dict.fromkeys(name for pair in pairs for name in pair.published.accuracies))
    rows = []
    for pair in pairs:
        row, shared = pair.published, pair.benchmarks
        average = pair.cell.estimate("macro") if pair.is_whole else None
        ours = [_estimate(pair.cell, name) for name in benchmarks]
        theirs = [_number(row.accuracies.get(name)) for name in benchmarks]
        differences = [f"{pair.difference(name):+.1f}" if name in shared else MISSING for name in benchmarks]
        gap = pair.average_difference
        rows += [
            [
                f"k={row.top_k}",
                f"ours, n={len(pair.cell.runs)}",
                *ours,
                MISSING if average is None else average.text(1),
            ],
            ["", "published, n=1", *theirs, f"{row.average_printed:.1f}{'*' if row.is_average_off else ''}"],
            ["", "ours − published", *differences, MISSING if gap is None else f"{gap:+.1f}"],
        ]
    emphasised = frozenset(range(2, len(rows), 3))
    return Grid(["setting", "", *benchmarks, "average"], rows, num_words=2, emphasised=emphasised)


def runs_grid(runs: Sequence[Run]) -> Grid:
    """A row for each finished run, with the same numbers as on the terminal."""
    names = ("macro", "held-out loss", "fit seconds", "step ms", "tokens/s", "peak GiB", "forgetting")
    header = ["#", "run", "method", "seed", "lr", *names]
    finished = [run for run in runs if run.status is Status.FINISHED]
    rows = [
        [
            str(number),
            run.name,
            run.label,
            _text(run.setting("seed")),
            _text(run.learning_rate),
            *(_number(run.numbers.get(name), DECIMALS.get(name, _ACCURACY_DECIMALS)) for name in names),
        ]
        for number, run in enumerate(finished, start=1)
    ]
    return Grid(header, rows, num_words=3)


def open_runs_grid(runs: Sequence[Run]) -> Grid:
    """The runs that are not finished, and why."""
    rows = [[run.name, run.status.value, run.error] for run in runs if run.status is not Status.FINISHED]
    return Grid(["run", "state", "why"], rows, num_words=3)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """One row per run; accuracies and the trained share are in percent, and missing values are empty."""
    benchmarks = in_order(name for run in runs for name in run.scores)
    columns: dict[str, Callable[[Run], Any]] = {
        "folder": lambda run: run.name,
        "model": lambda run: run.setting("model.name"),
        "task": lambda run: run.setting("task.name"),
        "method": lambda run: run.method if run.config else None,
        "label": lambda run: run.label if run.config else None,
        "selection": lambda run: run.setting("method.selection"),
        "top_k": lambda run: run.top_k,
        "percent": _rounded("trained %"),
        "trainable": lambda run: run.outcome("budget.trainable"),
        "wanted": lambda run: run.outcome("budget.wanted"),
        "seed": lambda run: run.setting("seed"),
        "lr": lambda run: run.learning_rate,
        **{name: _rounded(name) for name in (*benchmarks, "macro", "micro")},
        "strict_macro": _rounded("strict macro"),
        "held_out_loss": _rounded("held-out loss"),
        "fit_seconds": _rounded("fit seconds"),
        "step_ms": _rounded("step ms"),
        "peak_memory_gib": _rounded("peak GiB"),
        "tokens_per_second": _rounded("tokens/s"),
        "forgetting": _rounded("forgetting"),
        "status": lambda run: run.status.value,
        "error": lambda run: run.error,
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(
            [["" if value is None else value for value in (read(run) for read in columns.values())] for run in runs]
        )


def _rounded(name: str) -> Callable[[Run], float | None]:
    return lambda run: round(run.numbers[name], 4) if name in run.numbers else None


def _of_group(group: Group, cell: Cell, name: str) -> str:
    """As ``_estimate``; a base without a held-out loss gets the one that its fine-tunes started from."""
    if cell.is_base and name == "held-out loss" and cell.estimate(name) is None:
        return _number(group.base_loss, DECIMALS[name])
    return _estimate(cell, name)


def _estimate(cell: Cell, name: str) -> str:
    found = cell.estimate(name)
    return MISSING if found is None else found.text(DECIMALS.get(name, _ACCURACY_DECIMALS))


def _number(value: float | None, decimals: int = _ACCURACY_DECIMALS) -> str:
    return MISSING if value is None else f"{value:,.{decimals}f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _text(value: Any) -> str:
    return MISSING if value is None else str(value)
