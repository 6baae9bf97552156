"""The figures of a comparison."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroada.report.cells import Cell, Group, over_learning_rates
from neuroada.report.curves import logged_losses
from neuroada.report.drawing import (
    FAINT,
    INK,
    PANEL_INCHES,
    WIDE_PANEL_INCHES,
    WIDEST_INCHES,
    Figure,
    decades_axis,
    legend_beside,
    legend_inches,
    lines,
    log_axis,
    name_lines,
    panels,
    rules,
    saved,
    shades,
    short_count,
    short_name,
    shown_k,
    steps_axis,
    style,
)
from neuroada.report.method_figures import (
    accuracy_caption,
    accuracy_of_methods,
    cells_over_parameters,
    cost_caption,
    cost_numbers,
    costs,
)

_LETTER_INCHES = 0.07
"""Width of a letter in a benchmark's name, including its share of the space around the name."""
_LOSS_RATIO_FOR_LOG = 20
"""If losses differ by more than this factor, small ones would overlap on a linear axis."""


def draw(group: Group, folder: Path) -> list[Figure]:
    """Write the figures for which a group's runs have numbers, as ``<folder>/<name>.svg`` and ``.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]+", "_", f"{group.model}-{group.task}")
    with style():
        return [saved(picture, folder, f"{kind}-{stem}", caption) for kind, picture, caption in _pictures(group)]


def _pictures(group: Group) -> Iterator[tuple[str, Any, str]]:
    """Kind, matplotlib figure and caption of each figure that can be drawn."""
    if len({cell.top_k for cell in group.trained} - {None}) > 1:
        yield "accuracy_over_k", _accuracy_over_k(group), _caption_over_k(group)
    by_rate = over_learning_rates(group)
    if by_rate is not None:
        yield "accuracy_over_lr", _accuracy_over_lr(by_rate), _caption_over_lr(by_rate)
    if len({cell.first.method for cell in cells_over_parameters(group)}) > 1:
        yield "methods", accuracy_of_methods(group), accuracy_caption(group)
    elif len({cell.trainable for cell in group.trained}) > 1:
        caption = f"Macro accuracy over the number of trained parameters; {_seeds(group)}."
        yield "accuracy_over_parameters", _accuracy_over_parameters(group), caption
    if group.benchmarks:
        yield "benchmarks", _benchmarks(group), f"Accuracy by benchmark; {_seeds(group, '')}."
    curves = {cell: [logged_losses(run.folder) for run in cell.runs] for cell in group.trained}
    curves = {cell: kept for cell, found in curves.items() if (kept := [curve for curve in found if len(curve) > 1])}
    if curves:
        caption = "Training loss of an optimizer step: mean over seeds, each seed faint."
        yield "training_loss", _training_loss(group, curves), caption
    if cost_numbers(group):
        yield "cost", costs(group), cost_caption(group)


def _seeds(group: Group, dots: str = ", each seed a faint dot") -> str:
    counts = sorted({len(cell.runs) for cell in group.trained} or {1})
    if counts == [1]:
        return "one seed each"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean and standard deviation over {span} seeds{dots}"


def _caption_over_k(group: Group) -> str:
    loss = " Right: loss on held-out training examples." if group.has("held-out loss") else ""
    base = "; dashed: the base model" if group.base else ""
    return f"Macro accuracy over k, the trained inputs per neuron; {_seeds(group)}{base}.{loss}"


def _caption_over_lr(group: Group) -> str:
    loss = " and loss on held-out training examples" if group.has("held-out loss") else ""
    return f"Macro accuracy{loss} over the learning rate; {_seeds(group)}."


def _numbers(group: Group) -> list[str]:
    return [number for number in ("macro", "held-out loss") if group.has(number)]


def _inches(group: Group) -> tuple[float, float]:
    """Size of a panel: two wide ones fill the page, or three if one shows the held-out loss."""
    return PANEL_INCHES if group.has("held-out loss") else WIDE_PANEL_INCHES


def _accuracy_over_k(group: Group) -> Any:
    numbers = _numbers(group)
    figure, parts = panels(len(numbers), inches=_inches(group))
    ends = [lines(axes, group, number, lambda cell: cell.top_k) for axes, number in zip(parts, numbers, strict=True)]
    shares: dict[int, set[float | None]] = {}
    for cell in group.trained:
        if cell.top_k is not None:
            shares.setdefault(cell.top_k, set()).add(cell.percent)
    # With other modules or another method, the same k is a different share.
    known = {top_k: f"{next(iter(found)):.3g}" for top_k, found in sorted(shares.items()) if _is_one_number(found)}
    for axes in parts:
        log_axis(axes, {top_k: str(top_k) for top_k in sorted(shares)}, "k, trained inputs per neuron")
        if len(known) == len(shares):
            _shares_above(axes, known)
    if len(group.series) > 1:
        name_lines(figure, parts, ends)
    return figure


def _is_one_number(found: set[float | None]) -> bool:
    return len(found) == 1 and None not in found


def _shares_above(axes: Any, shares: dict[int, str]) -> None:
    """A second axis at the top, with ticks at the same positions."""
    above = axes.twiny()
    above.spines[["bottom", "left"]].set_visible(False)
    log_axis(above, shares, "trained parameters, %", limits=axes.get_xlim())
    above.tick_params(length=0, labelcolor=FAINT)
    above.xaxis.label.set_color(FAINT)


def _accuracy_over_lr(group: Group) -> Any:
    numbers = _numbers(group)
    figure, parts = panels(len(numbers))
    rates = {rate: f"{rate:g}" for cell in group.trained if (rate := cell.learning_rate)}
    ends = []
    for axes, number in zip(parts, numbers, strict=True):
        ends.append(lines(axes, group, number, lambda cell: cell.learning_rate))
        log_axis(axes, rates, "learning rate")
    if len(group.series) > 1:
        name_lines(figure, parts, ends)
    return figure


def _accuracy_over_parameters(group: Group) -> Any:
    figure, [axes] = panels(1, inches=_inches(group))
    ends = lines(axes, group, "macro", lambda cell: cell.trainable or None, note=shown_k)
    counts = {cell.trainable: short_count(cell.trainable) for cell in group.trained if cell.trainable}
    log_axis(axes, counts, "trained parameters")
    if len(group.series) > 1:
        name_lines(figure, [axes], [ends])
    return figure


def _benchmarks(group: Group) -> Any:
    names = [*group.benchmarks, "macro"]
    cells = [cell for cell in group.cells if any(cell.estimate(name) for name in names)]
    width = 0.84 / len(cells)
    labels = [short_name(cell, group) for cell in cells]
    names_inches = _LETTER_INCHES * max(map(len, names)) * len(names)
    bars_inches = max(2.6, 0.55 * len(names), 0.13 * len(names) * (len(cells) + 2))
    is_crowded = len(names) > 5 or names_inches > PANEL_INCHES[0]
    if not is_crowded:
        bars_inches = max(bars_inches, names_inches)
    figure, [axes] = panels(1, inches=(min(bars_inches + legend_inches(labels), WIDEST_INCHES), PANEL_INCHES[1]))
    for number, (cell, colour) in enumerate(zip(cells, shades(group, cells), strict=True)):
        found = {place: cell.estimate(name) for place, name in enumerate(names)}
        bars = {place + (number - (len(cells) - 1) / 2) * width: known for place, known in found.items() if known}
        heights, spreads = [known.mean for known in bars.values()], [known.std or 0 for known in bars.values()]
        axes.bar(list(bars), heights, 0.9 * width, color=colour, label=labels[number])
        if any(spreads):
            axes.errorbar(list(bars), heights, spreads, fmt="none", ecolor=INK, elinewidth=0.7)
    slant: dict[str, Any] = {"rotation": 20, "ha": "right"} if is_crowded else {}
    axes.set_xticks(range(len(names)), names, **slant)
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel="accuracy, %", ylim=(0, 100))
    rules(axes)
    legend_beside(figure, [axes])
    return figure


def _training_loss(group: Group, curves: dict[Cell, list[dict[int, float]]]) -> Any:
    figure, [axes] = panels(1, inches=WIDE_PANEL_INCHES)
    drawn: list[float] = []
    for (cell, found), colour in zip(curves.items(), shades(group, list(curves)), strict=True):
        shared = sorted(set.intersection(*(set(curve) for curve in found)))
        means = [sum(curve[step] for curve in found) / len(found) for step in shared]
        if len(found) > 1:
            for curve in found:
                axes.plot(list(curve), list(curve.values()), color=colour, alpha=0.25, linewidth=0.7)
        axes.plot(shared, means, color=colour, label=short_name(cell, group), linewidth=1.3)
        drawn += means
    if drawn and max(drawn) > _LOSS_RATIO_FOR_LOG * min(drawn) > 0:
        decades_axis(axes)
    else:
        axes.set_ylim(0, None)
    axes.set_ylabel("training loss")
    steps_axis(axes)
    rules(axes)
    legend_beside(figure, [axes])
    return figure
