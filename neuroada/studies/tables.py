"""The tables of a study, made from its records alone: the same records give the same bytes."""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import pandas

from neuroada.report.cells import in_order
from neuroada.report.estimates import Estimate
from neuroada.report.marked_pages import markdown
from neuroada.report.paired_means import Difference, difference
from neuroada.runs.listing import Run
from neuroada.studies.cell_results import CellResults
from neuroada.studies.plan import Rate, StudyPlan
from neuroada.studies.records import Record

NOT_RUN = "not run"
_EDGE = "†"
_SMALLEST_P = 0.001


def results_table(plan: StudyPlan, cells: Iterable[CellResults]) -> str:
    """A row for each cell: what it trains, and what it reached."""
    cells = list(cells)
    benchmarks = in_order(name for cell in cells for run in cell.runs for name in run.scores)
    has = {name for cell in cells for run in cell.runs for name in run.numbers}
    accuracies = [*benchmarks, *(["macro"] if len(benchmarks) > 1 else [])]
    losses = [name for name in ("held-out loss", "forgetting") if name in has]
    heads = ["setting", "trained", "%", "lr", "seeds", *losses, *accuracies]
    rows = [_result_row(cell, losses, accuracies) if cell.records else _open_row(cell, heads) for cell in cells]
    return markdown(heads, rows)


def paired_table(plan: StudyPlan, cells: Iterable[CellResults]) -> str:
    """A row for each cell that is tested against another: differences of accuracy and of held-out loss, by item."""
    by_name = {cell.name: cell for cell in cells}
    rows, has_losses = [], any(cell.held_out() for cell in by_name.values())
    for cell in by_name.values():
        name = plan.study.baseline_of(cell.name)
        if name is None or not cell.records or not by_name[name].records:
            continue
        other = by_name[name]
        points = _difference_cells(difference(cell.item_scores(), other.item_scores()), 100, 1)
        losses = _difference_cells(difference(cell.held_out(), other.held_out()), 1, 4) if has_losses else []
        rows.append([cell.name, name, *points, *losses])
    more = ["held-out loss", "95 %", "rows", "p"] if has_losses else []
    heads = ["setting", "against", "points", "95 %", "items", "p", *more]
    return markdown(heads, rows, left=(0, 1)) if rows else ""


def rates_table(plan: StudyPlan) -> str:
    """A row for each cell that chooses a learning rate: the held-out loss of every rate, the chosen one in bold."""
    rates = sorted({rate for cell in plan.study.cells for rate in plan.study.rates_of(cell)})
    rows = []
    for cell in plan.study.cells:
        losses = {run.rate: plan.record(run) for run in plan.rate_runs(cell)}
        if losses:
            chosen = plan.rate(cell)
            rows.append([cell, *(_rate_cell(rate, losses, chosen) for rate in rates)])
    return markdown(["setting", *(f"{rate:g}" for rate in rates)], rows) if rows else ""


def runs_table(plan: StudyPlan, cells: Iterable[CellResults]) -> str:
    """A row for each cell: its command, seeds, time, machine and commit."""
    heads = ["setting", "command", "seeds", "CPU min", "machine", "commit"]
    rows = []
    for cell in cells:
        own = " ".join(plan.study.cells[cell.name].overrides) or "–"
        rate = "" if cell.rate is None else f" optimizer.lr={cell.rate.value:g}"
        seeds = ", ".join(str(run.setting("seed")) for run in cell.runs) or NOT_RUN
        minutes = f"{cell.cpu_seconds / 60:.1f}" if cell.records else _estimated_minutes(plan, cell)
        machines = sorted({_machine(record.entry["machine"]) for record in cell.records})
        commits = sorted({_commit(run) for run in cell.runs})
        rows.append([cell.name, f"`{own}{rate}`", seeds, minutes, "; ".join(machines), ", ".join(commits)])
    return markdown(heads, rows, left=(0, 1, 4, 5))


def frame(plan: StudyPlan, cells: Iterable[CellResults]) -> pandas.DataFrame:
    """Every run at a chosen rate, for other programs: a row each, numbers as recorded."""
    rows = [
        {
            "setting": cell.name,
            "seed": run.setting("seed"),
            "lr": run.learning_rate,
            "trainable": run.outcome("budget.trainable"),
            **{name: round(value, 4) for name, value in run.numbers.items()},
            "cpu_seconds": record.entry["cpu_seconds"],
            "wall_seconds": record.entry["wall_seconds"],
            "commit": _commit(run),
        }
        for cell in cells
        for record in cell.records
        if (run := record.run) is not None
    ]
    return pandas.DataFrame(rows)


def _result_row(cell: CellResults, losses: Iterable[str], accuracies: Iterable[str]) -> list[str]:
    first = cell.runs[0]
    rate = "–" if cell.rate is None else f"{cell.rate.value:g}{_EDGE if cell.rate.is_at_edge else ''}"
    return [
        cell.name,
        f"{first.outcome('budget.trainable'):,}",
        f"{first.numbers.get('trained %', 0.0):.3f}",
        rate,
        str(len(cell.runs)),
        *(_text(cell.estimate(name), 3) for name in losses),
        *(_text(cell.estimate(name), 1) for name in accuracies),
    ]


def _open_row(cell: CellResults, heads: list[str]) -> list[str]:
    return [cell.name, NOT_RUN, *[""] * (len(heads) - 2)]


def _difference_cells(found: Difference | None, scale: float, decimals: int) -> list[str]:
    """The difference, its interval, the items that are higher and lower, and p; empty cells without one."""
    if found is None:
        return [""] * 4
    mean, low, high = (f"{scale * number:+.{decimals}f}" for number in (found.mean, found.low, found.high))
    p = f"<{_SMALLEST_P}" if found.p < _SMALLEST_P else f"{found.p:.3f}"
    interval = f"{low} to {high}" if math.isfinite(found.high) else "–"
    return [mean, interval, f"{found.higher} / {found.lower}", p]


def _rate_cell(rate: float, losses: Mapping[float | None, Record | None], chosen: Rate | None) -> str:
    if rate not in losses:
        return ""
    record = losses[rate]
    if record is None:
        return NOT_RUN
    loss = record.held_out_loss
    text = "diverged" if loss is None or not math.isfinite(loss) else f"{loss:.4f}"
    return f"**{text}**" if chosen is not None and chosen.value == rate else text


def _estimated_minutes(plan: StudyPlan, cell: CellResults) -> str:
    """From the rate runs of the same cell, which train as long."""
    records = [record for run in plan.rate_runs(cell.name) if (record := plan.record(run)) is not None]
    if not records:
        return ""
    return f"about {statistics.fmean(record.entry['cpu_seconds'] for record in records) / 60:.1f}"


def _text(estimate: Estimate | None, decimals: int) -> str:
    return "–" if estimate is None else estimate.text(decimals)


def _machine(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads")
    used = f", OMP_NUM_THREADS={threads}" if threads else ""
    accelerator = machine.get("accelerator")
    return f"{machine.get('processor') if accelerator in (None, 'cpu') else accelerator}{used}"


def _commit(run: Run) -> str:
    commit = run.outcome("git.commit")
    changed = "+" if run.outcome("git.dirty") else ""
    return f"{commit[:8]}{changed}" if isinstance(commit, str) else "unknown"
