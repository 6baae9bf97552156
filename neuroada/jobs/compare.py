"""``job=compare``: compare methods, test each run against a baseline (paired), and write a report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas
from rich.console import Console

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.report import speed
from neuroada.report.cells import grouped
from neuroada.report.document import Tests, write_report
from neuroada.report.significance import Contest, Item, contest, item_scores
from neuroada.report.terminal import console_for_tables, runs_table, settings_tables, table_of
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.folder_lock import locked
from neuroada.runs.listing import Run, Status, read_runs

logger = logging.getLogger(__name__)

SMALLEST_P = 0.001
"""Smaller p-values are shown as ``<0.001``."""
P_EXPLAINED = "p: sign test (McNemar's exact test), not corrected for the number of comparisons"


def compare(run: RunConfig, folder: Path) -> None:
    """Print the finished runs below ``runs``, compare each with a baseline, and write the report into ``folder``.

    Raises:
        UserError: No run is finished, the baseline is not one of the runs, or
            another process is writing the report.
    """
    root = Path(run.runs)
    found = read_runs(root)
    finished = [one for one in found if one.status is Status.FINISHED]
    for one in found:
        if one.status is Status.FAILED and (one.folder / RESULT_FILE).is_file():
            logger.warning("%s is left out: %s", one.folder, one.error)
    if not finished:
        raise UserError(
            f"runs={run.runs}: no finished run below this folder (a run is finished when it has {RESULT_FILE})"
        )
    baseline = baseline_number([one.folder for one in finished], run.baseline)
    contests = contests_with(baseline, finished)
    console = console_for_tables()
    show(console, finished, len(found) - len(finished), contests, baseline)
    with locked([folder]):
        report = write_report(folder, root, found, _tests(contests, baseline))
    console.print(f"report: {report}", soft_wrap=True)


def show(
    console: Console, finished: Sequence[Run], num_unfinished: int, contests: Mapping[int, Contest], baseline: int
) -> None:
    """Print the tables and their footnotes."""
    groups = grouped(finished)
    for table in settings_tables(groups):
        console.print(table)
    remark = speed.remark(finished)
    if remark:
        console.print(f"{remark}.", soft_wrap=True)
    console.print(runs_table(finished, groups, num_unfinished))
    for number, run in enumerate(finished, start=1):
        console.print(f"{number:>3}  {run.folder}", soft_wrap=True, markup=False)
    tests = _tests(contests, baseline)
    if not tests.table.empty:
        console.print(table_of(tests.table, f"compared with run {baseline}, on the same items"))
        console.print(tests.caption, soft_wrap=True)
    for note in tests.notes:
        console.print(note, soft_wrap=True, markup=False)


def baseline_number(folders: list[Path], baseline: str | None) -> int:
    """Number of the run that the others are compared with, from 1; the first unless ``baseline`` names one.

    Raises:
        UserError: ``baseline`` is not one of the runs.
    """
    if baseline is None:
        return 1
    wanted = Path(baseline).resolve()
    for number, path in enumerate(folders, start=1):
        if path.resolve() == wanted:
            return number
    raise UserError(f"baseline={baseline}: none of the finished runs; give a run folder below runs=")


def contests_with(baseline: int, finished: Sequence[Run]) -> dict[int, Contest]:
    """Number of a run -> its comparison with the baseline; empty if the baseline kept no predictions.

    A run whose predictions are missing or damaged is not compared; its note says why.
    """
    numbered = dict(enumerate(finished, start=1))
    try:
        there = _item_scores(numbered.pop(baseline))
    except UserError as error:
        return {number: Contest([], f"not compared: {error}") for number in numbered}
    return {} if there is None else {number: _contest(run, there) for number, run in numbered.items()}


def _contest(run: Run, baseline: Mapping[Item, float]) -> Contest:
    try:
        return contest(_item_scores(run), baseline)
    except UserError as error:
        return Contest([], f"not compared: {error}")


def contest_table(contests: Mapping[int, Contest]) -> pandas.DataFrame:
    """Wins, losses, percentage points and p of each run and benchmark."""
    rows = [
        [str(number), test.benchmark, test.num_items, test.wins, test.losses, f"{test.points:+.1f}", shown_p(test.p)]
        for number, found in contests.items()
        for test in found.tests
    ]
    return pandas.DataFrame(rows, columns=["#", "benchmark", "n", "wins", "losses", "points", "p"]).astype(str)


def shown_p(p: float) -> str:
    """A p-value with three decimals."""
    return f"{p:.3f}" if p >= SMALLEST_P else f"<{SMALLEST_P}"


def _tests(contests: Mapping[int, Contest], baseline: int) -> Tests:
    return Tests(
        table=contest_table(contests),
        caption=f"wins: items with a higher score than in run {baseline}. {P_EXPLAINED}",
        notes=[f"run {number}: {found.note}" for number, found in contests.items() if found.note],
    )


def _item_scores(run: Run) -> dict[Item, float] | None:
    return item_scores(run.folder, run.result)
