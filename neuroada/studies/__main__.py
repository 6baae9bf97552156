"""``python -m neuroada.studies sweeps/*``: run what studies lack, keep its records, and make their tables again."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from neuroada.config.errors import EXIT_OF_MISTAKES, UserError
from neuroada.report.marked_pages import check_places, write_into
from neuroada.runs.stop_signals import Interrupted, shown_signal
from neuroada.storage.whole_files import write_whole
from neuroada.studies.cell_results import results_of
from neuroada.studies.definition import STUDY_FILE, read_study
from neuroada.studies.figure import draw
from neuroada.studies.overview import PAGE, write_overview
from neuroada.studies.plan import StudyPlan
from neuroada.studies.running import Workplace, run_missing
from neuroada.studies.tables import frame, paired_table, rates_table, results_table, runs_table

logger = logging.getLogger(__name__)

CELLS_FILE = "cells.csv"
RECORDS = "records"
_OUTPUTS = Path("outputs/studies")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 2 after a mistake or a run that failed, and as a shell expects after a signal."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_time=False)])
    try:
        for folder in given.studies:
            _study(folder, given)
        for page in [] if given.list else given.into:
            write_overview(page, given.studies)
    except UserError as error:
        Console(stderr=True).print(f"neuroada: {error}", markup=False, soft_wrap=True, highlight=False)
        sys.exit(EXIT_OF_MISTAKES)
    except Interrupted as interrupted:
        said = f"neuroada: {shown_signal(interrupted.number)}; the same command goes on with what is missing"
        Console(stderr=True).print(said, markup=False, soft_wrap=True, highlight=False)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m neuroada.studies", description=__doc__.partition("``: ")[2])
    parser.add_argument("studies", nargs="+", type=Path, help=f"folders with a {STUDY_FILE}")
    parser.add_argument("--at-a-time", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="only say which runs are missing")
    what.add_argument("--tables", action="store_true", help="only make the tables again from the records")
    parser.add_argument(
        "--into",
        nargs="+",
        default=[],
        type=Path,
        metavar="PAGE",
        help="pages with places for these studies' results",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for this machine, such as a model's path"
    )
    return parser


def _study(folder: Path, given: argparse.Namespace) -> None:
    plan = StudyPlan(read_study(folder), folder / RECORDS)
    if given.list:
        _list(folder, plan)
        return
    if not given.tables:
        workplace = Workplace(_OUTPUTS / folder.resolve().name, given.set, given.at_a_time)
        run_missing(plan, folder / RECORDS, workplace)
    write_tables(folder, plan)


def write_tables(folder: Path, plan: StudyPlan) -> None:
    """Write the tables into the study's page, every run into ``cells.csv``, and the figure.

    Raises:
        UserError: The page has no places for them.
    """
    cells = results_of(plan)
    tables = {
        "results": results_table(plan, cells),
        "paired": paired_table(plan, cells),
        "rates": rates_table(plan),
        "runs": runs_table(plan, cells),
    }
    wanted = {name: table for name, table in tables.items() if table}
    check_places(folder / PAGE, wanted)
    write_into(folder / PAGE, wanted)
    write_whole(folder / CELLS_FILE, frame(plan, cells).to_csv(index=False))
    try:
        draw(folder, cells)
    except ImportError:
        logger.warning("no figure: matplotlib is not installed; pip install 'neuroada[plots]'")


def _list(folder: Path, plan: StudyPlan) -> None:
    table = Table()
    for name in ("setting", "missing runs"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for cell, count in plan.num_missing().items():
        table.add_row(cell, str(count) if count else "–")
    console = Console()
    console.print(f"{folder}: {plan.study.question}", markup=False, soft_wrap=True)
    console.print(table)
    for need in plan.study.needs:
        console.print(f"needs {need}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
