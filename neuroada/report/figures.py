"""Figures of a comparison, each as SVG and PNG; colours are Okabe and Ito's, which the colour-blind tell apart.

M. Okabe, K. Ito, Color Universal Design (2008): https://jfly.uni-koeln.de/color/
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.report.cells import Cell, Group
from neuroada.report.curves import logged_losses

INK = "#1f2328"
FAINT = "#8c959f"
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BASE_COLOUR = FAINT
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.visible": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.transparent": True,
    "svg.hashsalt": "neuroada",  # the same bytes for the same runs
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
_PNG_DOTS_PER_INCH = 160
_PANEL_INCHES = (4.0, 3.1)
_WIDEST_INCHES = 12.4


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Of its files, without their ending.
        svg: The picture, for a page that sets the colour of ink by itself.
        caption: What is seen.
    """

    name: str
    svg: str
    caption: str


def draw(group: Group, folder: Path) -> list[Figure]:
    """Write the figures of a group that its runs have numbers for, as ``<folder>/<name>.svg`` and ``.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.+-]+", "_", f"{group.model}-{group.task}")
    style: Any = {**matplotlib.rcParamsDefault, **_STYLE}
    with matplotlib.rc_context(style):
        return [_saved(picture, folder, f"{kind}-{stem}", caption) for kind, picture, caption in _pictures(group)]


def _pictures(group: Group) -> Iterator[tuple[str, Any, str]]:
    """Kind, matplotlib figure and caption of each that can be drawn."""
    if any(cell.top_k is not None for cell in group.trained):
        yield "accuracy_over_k", _accuracy_over_k(group), _caption_over_k(group)
    if group.has("macro") and group.trained:
        caption = f"Macro accuracy over the number of trained parameters; {_seeds(group)}."
        yield "accuracy_over_parameters", _accuracy_over_parameters(group), caption
    if group.benchmarks:
        yield "benchmarks", _benchmarks(group), f"Accuracy by benchmark, protocol scoring; {_seeds(group)}."
    curves = {cell: [logged_losses(run.folder) for run in cell.runs] for cell in group.trained}
    curves = {cell: kept for cell, found in curves.items() if (kept := [curve for curve in found if curve])}
    if curves:
        caption = "Training loss of an optimizer step: mean over seeds, each seed faint."
        yield "training_loss", _training_loss(group, curves), caption
    if group.has("tokens/s") or group.has("peak GiB"):
        caption = (
            "Training speed (tokens without padding) and peak memory of the fit; a dot is a run, a bar their mean."
        )
        yield "cost", _cost(group), caption


def _seeds(group: Group) -> str:
    counts = sorted({len(cell.runs) for cell in group.trained} or {1})
    if counts == [1]:
        return "one seed each"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean and standard deviation over {span} seeds, each seed a faint dot"


def _caption_over_k(group: Group) -> str:
    loss = " Right: loss on held-out training examples." if group.has("held-out loss") else ""
    base = "; dashed: the base model" if group.base else ""
    return f"Macro accuracy over k, the trained inputs per neuron; {_seeds(group)}{base}.{loss}"


def _accuracy_over_k(group: Group) -> Any:
    numbers = ["macro"] + (["held-out loss"] if group.has("held-out loss") else [])
    figure, panels = _panels(len(numbers))
    for axes, number in zip(panels, numbers, strict=True):
        _lines(axes, group, number, lambda cell: cell.top_k)
        ticks = {cell.top_k: cell.percent for cell in group.trained if cell.top_k is not None}
        _log_axis(axes, {top_k: str(top_k) for top_k in sorted(ticks)}, "k, trained inputs per neuron")
        above = axes.twiny()
        above.spines[["bottom", "left"]].set_visible(False)
        above.set_xlim(axes.get_xlim())
        shares = {top_k: f"{share:.2g}" for top_k, share in sorted(ticks.items()) if share is not None}
        _log_axis(above, shares, "trained parameters, %", limits=axes.get_xlim())
        above.tick_params(length=0, labelcolor=FAINT)
        above.xaxis.label.set_color(FAINT)
    return figure


def _accuracy_over_parameters(group: Group) -> Any:
    figure, [axes] = _panels(1)
    _lines(axes, group, "macro", lambda cell: cell.trainable or None, note=lambda cell: _k(cell))
    counts = {cell.trainable: _short(cell.trainable) for cell in group.trained if cell.trainable}
    _log_axis(axes, _apart(counts), "trained parameters")
    return figure


def _benchmarks(group: Group) -> Any:
    names = [*group.benchmarks, "macro"]
    cells = [cell for cell in group.cells if cell.estimate("macro")]
    width = 0.84 / len(cells)
    width_inches = min(max(_PANEL_INCHES[0], 0.13 * len(names) * (len(cells) + 2) + 1.6), _WIDEST_INCHES)
    figure, [axes] = _panels(1, inches=(width_inches, _PANEL_INCHES[1]))
    for number, (cell, colour) in enumerate(zip(cells, _shades(cells), strict=True)):
        found = {place: cell.estimate(name) for place, name in enumerate(names)}
        bars = {place + (number - (len(cells) - 1) / 2) * width: known for place, known in found.items() if known}
        heights, spreads = [known.mean for known in bars.values()], [known.std or 0 for known in bars.values()]
        label = cell.label if cell.is_base or len(group.series) > 1 else _k(cell) or cell.label
        axes.bar(list(bars), heights, 0.9 * width, color=colour, label=label)
        if any(spreads):
            axes.errorbar(list(bars), heights, spreads, fmt="none", ecolor=INK, elinewidth=0.7)
    axes.set_xticks(
        range(len(names)), names, rotation=20 if len(names) > 5 else 0, ha="right" if len(names) > 5 else "center"
    )
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel="accuracy, %", ylim=(0, 100))
    _rules(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _training_loss(group: Group, curves: dict[Cell, list[dict[int, float]]]) -> Any:
    figure, [axes] = _panels(1, inches=(5.6, 3.1))
    for (cell, found), colour in zip(curves.items(), _shades(list(curves)), strict=True):
        shared = sorted(set.intersection(*(set(curve) for curve in found)))
        means = [sum(curve[step] for curve in found) / len(found) for step in shared]
        if len(found) > 1:
            for curve in found:
                axes.plot(list(curve), list(curve.values()), color=colour, alpha=0.25, linewidth=0.7)
        label = cell.label if len(group.series) > 1 else _k(cell) or cell.label
        axes.plot(shared, means, color=colour, label=label, linewidth=1.3)
    axes.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    _rules(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _cost(group: Group) -> Any:
    numbers = [number for number in ("tokens/s", "peak GiB") if group.has(number)]
    names = {"tokens/s": "training tokens per second", "peak GiB": "peak memory, GiB"}
    cells = [cell for cell in group.trained if any(cell.estimate(number) for number in numbers)]
    figure, panels = _panels(len(numbers), inches=(3.3, 0.9 + 0.27 * len(cells)))
    for axes, number in zip(panels, numbers, strict=True):
        for place, (cell, colour) in enumerate(zip(cells, _shades(cells), strict=True)):
            known = cell.estimate(number)
            if known is None:
                continue
            axes.barh(place, known.mean, 0.62, color=colour, alpha=0.85)
            axes.plot(known.values, [place] * len(known.values), "o", color=INK, markersize=2.2, alpha=0.6)
            decimals = 0 if number == "tokens/s" else 2
            text = f"  {known.mean:,.{decimals}f}"
            axes.annotate(text, (max(known.values), place), va="center", fontsize=8)
        axes.set_yticks(range(len(cells)), [cell.label for cell in cells])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.set_xlabel(names[number])
        axes.margins(x=0.16)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
    return figure


def _lines(
    axes: Any,
    group: Group,
    number: str,
    place: Callable[[Cell], float | None],
    note: Callable[[Cell], str] | None = None,
) -> None:
    """A line with error bars for each series over the place of its cells, single seeds as faint dots."""
    for (name, cells), colour in zip(group.series.items(), _cycled(len(group.series)), strict=True):
        points = [(x, known, cell) for cell in cells if (x := place(cell)) and (known := cell.estimate(number))]
        if not points:
            continue
        xs, means = [x for x, _, _ in points], [known.mean for _, known, _ in points]
        spreads = [known.std or 0 for _, known, _ in points]
        for x, known, cell in points:
            if len(known.values) > 1:
                axes.plot([x] * len(known.values), known.values, "o", color=colour, alpha=0.3, markersize=3, mew=0)
            if note is not None:
                axes.annotate(note(cell), (x, known.mean), xytext=(5, -9), textcoords="offset points", fontsize=7.5)
        axes.errorbar(xs, means, spreads, fmt="o-", color=colour, capsize=2.5, elinewidth=1, label=name)
        if len(group.series) > 1:
            axes.annotate(
                name, (xs[-1], means[-1]), xytext=(7, 0), textcoords="offset points", color=colour, va="center"
            )
    base = group.base.estimate(number) if group.base else None
    if base is not None:
        axes.axhline(base.mean, color=BASE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
        text = f"base {base.mean:.1f}"
        axes.annotate(
            text,
            (1, base.mean),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=FAINT,
            fontsize=8,
        )
    axes.set_ylabel("held-out loss" if number == "held-out loss" else f"{number} accuracy, %")
    _rules(axes)


def _panels(count: int, inches: tuple[float, float] = _PANEL_INCHES) -> tuple[Any, list[Any]]:
    # Not pyplot's: it would keep every figure that was ever made.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(inches[0] * count, inches[1]), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _log_axis(axes: Any, ticks: dict[int, str], label: str, limits: tuple[float, float] | None = None) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlim(limits or (min(ticks) / 1.35, max(ticks) * 1.35))
    axes.set_xlabel(label)


def _apart(ticks: dict[int, str]) -> dict[int, str]:
    """Without those whose label would lie on the one before; what k each point has stands beside it."""
    kept: dict[int, str] = {}
    for place in sorted(ticks):
        if not kept or place > 1.5 * max(kept):
            kept[place] = ticks[place]
    return kept


def _short(count: int) -> str:
    """``27.2M`` for 27197440."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _rules(axes: Any) -> None:
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _k(cell: Cell) -> str:
    return "" if cell.top_k is None else f"k={cell.top_k}"


