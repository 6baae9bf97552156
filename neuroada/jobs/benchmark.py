"""``job=benchmark``: time and memory of a training step with each method, next to a floor that trains nothing.

The scope ``evaluation`` times answers instead of steps, and ``gradient`` the ways of computing NeuroAda's gradient; see
``neuroada.costs.evaluation_speed`` and ``gradient_speed``. For all other scopes:

All methods share one module. In each round every method is attached, warmed up, timed and detached, so a change in the
machine's speed affects all of them alike. The learning rate is zero. Two rows are always added: the floor (nothing
trains), and NeuroAda's values as a dense ``W + delta``. The files are written after each round.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.costs.evaluation_speed import evaluation_rows
from neuroada.costs.gradient_speed import cases, gradient_rows
from neuroada.costs.measured_table import merged_table
from neuroada.costs.row_tables import markdown, tables
from neuroada.costs.step_rows import Row, step_rows
from neuroada.costs.workloads import Workload, epoch_workload, layer_workloads, model_workload, packed_workload
from neuroada.jobs.micro_batch import largest_unplanned, sizes_of_share
from neuroada.jobs.sizing import with_targets
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.sparse import measured_ways
from neuroada.sparse.measured_ways import kind_of_gpu
from neuroada.storage.whole_files import write_whole
from neuroada.training.trainer import build_trainer

logger = logging.getLogger(__name__)

_BEGINNINGS = ('[\n {\n  "scope": ', "| shape | ")
"""Of the files that it writes."""


def benchmark(run: RunConfig, folder: Path) -> None:
    """Measure, print a table, and write ``benchmark.out`` and a Markdown table next to it.

    Raises:
        UserError: A method's settings are wrong, or it needs a package that is not installed.
    """
    refuse_other_files((folder / run.benchmark.out).parent, own=_is_own)
    device = build_trainer(run, folder).strategy.root_device
    dtype = loading.resolve_dtype(run.model.dtype, device.type)
    path = folder / run.benchmark.out
    rows: list[Row] = []
    for rows in _growing(_with_all_chosen(run), device, dtype):
        write_whole(path, json.dumps(rows, indent=1) + "\n")
        write_whole(path.with_suffix(".md"), markdown(rows))
    for shown in tables(rows):
        Console().print(shown)
    logger.info("written: %s", os.path.relpath(path))
    if run.benchmark.scope == "gradient" and device.type == "cuda":
        _write_fastest_ways(rows, device, path.with_name(measured_ways.FILE.name))


def _write_fastest_ways(rows: list[Row], device: torch.device, path: Path) -> None:
    """The table that the code reads, with this GPU in it."""
    write_whole(path, merged_table(measured_ways.FILE.read_text(encoding="utf-8"), kind_of_gpu(device), rows))
    logger.info("fastest ways: %s; to use them, copy it to %s", os.path.relpath(path), measured_ways.FILE)


def _is_own(file: Path) -> bool:
    return file.name == measured_ways.FILE.name or begins_with(*_BEGINNINGS)(file)


def _growing(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Iterator[list[Row]]:
    """All rows so far, each time that some are new or were measured once more."""
    if run.benchmark.scope == "evaluation":
        yield evaluation_rows(run, device, dtype, track)
        return
    if run.benchmark.scope == "gradient":
        total = len(list(cases(run, device)))
        yield from track(gradient_rows(run, device), total=total, description="gradient")
        return
    done: list[Row] = []
    for workload in _workloads(run, device, dtype):
        rows: list[Row] = []
        rounds = step_rows(run, workload, device, dtype)
        for rows in track(rounds, total=run.benchmark.repeats, description=workload.shape):
            yield [*done, *rows]
        done += rows


def _with_all_chosen(run: RunConfig) -> RunConfig:
    """The run with the layers and the micro-batch that the configuration leaves open; one choice for all methods."""
    size = run.data.micro_batch_size or largest_unplanned(sizes_of_share(run.data.batch_size))
    run = replace(run, data=replace(run.data, micro_batch_size=size))
    if run.benchmark.scope not in ("model", "packed", "epoch"):
        return run
    return with_targets(run, loading.load_skeleton(run.model))


def _workloads(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Iterator[Workload]:
    if run.benchmark.scope == "layer":
        yield from layer_workloads(run, device, dtype)
    else:
        of_model = {"model": model_workload, "packed": packed_workload, "epoch": epoch_workload}
        yield of_model[run.benchmark.scope](run, device, dtype)
