"""Which cells of a group a figure shows, and their names in it: a figure with sixty rows shows nothing."""

from collections.abc import Sequence

from neuroada.report.cells import Cell, Group
from neuroada.report.labels import without_shared_words

MOST_CELLS = 12
"""More lines cannot be told apart, and more rows do not fit on a screen."""


def shown_cells(cells: Sequence[Cell]) -> list[Cell]:
    """All cells, or the base, the best of each method, and then the best of all; in their order."""
    if len(cells) <= MOST_CELLS:
        return list(cells)
    ranked = sorted(cells, key=lambda cell: (not cell.is_base, -_score(cell)))
    best_of_each = {cell.method: cell for cell in reversed(ranked)}
    first = sorted(best_of_each.values(), key=ranked.index)
    chosen = [*first, *(cell for cell in ranked if cell not in first)][:MOST_CELLS]
    return [cell for cell in cells if cell in chosen]


def shown_series(group: Group) -> dict[str, list[Cell]]:
    """All series, or those with the best cells."""
    if len(group.series) <= MOST_CELLS:
        return group.series
    best = sorted(group.series, key=lambda name: -max(map(_score, group.series[name])))[:MOST_CELLS]
    return {name: cells for name, cells in group.series.items() if name in best}


def remark(group: Group) -> str:
    """What figures leave out; empty if they show all settings."""
    if len(group.cells) <= MOST_CELLS:
        return ""
    return (
        f"A figure shows at most {MOST_CELLS} of the {len(group.cells)} settings, with a row or a line each: the base, "
        "the best of each method, then the highest macro accuracies. The table has all"
    )


def short_names(cells: Sequence[Cell], group: Group) -> list[str]:
    """The shortest names that distinguish the cells within their group: ``k=5``, or labels without shared words."""
    trained = [cell for cell in cells if not cell.is_base]
    if len(group.series) == 1 and len({cell.top_k for cell in group.trained} - {None}) == len(group.trained):
        short = [f"k={cell.top_k}" for cell in trained]
    else:
        short = without_shared_words([cell.label for cell in trained])
    named = dict(zip(trained, short, strict=True))
    return [named.get(cell, cell.label) for cell in cells]


def _score(cell: Cell) -> float:
    macro = cell.estimate("macro")
    return -1.0 if macro is None else macro.mean