def _cycled(count: int) -> list[Any]:
    return [SERIES_COLOURS[number % len(SERIES_COLOURS)] for number in range(count)]


def _shades(cells: Sequence[Cell]) -> list[Any]:
    """A colour for each cell: shades from light to dark over k where there is one series, else a colour for each."""
    from matplotlib import colormaps

    trained = [cell for cell in cells if not cell.is_base]
    if len({cell.series for cell in trained}) > 1:
        colours = iter(_cycled(len(trained)))
    else:
        steps = [0.2 + 0.55 * place / max(len(trained) - 1, 1) for place in range(len(trained))]
        colours = iter([colormaps["viridis_r"](step) for step in steps])
    return [BASE_COLOUR if cell.is_base else next(colours) for cell in cells]


def _saved(picture: Any, folder: Path, name: str, caption: str) -> Figure:
    path = folder / f"{name}.svg"
    picture.savefig(path, metadata={"Date": None})
    picture.savefig(folder / f"{name}.png", dpi=_PNG_DOTS_PER_INCH, transparent=False, facecolor="white")
    return Figure(name, _for_page(path.read_text(encoding="utf-8")), caption)


def _for_page(svg: str) -> str:
    """The picture in the page's own ink, without what only a file of its own needs, and without ids that repeat."""
    inside = svg[svg.index("<svg") :]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r' id="\w+_\d+"', "", inside)
    return inside.replace(INK, "currentColor")
