"""The tables of a comparison as data frames: of numbers for ``runs.csv``, of texts for the report."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas

from neuroada.report import speed
from neuroada.report.cells import Cell, Group, in_order
from neuroada.report.estimates import Interval, combined
from neuroada.report.published import Beside
from neuroada.runs.listing import Run, Status
from neuroada.storage.whole_files import write_whole

MISSING = "–"
DECIMALS = {"held-out loss": 4, "fit seconds": 0, "step ms": 1, "tokens/s": 0, "peak GiB": 2, "forgetting": 3}
ACCURACY_DECIMALS = 1
COSTS = ("held-out loss", "step ms", "tokens/s", "fit seconds", "peak GiB", "forgetting")


def cells_table(group: Group) -> pandas.DataFrame:
    """A row for each cell: name, macro accuracy and interval, size, each benchmark, costs; mean ± std over seeds.

    Columns without any value are left out.
    """
    columns: dict[str, Callable[[Cell], str]] = {
        "setting": lambda cell: cell.label,
        "macro": partial(_estimate, name="macro"),
        "95 %": lambda cell: _interval(cell.interval),
        "seeds": lambda cell: str(len(cell.runs)),
        "k": lambda cell: _text(cell.top_k),
        "lr": lambda cell: _text(cell.learning_rate),
        "trained": lambda cell: f"{cell.trainable:,}",
        "trained %": lambda cell: _number(cell.percent, 3),
        "wanted": lambda cell: MISSING if cell.wanted is None else f"{cell.wanted:,}",
        **{name: partial(_estimate, name=name) for name in (*group.benchmarks, "strict macro", "held-out loss")},
        "held-out loss": partial(_held_out_loss, group),
        **{name: partial(_estimate, name=name) for name in COSTS if name != "held-out loss"},
    }
    return _without_empty(_frame(columns, group.cells))


def published_table(pairs: Sequence[Beside]) -> pandas.DataFrame:
    """Three rows for each setting: our accuracies, the published ones, and the difference in points."""
    benchmarks = list(dict.fromkeys(name for pair in pairs for name in pair.published.accuracies))
    rows = []
    for pair in pairs:
        published, cell, gap = pair.published, pair.cell, pair.average_difference
        star = "*" if published.is_average_off else ""
        ours = {name: _estimate(cell, name) for name in benchmarks}
        theirs = {name: _number(published.accuracies.get(name)) for name in benchmarks}
        shared = {name: f"{pair.difference(name):+.1f}" for name in pair.benchmarks}
        average = _estimate(cell, "macro") if pair.is_whole else MISSING
        rows += [
            {"setting": cell.label, "": f"ours, n={len(cell.runs)}", "average": average, **ours},
            {"": "published, n=1", "average": f"{published.average_printed:.1f}{star}", **theirs},
            {"": "ours − published", "average": MISSING if gap is None else f"{gap:+.1f}", **shared},
        ]
    frame = pandas.DataFrame(rows, columns=["setting", "", "average", *benchmarks])
    return frame.fillna({"setting": ""}).fillna(MISSING)


def runs_table(groups: Sequence[Group], runs: Sequence[Run]) -> pandas.DataFrame:
    """A row for each finished run, numbered as on the terminal; its folder comes last."""
    cells = {id(run): (group, cell) for group in groups for cell in group.cells for run in cell.runs}
    repeats = {id(run) for group in groups for run in group.repeats}
    finished = {id(run): number for number, run in enumerate(_finished(runs), start=1)}

    def name(run: Run) -> str:
        return f"{run.label} (repeated)" if id(run) in repeats else cells[id(run)][1].label

    def title(run: Run) -> str:
        return cells[id(run)][0].title if id(run) in cells else f"{run.model} on {run.task}"

    columns: dict[str, Callable[[Run], str]] = {
        "#": lambda run: str(finished[id(run)]),
        "setting": name,
        "macro": partial(_of_run, name="macro"),
        "95 %": lambda run: _interval(combined([run.scores])),
        "seed": lambda run: _text(run.setting("seed")),
        **({"group": title} if len(groups) > 1 else {}),
        "lr": lambda run: _text(run.learning_rate),
        "trained %": partial(_of_run, name="trained %", decimals=3),
        **{name: partial(_of_run, name=name) for name in COSTS},
        "run": lambda run: run.name,
    }
    return _without_empty(_frame(columns, _finished(runs)))


def open_runs_table(runs: Sequence[Run]) -> pandas.DataFrame:
    """The runs that are not finished, and why."""
    rows = [(run.name, run.status.value, run.error) for run in runs if run.status is not Status.FINISHED]
    return pandas.DataFrame(rows, columns=["run", "state", "why"])


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
        "load_per_processor": lambda run: _maybe_round(speed.load_per_processor(run)),
        "forgetting": _rounded("forgetting"),
        "status": lambda run: run.status.value,
        "error": lambda run: run.error,
    }
    rows = [[read(run) for read in columns.values()] for run in runs]
    # As objects: a column of whole numbers with gaps would become one of fractions.
    table = pandas.DataFrame(rows, columns=list(columns), dtype=object)
    write_whole(path, table.to_csv(index=False, lineterminator="\n"))


def _frame(columns: dict[str, Callable[[Any], str]], rows: Sequence[Any]) -> pandas.DataFrame:
    return pandas.DataFrame([[read(row) for read in columns.values()] for row in rows], columns=list(columns))


def _without_empty(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame.loc[:, (frame != MISSING).any()]


def _finished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status is Status.FINISHED]


def _rounded(name: str) -> Callable[[Run], float | None]:
    return lambda run: _maybe_round(run.numbers.get(name))


def _maybe_round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _held_out_loss(group: Group, cell: Cell) -> str:
    """A base without a held-out loss gets the one that its fine-tunes started from."""
    if cell.is_base and cell.estimate("held-out loss") is None:
        return _number(group.base_loss, DECIMALS["held-out loss"])
    return _estimate(cell, "held-out loss")


def _estimate(cell: Cell, name: str) -> str:
    found = cell.estimate(name)
    if found is None:
        return MISSING
    mark = f" {speed.MARK}" if speed.is_marked(name, cell.runs) else ""
    return found.text(DECIMALS.get(name, ACCURACY_DECIMALS)) + mark


def _interval(interval: Interval | None) -> str:
    return MISSING if interval is None else interval.text


def _of_run(run: Run, name: str, decimals: int | None = None) -> str:
    mark = f" {speed.MARK}" if speed.is_marked(name, [run]) else ""
    decimals = DECIMALS.get(name, ACCURACY_DECIMALS) if decimals is None else decimals
    return _number(run.numbers.get(name), decimals) + mark


def _number(value: float | None, decimals: int = ACCURACY_DECIMALS) -> str:
    return MISSING if value is None else f"{value:,.{decimals}f}"


def _text(value: Any) -> str:
    return MISSING if value is None else str(value)
