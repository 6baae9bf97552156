"""``job=compare``: one table over many runs, a paired test of each against a baseline, and the report of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.report.document import Tests, write_report
from neuroada.report.grids import Grid
from neuroada.report.significance import Contest, contest, verdicts
from neuroada.report.summary import percent
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.listing import Status, read_runs

MISSING = "-"
UNBOUNDED_WIDTH = 10_000
"""Columns of an output that is no terminal: what is piped on must not be folded."""
SMALLEST_P = 0.001
"""Smaller chances are shown as being smaller."""
P_EXPLAINED = "p: McNemar's exact test, not corrected for the number of comparisons"

Results = Mapping[Path, dict[str, Any]]


def compare(run: RunConfig, folder: Path) -> None:
    """Print the finished runs below ``runs`` and how each does beside a baseline, and write the report into ``folder``.

    Raises:
        UserError: None is finished, a result or a predictions file is damaged, or the baseline is none of the runs.
    """
    root = Path(run.runs)
    found = read_runs(root)
    results = {one.folder: dict(one.result) for one in found if one.status is Status.FINISHED}
    if not results:
        raise UserError(
            f"runs={run.runs}: no finished run below this folder (a run is finished when it has {RESULT_FILE})"
        )
    baseline = baseline_number(list(results), run.baseline)
    contests = contests_with(baseline, results)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_WIDTH
    show(console, results, len(found) - len(results), contests, baseline)
    report = write_report(folder, root, found, _tests(contests, baseline))
    console.print(f"report: {report}", soft_wrap=True)


def show(
    console: Console, results: Results, num_unfinished: int, contests: Mapping[int, Contest], baseline: int
) -> None:
    """Print the tables, and what must be said of them."""
    console.print(comparison_table(results, num_unfinished))
    for number, path in enumerate(results, start=1):
        console.print(f"{number:>3}  {path}", soft_wrap=True, markup=False)
    tests = _tests(contests, baseline)
    if tests.grid.rows:
        console.print(contest_table(contests, baseline))
        console.print(tests.caption, soft_wrap=True)
    for note in tests.notes:
        console.print(note, soft_wrap=True)


def baseline_number(folders: list[Path], baseline: str | None) -> int:
    """Number of the run that the others are compared with, from 1; the first unless ``baseline`` names one.

    Raises:
        UserError: It names none of the runs.
    """
    if baseline is None:
        return 1
    wanted = Path(baseline).resolve()
    for number, path in enumerate(folders, start=1):
        if path.resolve() == wanted:
            return number
    raise UserError(f"baseline={baseline}: none of the finished runs; give a run folder below runs=")


def contests_with(baseline: int, results: Results) -> dict[int, Contest]:
    """Number of a run -> how it does beside the baseline; nothing where the baseline kept no predictions."""
    numbered = dict(enumerate(results.items(), start=1))
    there = verdicts(*numbered.pop(baseline))
    if there is None:
        return {}
    return {number: contest(verdicts(*run), there) for number, run in numbered.items()}


def accuracy_rows(results: Results) -> list[list[str]]:
    """Numbered runs and their accuracy by benchmark, a header first; a dash where a run has no such number."""
    benchmarks = list(dict.fromkeys(name for result in results.values() for name in _scores(result)))
    rows = [["#", "% trained", *benchmarks, "macro"]]
    for number, result in enumerate(results.values(), start=1):
        scores = _scores(result)
        share = result.get("budget", {}).get("percent")
        accuracies = [_percent_or_dash(scores.get(name, {}).get("protocol")) for name in benchmarks]
        macro = _percent_or_dash(result.get("metrics", {}).get("macro"))
        rows.append([str(number), MISSING if share is None else f"{share:.3f}", *accuracies, macro])
    return rows


def contest_rows(contests: Mapping[int, Contest]) -> list[list[str]]:
    """Wins, losses, percentage points and p of each run and benchmark, a header first."""
    rows = [["#", "benchmark", "n", "wins", "losses", "points", "p"]]
    for number, found in contests.items():
        for test in found.tests:
            counts = (str(test.num_items), str(test.wins), str(test.losses))
            rows.append([str(number), test.benchmark, *counts, f"{test.points:+.1f}", shown_p(test.p)])
    return rows


def shown_p(p: float) -> str:
    """A chance with three decimals."""
    return f"{p:.3f}" if p >= SMALLEST_P else f"<{SMALLEST_P}"


def comparison_table(results: Results, num_unfinished: int) -> Table:
    """The accuracies of all runs."""
    return _table(f"{len(results)} finished, {num_unfinished} unfinished", accuracy_rows(results))


def contest_table(contests: Mapping[int, Contest], baseline: int) -> Table:
    """The paired tests of all runs but the baseline."""
    return _table(f"beside run {baseline}, on the same items", contest_rows(contests))


def _tests(contests: Mapping[int, Contest], baseline: int) -> Tests:
    header, *rows = contest_rows(contests)
    return Tests(
        grid=Grid(header, rows, num_words=2),
        caption=f"wins: right where run {baseline} is wrong. {P_EXPLAINED}",
        notes=[f"run {number}: {found.note}" for number, found in contests.items() if found.note],
    )


def _table(title: str, rows: list[list[str]]) -> Table:
    header, *body = rows
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in header:
        table.add_column(name, justify="left" if name == "benchmark" else "right", overflow="fold")
    for row in body:
        table.add_row(*row)
    return table


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = result.get("metrics", {}).get("benchmarks", {})
    return scores


def _percent_or_dash(fraction: float | None) -> str:
    return MISSING if fraction is None else percent(fraction)
