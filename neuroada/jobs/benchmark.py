"""``job=benchmark``: the cost of a training step, beside the frozen floor and other methods, measured in turn.

Scope evaluation times answers instead of steps; see ``neuroada.costs.evaluation_speed``. For all other scopes:

All contenders share one module: each is attached, warmed up, timed once and taken off again, round after round, so that
a machine that changes its speed changes it for all. Their optimizer steps with a learning rate of zero.
"""

import json
import logging
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.evaluation_speed import evaluation_rows
from neuroada.costs.measurement import Measured, device_name, measure_peak, measure_step
from neuroada.costs.workloads import Workload, epoch_workload, layer_workloads, model_workload
from neuroada.methods.methods import CONTENDERS, Contender, DenseDelta
from neuroada.training.trainer import build_trainer

logger = logging.getLogger(__name__)

FLOOR = "floor"
REFERENCE = "reference"
"""Of scope epoch: the reference's whole pipeline, a dense ``W + delta`` on padded rows with all logits."""
_MATCHED = ("neuroada", "dense_delta", "shira", "supertuning", "masked")
"""Methods whose size follows top_k; the others run once."""


def benchmark(run: RunConfig, folder: Path) -> None:
    """Measure, print a table, and write ``benchmark.out`` and a Markdown table beside it.

    Raises:
        UserError: A contender is not known, or needs a package that is not installed.
    """
    unknown = sorted(set(run.benchmark.methods) - CONTENDERS.keys())
    if unknown:
        raise UserError(f"benchmark.methods: no contender {unknown[0]!r}; choose from {', '.join(CONTENDERS)}")
    device = build_trainer(run, folder).strategy.root_device
    dtype = loading.resolve_dtype(run.model.dtype, device.type)
    rows = _rows(run, device, dtype)
    path = folder / run.benchmark.out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(rows), encoding="utf-8")
    for shape in dict.fromkeys(row["shape"] for row in rows):
        Console().print(table([row for row in rows if row["shape"] == shape]))
    logger.info("written: %s", os.path.relpath(path))


def _rows(run: RunConfig, device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    if run.benchmark.scope == "evaluation":
        return evaluation_rows(run, device, dtype)
    return [row for workload in _workloads(run, device, dtype) for row in _measure(run, workload, device, dtype)]


def _workloads(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Iterator[Workload]:
    if run.benchmark.scope == "layer":
        yield from layer_workloads(run, device, dtype)
    elif run.benchmark.scope == "model":
        yield model_workload(run, device, dtype)
    else:
        yield epoch_workload(run, device, dtype)


@dataclass(frozen=True)
class _Entry:
    """One row of the result: who trains, at which budget (None where the size does not follow it), on what."""

    name: str
    contender: Contender | None
    top_k: int | None
    workload: Workload


def _entries(run: RunConfig, workload: Workload) -> list[_Entry]:
    entries = [_Entry(FLOOR, None, None, workload)]
    for name in run.benchmark.methods:
        budgets: list[int | None] = list(run.benchmark.top_k) if name in _MATCHED else [None]
        entries += [_Entry(name, CONTENDERS[name], top_k, workload) for top_k in budgets]
    if workload.reference_step is not None:
        theirs = replace(workload, step=workload.reference_step)
        entries += [_Entry(REFERENCE, DenseDelta(), top_k, theirs) for top_k in run.benchmark.top_k]
    return entries


def _measure(run: RunConfig, workload: Workload, device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    entries = _entries(run, workload)
    measured: list[list[Measured]] = [[] for _ in entries]
    for _ in track(range(run.benchmark.repeats), description=workload.shape):
        for samples, entry in zip(measured, entries, strict=True):
            top_k = entry.top_k or max(run.benchmark.top_k)
            samples.append(measure_step(entry.workload, entry.contender, top_k, device))
    peaks = [
        measure_peak(entry.workload, entry.contender, entry.top_k or max(run.benchmark.top_k), device)
        for entry in entries
    ]
    floor_ms = statistics.median(sample.step_ms for sample in measured[0])
    rows = []
    for samples, peak, entry in zip(measured, peaks, entries, strict=True):
        times = [sample.step_ms for sample in samples]
        median = statistics.median(times)
        rows.append(
            {
                "scope": run.benchmark.scope,
                "shape": workload.shape,
                "method": entry.name,
                "top_k": entry.top_k,
                "trainable": samples[0].trainable,
                "dtype": str(dtype).removeprefix("torch."),
                "device": device_name(device),
                "gradient_checkpointing": run.model.gradient_checkpointing,
                "step_ms": round(median, 3),
                "step_ms_min": round(min(times), 3),
                "step_ms_max": round(max(times), 3),
                "tokens_per_s": round(workload.num_tokens / median * 1000, 1),
                "peak_gib": round(peak, 4),
                "vs_floor": round(median / floor_ms, 3),
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Column -> text."""
    digits = 0 if row["step_ms_max"] >= 100 else 1
    named = {"method": row["method"], "k": "-" if row["top_k"] is None else str(row["top_k"])}
    timed = {
        "step ms": f"{row['step_ms']:.{digits}f}",
        "min-max": f"{row['step_ms_min']:.{digits}f}-{row['step_ms_max']:.{digits}f}",
    }
    if row["scope"] == "evaluation":
        return {
            **named,
            "questions/s": f"{row['questions_per_s']:.2f}",
            "x plain": f"{row['vs_plain']:.2f}",
            **timed,
            "CPU ms": f"{row['cpu_ms']:.{digits}f}",
            "x plain, CPU": f"{row['vs_plain_cpu']:.2f}",
            "differing": str(row["differing"]),
            "unlike alone": str(row["unlike_alone"]),
            "by logits": "-" if row["largest_gap"] is None else f"{row['largest_gap']:.1e}",
        }
    return {
        **named,
        "trainable": f"{row['trainable']:,}",
        **timed,
        "x floor": f"{row['vs_floor']:.2f}",
        "tokens/s": f"{row['tokens_per_s']:,.0f}",
        "peak GiB": f"{row['peak_gib']:.3f}",
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows of one shape for the terminal; the time is the median."""
    first = rows[0]
    title = f"{first['shape']}, {first['dtype']}, {first['device']}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    for column in _cells(first):
        shown.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*_cells(row).values())
    return shown


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table in Markdown, with the shape in front."""
    cells = [{"shape": row["shape"], **_cells(row)} for row in rows]
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
