"""``job=compare``: compare methods, test each run against a baseline (paired), and write a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.report.cells import Group, grouped
from neuroada.report.document import Tests, write_report
from neuroada.report.grids import Grid, methods_grid
from neuroada.report.significance import Contest, Item, contest, verdicts
from neuroada.report.summary import percent
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.listing import Run, Status, read_runs

MISSING = "-"
UNBOUNDED_WIDTH = 10_000
"""Columns when the output is not a terminal: piped text must not be wrapped."""
SMALLEST_P = 0.001
"""Smaller p-values are shown as ``<0.001``."""
_WORDS = {"benchmark", "method", "setting"}
"""Left-aligned columns."""
P_EXPLAINED = "p: McNemar's exact test, not corrected for the number of comparisons"


def compare(run: RunConfig, folder: Path) -> None:
    """Print the finished runs below ``runs``, compare each with a baseline, and write the report into ``folder``.

    Raises:
        UserError: No run is finished, a result or predictions file is damaged, or the baseline is not one of the runs.
    """
    root = Path(run.runs)
    found = read_runs(root)
    finished = [one for one in found if one.status is Status.FINISHED]
    if not finished:
        raise UserError(
            f"runs={run.runs}: no finished run below this folder (a run is finished when it has {RESULT_FILE})"
        )
    baseline = baseline_number([one.folder for one in finished], run.baseline)
    contests = contests_with(baseline, finished)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_WIDTH
    show(console, finished, len(found) - len(finished), contests, baseline)
    report = write_report(folder, root, found, _tests(contests, baseline))
    console.print(f"report: {report}", soft_wrap=True)


def show(
    console: Console, finished: Sequence[Run], num_unfinished: int, contests: Mapping[int, Contest], baseline: int
) -> None:
    """Print the tables and their footnotes."""
    for group in grouped(finished):
        console.print(methods_table(group))
    console.print(runs_table(finished, num_unfinished))
    for number, run in enumerate(finished, start=1):
        console.print(f"{number:>3}  {run.folder}", soft_wrap=True, markup=False)
    tests = _tests(contests, baseline)
    if tests.grid.rows:
        console.print(contest_table(contests, baseline))
        console.print(tests.caption, soft_wrap=True)
    for note in tests.notes:
        console.print(note, soft_wrap=True)


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

    Raises:
        UserError: A predictions file is missing or damaged.
    """
    numbered = dict(enumerate(finished, start=1))
    there = _verdicts(numbered.pop(baseline))
    if there is None:
        return {}
    return {number: contest(_verdicts(run), there) for number, run in numbered.items()}


def accuracy_rows(finished: Sequence[Run]) -> list[list[str]]:
    """Numbered runs and their accuracy by benchmark, after a header row; a dash where a run has no score."""
    benchmarks = list(dict.fromkeys(name for run in finished for name in run.scores))
    rows = [["#", "method", "seed", "% trained", *benchmarks, "macro"]]
    for number, run in enumerate(finished, start=1):
        seed, share = run.setting("seed"), run.outcome("budget.percent")
        accuracies = [_percent_or_dash(run.scores.get(name, {}).get("protocol")) for name in benchmarks]
        rows.append(
            [
                str(number),
                run.label,
                MISSING if seed is None else str(seed),
                MISSING if share is None else f"{share:.3f}",
                *accuracies,
                _percent_or_dash(run.outcome("metrics.macro")),
            ]
        )
    return rows


def contest_rows(contests: Mapping[int, Contest]) -> list[list[str]]:
    """Wins, losses, percentage points and p of each run and benchmark, after a header row."""
    rows = [["#", "benchmark", "n", "wins", "losses", "points", "p"]]
    for number, found in contests.items():
        for test in found.tests:
            counts = (str(test.num_items), str(test.wins), str(test.losses))
            rows.append([str(number), test.benchmark, *counts, f"{test.points:+.1f}", shown_p(test.p)])
    return rows


def shown_p(p: float) -> str:
    """A p-value with three decimals."""
    return f"{p:.3f}" if p >= SMALLEST_P else f"<{SMALLEST_P}"


def methods_table(group: Group) -> Table:
    """The cells of one model and task: accuracy, trained parameters, cost and forgetting."""
    grid = methods_grid(group)
    return _table(group.title, [grid.header, *grid.rows])


def runs_table(finished: Sequence[Run], num_unfinished: int) -> Table:
    """The accuracies of all runs."""
    return _table(f"{len(finished)} finished, {num_unfinished} unfinished", accuracy_rows(finished))


def contest_table(contests: Mapping[int, Contest], baseline: int) -> Table:
    """The paired tests of all runs except the baseline."""
    return _table(f"compared with run {baseline}, on the same items", contest_rows(contests))


def _tests(contests: Mapping[int, Contest], baseline: int) -> Tests:
    header, *rows = contest_rows(contests)
    return Tests(
        grid=Grid(header, rows, num_words=2),
        caption=f"wins: correct where run {baseline} is wrong. {P_EXPLAINED}",
        notes=[f"run {number}: {found.note}" for number, found in contests.items() if found.note],
    )


def _table(title: str, rows: list[list[str]]) -> Table:
    header, *body = rows
    # Names come from files: brackets in them are not markup.
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE)
    for name in header:
        is_word = name in _WORDS
        table.add_column(escape(name), justify="left" if is_word else "right", overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    return table


def _verdicts(run: Run) -> dict[Item, bool] | None:
    return verdicts(run.folder, run.result)


def _percent_or_dash(fraction: float | None) -> str:
    return MISSING if fraction is None else percent(fraction)
