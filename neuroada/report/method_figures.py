"""Figures that compare methods: accuracy over trained parameters, and the cost of training."""

import math
from collections.abc import Sequence
from typing import Any

from scipy.optimize import isotonic_regression

from neuroada.report.cells import Cell, Group
from neuroada.report.drawing import (
    FAINT,
    INK,
    LOG_MARGIN,
    Look,
    accuracy_axis,
    annotate,
    base_line,
    legend_beside,
    legend_inches,
    log_axis,
    looks,
    panels,
    rules,
    shades,
    short_count,
    short_name,
    wrapped,
)
from neuroada.report.grids import DECIMALS

_INCHES = (5.0, 3.6)
"""Size without the legend."""
_MARKER_SHARE = 0.035
"""Width of a point, as a share of the axis."""
_COSTS = {
    "step ms": "optimizer step, ms",
    "tokens/s": "training tokens per second",
    "peak GiB": "peak memory, GiB",
    "forgetting": "forgetting, nats",
}


def cells_over_parameters(group: Group) -> list[Cell]:
    """Cells that recorded both an accuracy and the number of trained parameters."""
    return [cell for cell in group.trained if cell.trainable and cell.estimate("macro")]


def accuracy_caption(group: Group) -> str:
    """What the figure shows, and what its bars mean."""
    kinds = {"over the seeds (Student)" if len(cell.runs) > 1 else "over the items (Wilson)" for cell in group.trained}
    bars = " or, of a single seed, ".join(sorted(kinds, reverse=True))
    base = " Dashed: the base model." if group.base else ""
    return (
        f"Macro accuracy of each method over the number of trained parameters. Bars: 95 % interval {bars}.{base} "
        "Points that would overlap are moved apart horizontally."
    )


def accuracy_of_methods(group: Group) -> Any:
    """A point with its 95 % interval for each cell; the sizes of one method share colour, marker and line."""
    cells = cells_over_parameters(group)
    places = dict(zip(cells, _without_overlap([cell.trainable for cell in cells]), strict=True))
    members = {name: [cell for cell in found if cell in places] for name, found in group.series.items()}
    labels = {name: _label(name, found) for name, found in members.items() if found}
    figure, [axes] = panels(1, inches=(_INCHES[0] + legend_inches(list(labels.values())), _INCHES[1]))
    for name, label in labels.items():
        _method(axes, {cell: places[cell] for cell in members[name]}, looks(group)[name], label)
    ends = [*places.values(), *(cell.trainable for cell in cells)]
    ticks = {cell.trainable: short_count(cell.trainable) for cell in cells}
    log_axis(axes, ticks, "trained parameters", limits=(min(ends) / LOG_MARGIN, max(ends) * LOG_MARGIN))
    base_line(axes, group, "macro")
    accuracy_axis(axes, "macro accuracy, %")
    rules(axes)
    legend_beside(figure, [axes])
    return figure


def _label(series: str, cells: Sequence[Cell]) -> str:
    """In the legend: the method, and its size if the figure has only one."""
    return wrapped(series if len(cells) > 1 else cells[0].label)


def _method(axes: Any, places: dict[Cell, float], look: Look, label: str) -> None:
    heights = [estimate.mean for cell in places if (estimate := cell.estimate("macro"))]
    axes.plot(list(places.values()), heights, look.marker, color=look.colour, markersize=6, label=label)
    axes.plot(list(places.values()), heights, color=look.colour, linewidth=0.8, alpha=0.6)
    for (cell, place), mean in zip(places.items(), heights, strict=True):
        low, high = (cell.interval.low, cell.interval.high) if cell.interval else (mean, mean)
        reach = [[max(mean - low, 0)], [max(high - mean, 0)]]  # rounding may put a bound on the wrong side
        axes.errorbar(place, mean, reach, fmt="none", ecolor=look.colour, capsize=2.5, elinewidth=1)
        if len(places) > 1:
            annotate(axes, _size(cell), (place, high), (0, 3), fontsize=7.5, color=look.colour, ha="center")


def _size(cell: Cell) -> str:
    """``r8`` of ``lora-r8``."""
    return cell.label.partition(" ")[0].removeprefix(cell.first.method).removeprefix("-")


def _without_overlap(counts: Sequence[int]) -> list[float]:
    """Positions on a logarithmic axis, as close to the counts as possible without overlapping points."""
    gap = _MARKER_SHARE * math.log(LOG_MARGIN**2 * max(counts) / min(counts))
    order = sorted(range(len(counts)), key=lambda number: counts[number])
    crowded = [math.log(counts[number]) - rank * gap for rank, number in enumerate(order)]
    apart = isotonic_regression(crowded).x
    placed = {number: math.exp(apart[rank] + rank * gap) for rank, number in enumerate(order)}
    return [placed[number] for number in range(len(counts))]


def cost_numbers(group: Group) -> list[str]:
    """The known costs of training; speed is the time of a step, or tokens per second if no step was timed."""
    known = [number for number in _COSTS if any(cell.estimate(number) for cell in group.trained)]
    return [number for number in known if number != "tokens/s" or "step ms" not in known]


def cost_caption(group: Group) -> str:
    """What the panels show."""
    shown = {
        "step ms": "mean time of an optimizer step",
        "tokens/s": "training speed (without padding)",
        "peak GiB": "peak memory of the fit",
        "forgetting": "rise of the loss on general text",
    }
    sentence = ", ".join(shown[number] for number in cost_numbers(group))
    return f"{sentence[0].upper()}{sentence[1:]}. A dot is a run, a bar the mean of the runs."


def costs(group: Group) -> Any:
    """A panel for each of ``cost_numbers``, with a bar for each cell that trains."""
    numbers = cost_numbers(group)
    cells = [cell for cell in group.trained if any(cell.estimate(number) for number in numbers)]
    names = [short_name(cell, group) for cell in cells]
    row_inches = 0.13 + 0.14 * max(name.count("\n") + 1 for name in names)
    figure, parts = panels(len(numbers), inches=(3.3, 0.9 + row_inches * len(cells)))
    colours = shades(group, cells)
    for axes, number in zip(parts, numbers, strict=True):
        for place, (cell, colour) in enumerate(zip(cells, colours, strict=True)):
            _bar(axes, place, cell, number, colour)
        axes.set_yticks(range(len(cells)), names if axes is parts[0] else [])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.set_xlabel(_COSTS[number])
        axes.margins(x=0.16)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set_xticks([])
    return figure


def _bar(axes: Any, place: int, cell: Cell, number: str, colour: Any) -> None:
    estimate = cell.estimate(number)
    if estimate is None:
        annotate(axes, "not recorded", (0, place), (4, 0), va="center", fontsize=8, color=FAINT)
        return
    axes.barh(place, estimate.mean, 0.62, color=colour, alpha=0.85)
    axes.plot(estimate.values, [place] * len(estimate.values), "o", color=INK, markersize=2.2, alpha=0.6)
    text = f"{estimate.mean:,.{DECIMALS[number]}f}"
    annotate(axes, text, (max(0, *estimate.values), place), (4, 0), va="center", fontsize=8)
