"""Figures with a row for each setting: the accuracy on every benchmark, and the cost of training."""

from collections.abc import Sequence
from typing import Any

from neuroada.report import speed
from neuroada.report.cells import Cell, Group
from neuroada.report.dot_rows import Dot, Panel, dot_rows
from neuroada.report.palette import BASE_COLOUR, Look, looks
from neuroada.report.selection import short_names, shown_cells
from neuroada.report.tables import ACCURACY_DECIMALS, DECIMALS

_PERCENT = (-3.0, 103.0)
"""Ends of an axis of accuracies, with room for the markers; a correlation can be negative."""
_COSTS = {
    "step ms": ("optimizer step, ms", "mean time of an optimizer step"),
    "tokens/s": ("training tokens/s", "training speed (without padding)"),
    "peak GiB": ("peak memory, GiB", "peak memory of the fit"),
    "forgetting": ("forgetting, nats", "rise of the loss on general text"),
}


def benchmarks(group: Group) -> Any:
    """A panel for the macro average and for each benchmark."""
    cells = shown_cells(group.cells)
    panels = [_accuracies_of(cells, name) for name in _accuracy_names(group)]
    return dot_rows(short_names(cells, group), _looks(group, cells), panels)


def _accuracies_of(cells: Sequence[Cell], name: str) -> Panel:
    dots = [_accuracy(cell, name) for cell in cells]
    lowest, highest = _PERCENT
    is_negative = any(value < 0 for dot in dots for value in dot.values)
    return Panel(name, dots, (lowest - 100 if is_negative else lowest, highest))


def _accuracy_names(group: Group) -> list[str]:
    """The benchmarks, after their macro average if there are several."""
    return [*(["macro"] if len(group.benchmarks) > 1 else []), *group.benchmarks]


def _accuracy(cell: Cell, name: str) -> Dot:
    estimate, interval = cell.estimate(name), cell.interval_of(name)
    if estimate is None:
        return Dot("not scored")
    bounds = (interval.low, interval.high) if interval else None
    return Dot(f"{estimate.mean:.{ACCURACY_DECIMALS}f}", estimate.values, estimate.mean, bounds)


def cost_numbers(group: Group) -> list[str]:
    """The known costs of training; speed is the time of a step, or tokens per second if no step was timed."""
    known = [number for number in _COSTS if any(_is_shown(cell, number) for cell in group.trained)]
    return [number for number in known if number != "tokens/s" or "step ms" not in known]


def cost_caption(group: Group) -> str:
    """What the panels show."""
    sentence = ", ".join(_COSTS[number][1] for number in cost_numbers(group))
    return f"{sentence[0].upper()}{sentence[1:]}. A large dot is the mean of the seeds, with its value on the right."


def costs(group: Group) -> Any:
    """A panel for each of ``cost_numbers``, with a row for each cell that trains."""
    numbers = cost_numbers(group)
    cells = shown_cells([cell for cell in group.trained if any(_is_shown(cell, number) for number in numbers)])
    panels = [Panel(_COSTS[number][0], [_cost(cell, number) for cell in cells]) for number in numbers]
    return dot_rows(short_names(cells, group), _looks(group, cells), panels)


def _is_shown(cell: Cell, number: str) -> bool:
    return cell.estimate(number) is not None and not speed.is_marked(number, cell.runs)


def _cost(cell: Cell, number: str) -> Dot:
    estimate = cell.estimate(number)
    if estimate is None:
        return Dot("not recorded")
    if not _is_shown(cell, number):
        return Dot("busy machine")
    return Dot(f"{estimate.mean:,.{DECIMALS[number]}f}", estimate.values, estimate.mean)


def _looks(group: Group, cells: list[Cell]) -> list[Look]:
    found = looks(group.methods)
    return [Look(BASE_COLOUR, "o") if cell.is_base else found[cell.method] for cell in cells]
