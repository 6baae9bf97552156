"""Figures with lines: accuracy and held-out loss over a setting, and the training loss over the steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy.optimize import isotonic_regression

from neuroada.report.cells import Cell, Group
from neuroada.report.curves import logged_losses
from neuroada.report.drawing import (
    LOG_MARGIN,
    accuracy_axis,
    base_line,
    canvas,
    decades_axis,
    legend_below,
    log_axis,
    rules,
    short_count,
    steps_axis,
)
from neuroada.report.labels import without_shared_words
from neuroada.report.palette import looks
from neuroada.report.selection import short_names, shown_cells, shown_series
from neuroada.report.tables import ACCURACY_DECIMALS, DECIMALS

Curve = Mapping[int, float]
"""Optimizer step -> training loss."""

_LINES = ("-", "--", ":", "-.")
_MARKER_SHARE = 0.035
"""Width of a point, as a share of the axis."""
_LOSS_RATIO_FOR_LOG = 20
"""If losses differ by more than this factor, small ones would overlap on a linear axis."""
_PALEST = 0.35
"""Opacity of the palest of several lines of one method."""


def has_lines(group: Group, setting: Callable[[Cell], Any]) -> bool:
    """Whether a series has cells with several values of a setting, so that a figure over it shows its effect."""
    return any(len({setting(cell) for cell in cells} - {None}) > 1 for cells in group.series.values())


def over_k(group: Group, number: str) -> Any:
    """A number over k, the trained inputs per neuron; below each k its share of all parameters, if it is one share."""
    shares: dict[int, set[float | None]] = {}
    for cell in group.trained:
        if cell.top_k is not None:
            shares.setdefault(cell.top_k, set()).add(cell.percent)
    # With other modules or another method, the same k is a different share.
    is_one_share = all(len(found) == 1 and None not in found for found in shares.values())
    ticks = {k: f"{k}\n{next(iter(found)):.2g}" if is_one_share else str(k) for k, found in sorted(shares.items())}
    what = "k, trained inputs per neuron" + (" (below: % of all parameters)" if is_one_share else "")
    return _over(group, number, lambda cell: cell.top_k, ticks, what)


def over_learning_rate(group: Group, number: str) -> Any:
    """A number over the learning rate; ``group`` is one of ``cells.over_learning_rates``."""
    ticks = {rate: f"{rate:g}" for cell in group.trained if (rate := cell.learning_rate)}
    return _over(group, number, lambda cell: cell.learning_rate, ticks, "learning rate")


def over_parameters(group: Group) -> Any:
    """Macro accuracy over the number of trained parameters."""
    cells = with_parameters(group)
    places = dict(zip(cells, _without_overlap([cell.trainable for cell in cells]), strict=True))
    ticks = {cell.trainable: short_count(cell.trainable) for cell in cells}
    ends = [*places.values(), *ticks]
    limits = (min(ends) / LOG_MARGIN, max(ends) * LOG_MARGIN)
    return _over(group, "macro", places.get, ticks, "trained parameters", limits)


def with_parameters(group: Group) -> list[Cell]:
    """Cells that recorded both an accuracy and the number of trained parameters."""
    return [cell for cell in group.trained if cell.trainable and cell.estimate("macro")]


def _over(
    group: Group,
    number: str,
    place: Callable[[Cell], float | None],
    ticks: Mapping[Any, str],
    what: str,
    limits: tuple[float, float] | None = None,
) -> Any:
    figure, [axes] = canvas()
    found = looks(group.methods)
    lines_of_method: dict[str, int] = {}
    shown = shown_series(group)
    # The sizes of one method are a series; a single one is named with its size.
    labels = without_shared_words([name if len(cells) > 1 else cells[0].label for name, cells in shown.items()])
    for label, cells in zip(labels, shown.values(), strict=True):
        placed = {x: cell for cell in cells if (x := place(cell)) is not None and cell.estimate(number)}
        if not placed:
            continue
        look = found[cells[0].method]
        line = lines_of_method[cells[0].method] = lines_of_method.get(cells[0].method, -1) + 1
        style = {"color": look.colour, "marker": look.marker, "linestyle": _LINES[line % len(_LINES)]}
        _series(axes, placed, number, label, **style, alpha=1 / (1 + line // len(_LINES)))
    base = group.base.estimate(number) if group.base else None
    if group.base and base:
        decimals = DECIMALS.get(number, ACCURACY_DECIMALS)
        base_line(axes, f"base model, {base.mean:.{decimals}f}", base.mean, _bounds(group.base, number))
    log_axis(axes, ticks, what, limits)
    if number == "macro":
        accuracy_axis(axes, "macro accuracy, %")
    else:
        axes.set_ylabel(number)
    rules(axes)
    legend_below(figure, axes)
    return figure


def _series(axes: Any, placed: dict[float, Cell], number: str, label: str, **style: Any) -> None:
    """Means with intervals, and single seeds as faint dots."""
    known = [estimate for cell in placed.values() if (estimate := cell.estimate(number))]
    for x, estimate in zip(placed, known, strict=True):
        if len(estimate.values) > 1:
            dots = [x] * len(estimate.values)
            axes.plot(dots, estimate.values, "o", color=style["color"], alpha=0.35, markersize=6, markeredgewidth=0)
    means = [estimate.mean for estimate in known]
    bounds = [_bounds(cell, number) or (mean, mean) for cell, mean in zip(placed.values(), means, strict=True)]
    # Rounding may put a bound on the wrong side of the mean.
    below = [max(mean - low, 0) for mean, (low, _) in zip(means, bounds, strict=True)]
    above = [max(high - mean, 0) for mean, (_, high) in zip(means, bounds, strict=True)]
    axes.errorbar(list(placed), means, [below, above], capsize=2.5, elinewidth=1, label=label, **style)


def _bounds(cell: Cell, number: str) -> tuple[float, float] | None:
    """The 95 % interval of an accuracy; of another number mean ± standard deviation, None with a single seed."""
    if number == "macro":
        return (cell.interval.low, cell.interval.high) if cell.interval else None
    estimate = cell.estimate(number)
    if estimate is None or estimate.std is None:
        return None
    return estimate.mean - estimate.std, estimate.mean + estimate.std


def _without_overlap(counts: Sequence[int]) -> list[float]:
    """Positions on a logarithmic axis, as close to the counts as possible without overlapping points."""
    gap = _MARKER_SHARE * math.log(LOG_MARGIN**2 * max(counts) / min(counts))
    order = sorted(range(len(counts)), key=lambda number: counts[number])
    crowded = [math.log(counts[number]) - rank * gap for rank, number in enumerate(order)]
    apart = isotonic_regression(crowded).x
    placed = {number: math.exp(apart[rank] + rank * gap) for rank, number in enumerate(order)}
    return [placed[number] for number in range(len(counts))]


def logged_curves(group: Group) -> dict[Cell, list[Curve]]:
    """The training losses of each cell that logged some, one curve a seed."""
    found: dict[Cell, list[Curve]] = {cell: [logged_losses(run.folder) for run in cell.runs] for cell in group.trained}
    return {cell: kept for cell, curves in found.items() if (kept := [curve for curve in curves if curve])}


def is_drawable(curves: Mapping[Cell, Sequence[Curve]]) -> bool:
    """Whether there is a line to draw, rather than only single points."""
    return any(len(curve) > 1 for found in curves.values() for curve in found)


def training_loss(group: Group, curves: Mapping[Cell, Sequence[Curve]]) -> Any:
    """The mean of the seeds as a line, each seed faint; a run that logged once is a point."""
    figure, [axes] = canvas()
    cells = shown_cells(list(curves))
    drawn: list[float] = []
    for cell, name, style in zip(cells, short_names(cells, group), _line_styles(group, cells), strict=True):
        found = curves[cell]
        shared = sorted(set.intersection(*(set(curve) for curve in found)))
        means = [sum(curve[step] for curve in found) / len(found) for step in shared]
        if len(found) > 1:
            for curve in found:
                axes.plot(list(curve), list(curve.values()), color=style["color"], alpha=0.2, linewidth=0.7)
        axes.plot(shared, means, label=name, marker="o" if len(shared) == 1 else "", linewidth=1.3, **style)
        drawn += means
    if drawn and max(drawn) > _LOSS_RATIO_FOR_LOG * min(drawn) > 0:
        decades_axis(axes)
    else:
        axes.set_ylim(0, None)
    axes.set_ylabel("training loss")
    steps_axis(axes)
    rules(axes)
    legend_below(figure, axes)
    return figure


def _line_styles(group: Group, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Colour by method; the cells of one method differ in line style, and become stronger from small to large."""
    found = looks(group.methods)
    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.method, []).append(cell)
    styles = []
    for cell in cells:
        place, count = members[cell.method].index(cell), len(members[cell.method])
        alpha = 1.0 if count == 1 else _PALEST + (1 - _PALEST) * place / (count - 1)
        line = _LINES[(count - 1 - place) % len(_LINES)]
        styles.append({"color": found[cell.method].colour, "linestyle": line, "alpha": alpha})
    return styles
