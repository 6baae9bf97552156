"""``job=contamination``: which test questions of a task's benchmarks also occur in its training sets."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig, RunConfig
from neuroada.data.catalog import lookup, with_own
from neuroada.data.download import DataFile, content_hashes, ensure
from neuroada.data.leaks import Leaks, leaked
from neuroada.data.rows import read_rows
from neuroada.data.training_sets import TrainingSets
from neuroada.report.summary import percent
from neuroada.runs.files import write_whole
from neuroada.runs.protocols import protocols_of

logger = logging.getLogger(__name__)

CONTAMINATION_FILE = "contamination.json"


def contamination(run: RunConfig, folder: Path) -> None:
    """Print a row for each benchmark, and write ``contamination.json`` with the items found.

    Benchmarks whose file is missing and cannot be fetched are named and skipped.

    Raises:
        UserError: A file is malformed, or a training set or every benchmark is missing and cannot be fetched.
    """
    known, data_dir = with_own(run.data.sets, protocols_of(run.data)), Path(run.data.dir)
    names = run.evaluation.benchmarks if run.evaluation.benchmarks is not None else run.task.benchmarks
    tests = [DataFile(lookup(name, known), run.data.split) for name in names]
    asked = TrainingSets(run.task, data_dir, known)
    ensure(asked.files, data_dir, run.data.url)
    there = _fetched([*tests, *asked.clean_of], run.data)
    benchmarks = [file for file in tests if file.path(data_dir) in there]
    if not benchmarks:
        raise UserError(f"data.dir={data_dir}: none of {', '.join(names)} is there or can be fetched")
    clean_of = [file.dataset.name for file in asked.clean_of if file.path(data_dir) in there]
    training = TrainingSets(dataclasses.replace(run.task, clean_of=clean_of), data_dir, known)
    rows = [row for file in training.files for row in training.examples(file)]
    found = leaked(rows, {file.dataset.name: read_rows(file.path(data_dir), file.dataset) for file in benchmarks})
    report = {
        "task": run.task.name,
        "train": run.task.train,
        "clean_of": clean_of,
        "training_rows": len(rows),
        "dropped_rows": training.dropped,
        "split": run.data.split,
        "benchmarks": {name: _entry(leaks) for name, leaks in found.items()},
        "not_checked": [name for name in names if name not in found],
        "content": content_hashes([*training.files_needed, *benchmarks], data_dir),
    }
    write_whole(folder / CONTAMINATION_FILE, json.dumps(report, indent=2) + "\n")
    console = Console(highlight=False)
    console.print(contamination_table(found, f"{run.task.name}: test questions among {len(rows):,} training rows"))
    console.print(f"items: {folder / CONTAMINATION_FILE}", soft_wrap=True)


def contamination_table(found: Mapping[str, Leaks], title: str) -> Table:
    """Counts of each benchmark, and the share of its questions that the normalised rule finds."""
    table = Table(title=title, title_justify="left")
    table.add_column("benchmark")
    for name in ("items", "exact", "normalised", "near", "normalised %"):
        table.add_column(name, justify="right")
    for name, leaks in found.items():
        counts = (leaks.num_items, len(leaks.exact), len(leaks.normalised), len(leaks.near))
        table.add_row(name, *map(str, counts), percent(len(leaks.normalised) / leaks.num_items))
    return table


def _fetched(files: Sequence[DataFile], data: DataConfig) -> set[Path]:
    """Paths of the files that exist or could be fetched; one warning names the others."""
    data_dir = Path(data.dir)
    there, reasons = set(), {}
    for path, file in {file.path(data_dir): file for file in files}.items():
        try:
            ensure([file], data_dir, data.url)
            there.add(path)
        except UserError as error:
            reasons[file.dataset.name] = str(error)
    if reasons:
        logger.warning("left out: %s (%s)", ", ".join(reasons), next(iter(reasons.values())))
    return there


def _entry(leaks: Leaks) -> dict[str, Any]:
    items = {rule: sorted(getattr(leaks, rule)) for rule in ("exact", "normalised", "near")}
    return {"items": leaks.num_items, **{rule: len(found) for rule, found in items.items()}, "indices": items}
