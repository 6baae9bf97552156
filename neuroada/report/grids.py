"""The tables of a comparison as rows of text, whatever they are written into."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.report.cells import Cell, Group, in_order
from neuroada.report.published import Beside
from neuroada.runs.listing import Run, Status

MISSING = "–"
_DECIMALS = {"held-out loss": 4, "fit seconds": 0, "tokens/s": 0, "peak GiB": 2}
_ACCURACY_DECIMALS = 1


@dataclass(frozen=True)
class Grid:
    """A table: names and other words on the left, numbers on the right.

    Attributes:
        num_words: Columns from the left that hold words.
        emphasised: Numbers of rows, from 0, that a reader should see first.
    """

    header: list[str]
    rows: list[list[str]]
    num_words: int = 1
    emphasised: frozenset[int] = frozenset()


def cells_grid(group: Group) -> Grid:
    """A row for each cell: what was trained, then mean ± std of all scores."""
    costs = [name for name in ("held-out loss", "fit seconds", "tokens/s", "peak GiB") if group.has(name)]
    numbers = ["macro", *group.benchmarks, "strict macro", *costs]
    header = ["setting", "k", "trained %", "trained", "seeds", *numbers]
    rows = [
        [
            cell.series,
            MISSING if cell.top_k is None else str(cell.top_k),
            MISSING if cell.percent is None else f"{cell.percent:.3f}",
            f"{cell.trainable:,}",
            str(len(cell.runs)),
            *(_of_group(group, cell, name) for name in numbers),
        ]
        for cell in group.cells
    ]
    return Grid(header, rows)


def published_grid(pairs: Sequence[Beside]) -> Grid:
    """Three rows for each setting: ours, the published ones, and the difference in points."""
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
    """A row for each finished run, numbered as on the terminal."""
    header = ["#", "run", "seed", "lr", "macro %", "held-out loss", "fit s", "tokens/s", "peak GiB"]
    finished = [run for run in runs if run.status is Status.FINISHED]
    names = ("macro", "held-out loss", "fit seconds", "tokens/s", "peak GiB")
    rows = [
        [
            str(number),
            run.name,
            _text(run.setting("seed")),
            _text(run.learning_rate),
            *(_number(run.numbers.get(name), _DECIMALS.get(name, _ACCURACY_DECIMALS)) for name in names),
        ]
        for number, run in enumerate(finished, start=1)
    ]
    return Grid(header, rows, num_words=2)


def open_runs_grid(runs: Sequence[Run]) -> Grid:
    """The runs that are not finished, and why."""
    rows = [[run.name, run.status.value, run.error] for run in runs if run.status is not Status.FINISHED]
    return Grid(["run", "state", "why"], rows, num_words=3)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """One row for each run; accuracies and the trained share in percent, what was not recorded empty."""
    benchmarks = in_order(name for run in runs for name in run.scores)
    columns: dict[str, Callable[[Run], Any]] = {
        "folder": lambda run: run.name,
        "model": lambda run: run.setting("model.name"),
        "task": lambda run: run.setting("task.name"),
        "method": lambda run: run.method if run.config else None,
        "selection": lambda run: run.setting("method.selection"),
        "top_k": lambda run: run.top_k,
        "percent": _rounded("trained %"),
        "trainable": lambda run: run.outcome("budget.trainable"),
        "seed": lambda run: run.setting("seed"),
        "lr": lambda run: run.learning_rate,
        **{name: _rounded(name) for name in (*benchmarks, "macro", "micro")},
        "strict_macro": _rounded("strict macro"),
        "held_out_loss": _rounded("held-out loss"),
        "fit_seconds": _rounded("fit seconds"),
        "peak_memory_gib": _rounded("peak GiB"),
        "tokens_per_second": _rounded("tokens/s"),
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
    """As ``_estimate``; a base that measured no held-out loss has the one its fine-tunes started from."""
    if cell.is_base and name == "held-out loss" and cell.estimate(name) is None:
        return _number(group.base_loss, _DECIMALS[name])
    return _estimate(cell, name)


def _estimate(cell: Cell, name: str) -> str:
    found = cell.estimate(name)
    return MISSING if found is None else found.text(_DECIMALS.get(name, _ACCURACY_DECIMALS))


def _number(value: float | None, decimals: int = _ACCURACY_DECIMALS) -> str:
    return MISSING if value is None else f"{value:,.{decimals}f}"


def _text(value: Any) -> str:
    return MISSING if value is None else str(value)
