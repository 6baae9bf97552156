"""``job=compare``: one table over many finished runs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.config.sources import CONFIG_FILE
from neuroada.report.summary import percent
from neuroada.training.record import RESULT_FILE, read_result

MISSING = "-"
UNBOUNDED_WIDTH = 10_000
"""Columns of an output that is no terminal: what is piped on must not be folded."""


def compare(run: RunConfig, folder: Path) -> None:
    """Print a row for each finished run below ``runs``, and how many are unfinished.

    Raises:
        UserError: There are none, or a result is damaged.
    """
    root = Path(run.runs)
    folders = list(run_folders(root))
    results = {path: read_result(path) for path in folders if (path / RESULT_FILE).is_file()}
    if not results:
        raise UserError(
            f"runs={run.runs}: no finished run below this folder (a run is finished when it has {RESULT_FILE})"
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_WIDTH
    console.print(comparison_table(results, len(folders) - len(results)))
    for number, path in enumerate(results, start=1):
        console.print(f"{number:>3}  {path}", soft_wrap=True)


def run_folders(root: Path) -> Iterator[Path]:
    """Folders below ``root`` that hold a run, in order; what loggers write inside a run is not searched."""
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        if CONFIG_FILE in files or RESULT_FILE in files:
            subdirectories.clear()
            yield Path(directory)


def comparison_table(results: dict[Path, dict[str, Any]], num_unfinished: int) -> Table:
    """Rows of numbered runs, columns of benchmarks; a dash where a run has no such number."""
    benchmarks = list(dict.fromkeys(name for result in results.values() for name in _scores(result)))
    table = Table(title=f"{len(results)} finished, {num_unfinished} unfinished", title_justify="left", box=box.SIMPLE)
    for name in ("#", "% trained", *benchmarks, "macro"):
        table.add_column(name, justify="right", overflow="fold")
    for number, result in enumerate(results.values(), start=1):
        scores = _scores(result)
        share = result.get("budget", {}).get("percent")
        table.add_row(
            str(number),
            MISSING if share is None else f"{share:.3f}",
            *(_percent_or_dash(scores.get(name, {}).get("protocol")) for name in benchmarks),
            _percent_or_dash(result.get("metrics", {}).get("macro")),
        )
    return table


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = result.get("metrics", {}).get("benchmarks", {})
    return scores


def _percent_or_dash(fraction: float | None) -> str:
    return MISSING if fraction is None else percent(fraction)
