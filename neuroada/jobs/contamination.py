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
from neuroada.data.data_split import DataSplit, content_hashes
from neuroada.data.download import ensure
from neuroada.data.leaks import Leaks, leaked
from neuroada.data.module import benchmark_splits
from neuroada.data.training_sets import TrainingSets
from neuroada.report.summary import percent
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.storage.whole_files import write_whole
from neuroada.training.data_sources import sources_of

logger = logging.getLogger(__name__)

CONTAMINATION_FILE = "contamination.json"


def contamination(run: RunConfig, folder: Path) -> None:
    """Print a row for each benchmark, and write ``contamination.json`` with the items found.

    Benchmarks whose file is missing and cannot be fetched are named and skipped.

    Raises:
        UserError: A file is malformed, or a training set or every benchmark is missing and cannot be fetched.
    """
    refuse_other_files(folder, own=begins_with('{\n  "task": '))
    sources, data_dir = sources_of(run), Path(run.data.dir)
    tests = benchmark_splits(run.task, run.evaluation, run.data.split, sources)
    names = [split.dataset.name for split in tests]
    asked = TrainingSets(run.task, sources)
    ensure(asked.files, data_dir, run.data.url)
    there = _fetched([*tests, *asked.clean_of], run.data)
    benchmarks = [split for split in tests if split.name in there]
    if not benchmarks:
        raise UserError(f"data.dir={data_dir}: none of {', '.join(names)} is there or can be fetched")
    kept = [entry for entry, split in zip(run.task.clean_of, asked.clean_of, strict=True) if split.name in there]
    training = TrainingSets(dataclasses.replace(run.task, clean_of=kept), sources)
    rows = [row for file in training.files for row in training.examples(file)]
    found = leaked(rows, {split.dataset.name: split.examples(scored=False) for split in benchmarks})
    report = {
        "task": run.task.name,
        "train": [file.dataset.name for file in training.files],
        "clean_of": [split.dataset.name for split in training.clean_of],
        "training_rows": len(rows),
        "dropped_rows": training.dropped,
        "split": run.data.split,
        "benchmarks": {name: _entry(leaks) for name, leaks in found.items()},
        "not_checked": [name for name in names if name not in found],
        "content": content_hashes([*training.files_needed, *benchmarks]),
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


def _fetched(splits: Sequence[DataSplit], data: DataConfig) -> set[str]:
    """Names of those that exist or could be fetched; one warning names the others."""
    there, reasons = set(), {}
    for name, split in {split.name: split for split in splits}.items():
        try:
            ensure([split], Path(data.dir), data.url)
            there.add(name)
        except UserError as error:
            reasons[split.dataset.name] = str(error)
    if reasons:
        logger.warning("left out: %s (%s)", ", ".join(reasons), next(iter(reasons.values())))
    return there


def _entry(leaks: Leaks) -> dict[str, Any]:
    items = {rule: sorted(getattr(leaks, rule)) for rule in ("exact", "normalised", "near")}
    return {"items": leaks.num_items, **{rule: len(found) for rule, found in items.items()}, "indices": items}
