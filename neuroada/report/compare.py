"""``job=compare``: one table over many finished runs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.report.summary import percent
from neuroada.training.record import RESULT_FILE, read_result


def compare(run: RunConfig, folder: Path) -> None:
    """Print a row for each finished run below ``runs``, and how many are unfinished.

    Raises:
        UserError: There are none.
    """
    root = Path(run.runs)
    results = {path.parent: read_result(path.parent) for path in sorted(root.rglob(RESULT_FILE))}
    if not results:
        raise UserError(
            f"runs={run.runs}: no finished run below this folder (a run is finished when it has {RESULT_FILE})"
        )
    num_unfinished = sum(not (path.parent / RESULT_FILE).is_file() for path in root.rglob("config.yaml"))
    Console().print(comparison_table(results, root, num_unfinished))


def comparison_table(results: dict[Path, dict[str, Any]], root: Path, num_unfinished: int) -> Table:
    """Rows of runs, columns of benchmarks; a dash where a run did not score a benchmark."""
    benchmarks = list(dict.fromkeys(name for result in results.values() for name in result["metrics"]["benchmarks"]))
    table = Table(title=f"{len(results)} finished, {num_unfinished} unfinished", title_justify="left")
    for column in ("run", "% trained"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for name in (*benchmarks, "macro"):
        table.add_column(name, justify="right")
    for folder, result in results.items():
        scores = result["metrics"]["benchmarks"]
        cells = [percent(scores[name]["protocol"]) if name in scores else "-" for name in benchmarks]
        share = f"{result['budget']['percent']:.3f}"
        table.add_row(str(folder.relative_to(root)), share, *cells, percent(result["metrics"]["macro"]))
    return table
