"""The tables of a comparison on a terminal."""

from collections.abc import Callable, Sequence

import pandas
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuroada.report import speed
from neuroada.report.cells import Cell, Group, in_order
from neuroada.report.summary import percent
from neuroada.report.tables import DECIMALS
from neuroada.runs.listing import Run

MISSING = "-"
_UNBOUNDED_WIDTH = 10_000
_WORDS = {"model", "method", "differs in", "benchmark", "on"}
"""Left-aligned columns."""
_COSTS = ("held-out loss", "step ms", "peak GiB", "forgetting")


def settings_tables(groups: Sequence[Group]) -> list[Table]:
    """A table for each task and set of benchmarks: a row for each setting of each model, the best macro first."""
    by_task: dict[tuple[str, tuple[str, ...]], list[Group]] = {}
    for group in groups:
        by_task.setdefault((group.task, group.benchmarks), []).append(group)
    return [
        table_of(settings_frame(members), f"{task}: macro of {', '.join(benchmarks)}" if benchmarks else task)
        for (task, benchmarks), members in by_task.items()
    ]


def settings_frame(groups: Sequence[Group]) -> pandas.DataFrame:
    """The settings of groups with the same benchmarks, sorted by macro accuracy; without columns that say nothing."""
    columns: dict[str, Callable[[Group, Cell], str]] = {
        "model": lambda group, cell: group.model,
        "method": lambda group, cell: cell.names.stem,
        "macro": lambda group, cell: _estimate(cell, "macro"),
        "95 %": lambda group, cell: MISSING if cell.interval is None else cell.interval.text,
        "k": lambda group, cell: _text(cell.top_k),
        "lr": lambda group, cell: _text(cell.learning_rate),
        "differs in": lambda group, cell: " ".join(_other_parts(cell)) or MISSING,
        "seeds": lambda group, cell: ",".join(_text(run.setting("seed")) for run in cell.runs),
        "trained": lambda group, cell: f"{cell.trainable:,}",
        "wanted": lambda group, cell: MISSING if cell.wanted is None else f"{cell.wanted:,}",
        **{name: lambda group, cell, name=name: _estimate(cell, name) for name in _COSTS},  # type: ignore[misc]
    }
    members = [(group, cell) for group in groups for cell in group.cells]
    members.sort(key=lambda member: _rank(member[1]))
    rows = [[read(group, cell) for read in columns.values()] for group, cell in members]
    frame = pandas.DataFrame(rows, columns=list(columns))
    return frame.loc[:, (frame != MISSING).any()]


def runs_table(finished: Sequence[Run], groups: Sequence[Group], num_unfinished: int) -> Table:
    """The runs by number, with their macro accuracy and that of each benchmark."""
    frame = runs_frame(finished, groups)
    return table_of(frame, f"{len(finished)} finished, {num_unfinished} unfinished")


def runs_frame(finished: Sequence[Run], groups: Sequence[Group]) -> pandas.DataFrame:
    """Numbered runs and their accuracies; a dash where a run has no score."""
    places = {id(run): (group, cell) for group in groups for cell in group.cells for run in cell.runs}
    benchmarks = in_order(name for run in finished for name in run.scores)
    rows = []
    for number, run in enumerate(finished, start=1):
        group, cell = places.get(id(run), (None, None))
        rows.append(
            {
                "#": str(number),
                "on": group.title if group else f"{run.model} on {run.task}",
                "method": cell.label if cell else f"{run.label} (repeated)",
                "seed": _text(run.setting("seed")),
                "macro": _percent(run.outcome("metrics.macro")),
                **{name: _percent(run.scores.get(name, {}).get("protocol")) for name in benchmarks},
            }
        )
    frame = pandas.DataFrame(rows)
    return frame if len(groups) > 1 else frame.drop(columns="on")


def console_for_tables() -> Console:
    """A console whose tables are not wrapped where the output is not a terminal but piped."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED_WIDTH
    return console


def table_of(frame: pandas.DataFrame, title: str) -> Table:
    """A frame of texts as a table."""
    # Names come from files: brackets in them are not markup.
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE)
    for name in frame.columns:
        table.add_column(escape(name), justify="left" if name in _WORDS else "right", overflow="fold")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*map(escape, row))
    return table


def _other_parts(cell: Cell) -> list[str]:
    """The settings that tell the cell from others, without the learning rate, which has its own column."""
    return [part for part in cell.names.parts if part != f"lr={cell.learning_rate}"]


def _rank(cell: Cell) -> tuple[bool, float]:
    """Sort key: the best first, those without a score last."""
    macro = cell.estimate("macro")
    return macro is None, 0.0 if macro is None else -macro.mean


def _estimate(cell: Cell, name: str) -> str:
    found = cell.estimate(name)
    if found is None:
        return MISSING
    return found.text(DECIMALS.get(name, 1)) + (f" {speed.MARK}" if speed.is_marked(name, cell.runs) else "")


def _percent(fraction: float | None) -> str:
    return MISSING if fraction is None else percent(fraction)


def _text(value: object) -> str:
    return MISSING if value is None else str(value)
