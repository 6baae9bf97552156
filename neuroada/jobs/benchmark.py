"""``job=benchmark``: time and memory of a training step with each method, next to a floor that trains nothing.

The scope ``evaluation`` times answers instead of steps; see ``neuroada.costs.evaluation_speed``. For all other scopes:

All methods share one module. In each round every method is attached, warmed up, timed once and detached, so a change in
the machine's speed affects all of them alike. The learning rate is zero. Two rows are always added: the floor (nothing
trains), and NeuroAda's values as a dense ``W + delta``.
"""

import json
import logging
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.costs.dense_delta import NAME as DENSE_DELTA
from neuroada.costs.dense_delta import DenseDelta
from neuroada.costs.evaluation_speed import evaluation_rows
from neuroada.costs.measurement import Attach, Measured, device_name, measure_peak, measure_step
from neuroada.costs.workloads import Workload, epoch_workload, layer_workloads, model_workload
from neuroada.jobs.micro_batch import largest_unplanned, sizes_of_share
from neuroada.jobs.sizing import method_of, with_targets
from neuroada.methods.budgets import wanted
from neuroada.methods.contract import Method, Sized
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.storage.whole_files import write_whole
from neuroada.training.trainer import build_trainer

logger = logging.getLogger(__name__)

FLOOR = "floor"
REFERENCE = "reference"
"""Scope ``epoch`` only: the reference's whole pipeline, a dense ``W + delta`` on padded rows with all logits."""

_BEGINNINGS = ('[\n {\n  "scope": ', "| shape | ")
"""Of the files that it writes."""


def benchmark(run: RunConfig, folder: Path) -> None:
    """Measure, print a table, and write ``benchmark.out`` and a Markdown table next to it.

    Raises:
        UserError: A method cannot be attached, or needs a package that is not installed.
    """
    refuse_other_files((folder / run.benchmark.out).parent, own=begins_with(*_BEGINNINGS))
    device = build_trainer(run, folder).strategy.root_device
    dtype = loading.resolve_dtype(run.model.dtype, device.type)
    rows = _rows(_with_all_chosen(run), device, dtype)
    path = folder / run.benchmark.out
    write_whole(path, json.dumps(rows, indent=1) + "\n")
    write_whole(path.with_suffix(".md"), markdown(rows))
    for shape in dict.fromkeys(row["shape"] for row in rows):
        Console().print(table([row for row in rows if row["shape"] == shape]))
    logger.info("written: %s", os.path.relpath(path))


def _rows(run: RunConfig, device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    if run.benchmark.scope == "evaluation":
        return evaluation_rows(run, device, dtype)
    return [row for workload in _workloads(run, device, dtype) for row in _measure(run, workload, device, dtype)]


def _with_all_chosen(run: RunConfig) -> RunConfig:
    """The run with the layers and the micro-batch that the configuration leaves open; one choice for all methods."""
    size = run.data.micro_batch_size or largest_unplanned(sizes_of_share(run.data.batch_size))
    run = replace(run, data=replace(run.data, micro_batch_size=size))
    if run.benchmark.scope not in ("model", "epoch"):
        return run
    return with_targets(run, loading.load_skeleton(run.model))


def _workloads(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Iterator[Workload]:
    if run.benchmark.scope == "layer":
        yield from layer_workloads(run, device, dtype)
    elif run.benchmark.scope == "model":
        yield model_workload(run, device, dtype)
    else:
        yield epoch_workload(run, device, dtype)


@dataclass(frozen=True)
class _Entry:
    """One row of the result: the method, its budget (None if its size does not depend on it), and the workload."""

    name: str
    top_k: int | None
    attach: Attach | None
    workload: Workload


def _entries(run: RunConfig, workload: Workload) -> list[_Entry]:
    entries = [_Entry(FLOOR, None, None, workload)]
    for section in run.benchmark.methods:
        entries += _of_method(method_of(section), run, workload)
    dense = {top_k: partial(DenseDelta, targets=workload.targets, top_k=top_k) for top_k in run.benchmark.top_k}
    entries += [_Entry(DENSE_DELTA, top_k, attach, workload) for top_k, attach in dense.items()]
    if workload.reference_step is not None:
        theirs = replace(workload, step=workload.reference_step)
        entries += [_Entry(REFERENCE, top_k, attach, theirs) for top_k, attach in dense.items()]
    return entries


def _of_method(method: Method, run: RunConfig, workload: Workload) -> list[_Entry]:
    """A row for each budget; one row if the method's size does not depend on the budget."""
    rows: dict[int, tuple[int, Sized]] = {}
    for top_k in run.benchmark.top_k:
        asked = wanted(replace(run.budget, top_k=top_k), workload.module, workload.targets)
        sized = method.sized(workload.module, workload.targets, asked)
        rows.setdefault(sized.budget.trainable, (top_k, sized))
    if len(rows) == 1 and len(run.benchmark.top_k) > 1:
        [(_, sized)] = rows.values()
        return [_Entry(_row_name(method, sized), None, sized.attach, workload)]
    return [_Entry(_row_name(method, sized), top_k, sized.attach, workload) for top_k, sized in rows.values()]


def _row_name(method: Method, sized: Sized) -> str:
    """The method's name, and its size unless the column k shows it."""
    own = {key: value for key, value in sized.size.items() if key != "top_k"}
    return "-".join([method.name, *(f"{key}{value:.4g}" for key, value in own.items())])


def _measure(run: RunConfig, workload: Workload, device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    entries = _entries(run, workload)
    measured: list[list[Measured]] = [[] for _ in entries]
    for _ in track(range(run.benchmark.repeats), description=workload.shape):
        for samples, entry in zip(measured, entries, strict=True):
            samples.append(measure_step(entry.workload, entry.attach, device))
    peaks = [measure_peak(entry.workload, entry.attach, device) for entry in entries]
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
    """The rows of one shape, for the terminal; times are medians."""
    first = rows[0]
    title = f"{first['shape']}, {first['dtype']}, {first['device']}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    cells = [_cells(row) for row in rows]
    for column in cells[0]:
        if column == "method":
            shown.add_column(column, overflow="fold")
        else:
            # On a narrow terminal headers and names wrap, numbers do not.
            shown.add_column(column, justify="right", min_width=max(len(row[column]) for row in cells))
    for row in cells:
        shown.add_row(*row.values())
    return shown


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table in Markdown, with the shape in the first column."""
    cells = [{"shape": row["shape"], **_cells(row)} for row in rows]
    lines = [list(cells[0]), ["---"] * len(cells[0]), *(list(row.values()) for row in cells)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
