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
    annotate,
    decades_axis,
    fitting,
    lines,
    log_axis,
    panels,
    rules,
    saved,
    shades,
    shown_k,
    steps_axis,
    style,
)

_LETTER_INCHES = 0.07
"""Width of a letter of a benchmark's name, with its share of the room around the name."""
_LOSS_RATIO_FOR_LOG = 20
"""Where losses differ by more, a linear axis would lay the smaller ones on each other."""


def draw(group: Group, folder: Path) -> list[Figure]:
    """Write the figures of a group that its runs have numbers for, as ``<folder>/<name>.svg`` and ``.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]+", "_", f"{group.model}-{group.task}")
    with style():
        return [saved(picture, folder, f"{kind}-{stem}", caption) for kind, picture, caption in _pictures(group)]


def _pictures(group: Group) -> Iterator[tuple[str, Any, str]]:
    """Kind, matplotlib figure and caption of each that can be drawn."""
    if len({cell.top_k for cell in group.trained} - {None}) > 1:
        yield "accuracy_over_k", _accuracy_over_k(group), _caption_over_k(group)
    by_rate = over_learning_rates(group)
    if by_rate is not None:
        yield "accuracy_over_lr", _accuracy_over_lr(by_rate), _caption_over_lr(by_rate)
    if len({cell.trainable for cell in group.trained}) > 1:
        caption = f"Macro accuracy over the number of trained parameters; {_seeds(group)}."
        yield "accuracy_over_parameters", _accuracy_over_parameters(group), caption
    if group.benchmarks:
        yield "benchmarks", _benchmarks(group), f"Accuracy by benchmark; {_seeds(group, '')}."
    curves = {cell: [logged_losses(run.folder) for run in cell.runs] for cell in group.trained}
    curves = {cell: kept for cell, found in curves.items() if (kept := [curve for curve in found if curve])}
    if curves:
        caption = "Training loss of an optimizer step: mean over seeds, each seed faint."
        yield "training_loss", _training_loss(group, curves), caption
    if group.has("tokens/s") or group.has("peak GiB"):
        caption = "Training speed (padding apart) and peak memory of the fit; a dot is a run, a bar their mean."
        yield "cost", _cost(group), caption


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
    """Of a panel; three of them, one for the held-out loss, fill a line of the page, or two wide ones."""
    return PANEL_INCHES if group.has("held-out loss") else WIDE_PANEL_INCHES


def _accuracy_over_k(group: Group) -> Any:
    numbers = _numbers(group)
    figure, parts = panels(len(numbers), inches=_inches(group))
    for axes, number in zip(parts, numbers, strict=True):
        lines(axes, group, number, lambda cell: cell.top_k)
        ticks = {cell.top_k: cell.percent for cell in group.trained if cell.top_k is not None}
        log_axis(axes, {top_k: str(top_k) for top_k in sorted(ticks)}, "k, trained inputs per neuron")
        _shares_above(axes, {top_k: f"{share:.3g}" for top_k, share in sorted(ticks.items()) if share is not None})
    return figure


def _shares_above(axes: Any, shares: dict[int, str]) -> None:
    """A second axis at the top, in the same places."""
    above = axes.twiny()
    above.spines[["bottom", "left"]].set_visible(False)
    log_axis(above, shares, "trained parameters, %", limits=axes.get_xlim())
    above.tick_params(length=0, labelcolor=FAINT)
    above.xaxis.label.set_color(FAINT)


def _accuracy_over_lr(group: Group) -> Any:
    numbers = _numbers(group)
    figure, parts = panels(len(numbers))
    rates = {rate: f"{rate:g}" for cell in group.trained if (rate := cell.learning_rate)}
    for axes, number in zip(parts, numbers, strict=True):
        lines(axes, group, number, lambda cell: cell.learning_rate)
        log_axis(axes, rates, "learning rate")
    return figure


def _accuracy_over_parameters(group: Group) -> Any:
    figure, [axes] = panels(1, inches=_inches(group))
    lines(axes, group, "macro", lambda cell: cell.trainable or None, note=lambda cell: shown_k(cell))
    counts = {cell.trainable: _short(cell.trainable) for cell in group.trained if cell.trainable}
    log_axis(axes, counts, "trained parameters")
    return figure


def _benchmarks(group: Group) -> Any:
    names = [*group.benchmarks, "macro"]
    cells = [cell for cell in group.cells if any(cell.estimate(name) for name in names)]
    width = 0.84 / len(cells)
    labels = [_name(cell, group) for cell in cells]
    names_inches = _LETTER_INCHES * max(map(len, names)) * len(names)
    bars_inches = max(2.6, 0.55 * len(names), 0.13 * len(names) * (len(cells) + 2))
    legend_inches = 1 + 0.07 * max(map(len, labels))
    is_crowded = len(names) > 5 or names_inches > PANEL_INCHES[0]
    if not is_crowded:
        bars_inches = max(bars_inches, names_inches)
    figure, [axes] = panels(1, inches=(min(bars_inches + legend_inches, WIDEST_INCHES), PANEL_INCHES[1]))
    for number, (cell, colour) in enumerate(zip(cells, shades(cells), strict=True)):
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
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _training_loss(group: Group, curves: dict[Cell, list[dict[int, float]]]) -> Any:
    figure, [axes] = panels(1, inches=WIDE_PANEL_INCHES)
    drawn: list[float] = []
    for (cell, found), colour in zip(curves.items(), shades(list(curves)), strict=True):
        shared = sorted(set.intersection(*(set(curve) for curve in found)))
        means = [sum(curve[step] for curve in found) / len(found) for step in shared]
        if len(found) > 1:
            for curve in found:
                axes.plot(list(curve), list(curve.values()), color=colour, alpha=0.25, linewidth=0.7)
        axes.plot(shared, means, color=colour, label=_name(cell, group), linewidth=1.3)
        drawn += means
    if drawn and max(drawn) > _LOSS_RATIO_FOR_LOG * min(drawn) > 0:
        decades_axis(axes)
    else:
        axes.set_ylim(0, None)
    axes.set_ylabel("training loss")
    steps_axis(axes)
    rules(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _cost(group: Group) -> Any:
    numbers = [number for number in ("tokens/s", "peak GiB") if group.has(number)]
    names = {"tokens/s": "training tokens per second", "peak GiB": "peak memory, GiB"}
    cells = [cell for cell in group.trained if any(cell.estimate(number) for number in numbers)]
    figure, parts = panels(len(numbers), inches=(3.3, 0.9 + 0.27 * len(cells)))
    for axes, number in zip(parts, numbers, strict=True):
        known = [cell.estimate(number) for cell in cells]
        for place, (estimate, colour) in enumerate(zip(known, shades(cells), strict=True)):
            if estimate is None:
                continue
            axes.barh(place, estimate.mean, 0.62, color=colour, alpha=0.85)
            dots = [place] * len(estimate.values)
            axes.plot(estimate.values, dots, "o", color=INK, markersize=2.2, alpha=0.6)
            text = f"{estimate.mean:,.{0 if number == 'tokens/s' else 2}f}"
            annotate(axes, text, (max(estimate.values), place), (4, 0), va="center", fontsize=8)
        axes.set_yticks(range(len(cells)), [_name(cell, group) for cell in cells] if axes is parts[0] else [])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.set_xlabel(names[number])
        axes.margins(x=0.16)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
    return figure


def _name(cell: Cell, group: Group) -> str:
    """The shortest that tells a cell from the others of its group."""
    return shown_k(cell) if len(group.series) == 1 and shown_k(cell) else fitting(cell.label)


def _short(count: int) -> str:
    """``27.2M`` for 27197440."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
