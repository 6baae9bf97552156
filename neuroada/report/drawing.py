"""How figures of a comparison look, and what they are made of: panels, axes, lines, colours, files.

Colours are those of M. Okabe and K. Ito, Color Universal Design (2008), which the colour-blind tell apart:
https://jfly.uni-koeln.de/color/
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from neuroada.report.cells import Cell, Group

INK = "#1f2328"
FAINT = "#8c959f"
_PAPER = "#ffffff"
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BASE_COLOUR = FAINT
_STYLE: dict[str, Any] = {
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
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
    "axes.prop_cycle": f"cycler('color', {list(SERIES_COLOURS)})",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "neuroada",  # the same bytes for the same runs
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
_PNG_DOTS_PER_INCH = 160
PANEL_INCHES = (4.0, 3.1)
WIDE_PANEL_INCHES = (5.6, 3.1)
"""Two of them beside each other on a page."""
WIDEST_INCHES = 12.4
_MARGIN_PERCENT = 1.5
_LEAST_GAP = 0.07
_MOST_LETTERS = 40
"""Share of an axis that a name needs for itself."""


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


@contextmanager
def style() -> Iterator[None]:
    """Figures look like this inside the block, whatever a person's own matplotlib settings are.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


def panels(count: int, inches: tuple[float, float] = PANEL_INCHES) -> tuple[Any, list[Any]]:
    """A picture with axes side by side; ``inches`` is the size of each."""
    # Not pyplot's: it would keep every figure that was ever made.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(inches[0] * count, inches[1]), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def lines(
    axes: Any,
    group: Group,
    number: str,
    place: Callable[[Cell], float | None],
    note: Callable[[Cell], str] | None = None,
) -> None:
    """A line for each series over the place of its cells, with the base as a dashed one."""
    ends = {}
    for (name, cells), colour in zip(group.series.items(), _cycled(len(group.series)), strict=True):
        placed = {x: cell for cell in cells if (x := place(cell)) is not None and cell.estimate(number)}
        if not placed:
            continue
        _line(axes, placed, number, colour, name)
        ends[fitting(name)] = (*_last_point(placed, number), colour)
        if note is not None:
            for x, cell in placed.items():
                annotate(axes, note(cell), (x, _lowest(cell, number)), (2, -11), fontsize=7.5)
    base = group.base.estimate(number) if group.base else None
    if base is not None:
        axes.axhline(base.mean, color=BASE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
        where = {"xycoords": ("axes fraction", "data"), "va": "center"}
        annotate(axes, f"base\n{base.mean:.1f}", (1, base.mean), (4, 0), color=FAINT, fontsize=8, **where)
    if number == "held-out loss":
        axes.set_ylabel("held-out loss")
    else:
        low, high = axes.get_ylim()  # a deviation may reach beyond what an accuracy can be
        axes.set(ylabel=f"{number} accuracy, %", ylim=(max(low, -_MARGIN_PERCENT), min(high, 100 + _MARGIN_PERCENT)))
    rules(axes)
    if len(ends) > 1:
        _name_lines(axes, ends)


def fitting(name: str) -> str:
    """A name that leaves room for the figure; a long one loses its middle. The tables have it whole."""
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 16]}…{name[-15:]}"


def _line(axes: Any, placed: dict[float, Cell], number: str, colour: str, name: str) -> None:
    """Means with error bars, single seeds as faint dots."""
    known = [estimate for cell in placed.values() if (estimate := cell.estimate(number))]
    for x, estimate in zip(placed, known, strict=True):
        if len(estimate.values) > 1:
            dots = [x] * len(estimate.values)
            axes.plot(dots, estimate.values, "o", color=colour, alpha=0.35, markersize=6, markeredgewidth=0)
    means, spreads = [estimate.mean for estimate in known], [estimate.std or 0 for estimate in known]
    axes.errorbar(list(placed), means, spreads, fmt="o-", color=colour, capsize=2.5, elinewidth=1, label=fitting(name))


def _name_lines(axes: Any, ends: dict[str, tuple[float, float, str]]) -> None:
    """Names at the ends of the lines, or in a legend where they would lie on each other."""
    heights = sorted(y for _, y, _ in ends.values())
    low, high = axes.get_ylim()
    if min(above - below for below, above in pairwise(heights)) < _LEAST_GAP * (high - low):
        axes.legend(loc="best")
        return
    for name, (x, y, colour) in ends.items():
        annotate(axes, name, (x, y), (7, 0), color=colour, va="center")


def _last_point(placed: dict[float, Cell], number: str) -> tuple[float, float]:
    x = max(placed)
    return x, _mean(placed[x], number)


def _mean(cell: Cell, number: str) -> float:
    estimate = cell.estimate(number)
    assert estimate is not None, f"{cell.label} has no {number}"
    return estimate.mean


def _lowest(cell: Cell, number: str) -> float:
    """Where the drawing of a cell ends below: the lowest seed or the foot of the error bar."""
    estimate = cell.estimate(number)
    assert estimate is not None, f"{cell.label} has no {number}"
    return min(*estimate.values, estimate.mean - (estimate.std or 0))


def annotate(axes: Any, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """A text beside a point; ``offset`` is in printer's points."""
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **style)


def log_axis(axes: Any, ticks: Mapping[Any, str], label: str, limits: tuple[float, float] | None = None) -> None:
    """A logarithmic axis with these ticks and no others; where two labels would overlap the later one is left out."""
    axes.set_xscale("log")
    shown = _apart(ticks)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlim(limits or (min(ticks) / 1.35, max(ticks) * 1.35))
    axes.set_xlabel(label)


def _apart(ticks: Mapping[Any, str]) -> dict[float, str]:
    """Without those whose label would lie on the one before."""
    gap = (max(ticks) / min(ticks)) ** _LEAST_GAP if ticks else 1
    kept: dict[float, str] = {}
    for place in sorted(ticks):
        if not kept or place > gap * max(kept):
            kept[place] = ticks[place]
    return kept


def decades_axis(axes: Any) -> None:
    """A logarithmic axis of heights with plain numbers: 0.01, 0.1, 1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_yticks([], minor=True)


def steps_axis(axes: Any) -> None:
    """An axis of optimizer steps, marked at whole ones."""
    axes.set_xlabel("optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True)


def rules(axes: Any) -> None:
    """Faint lines to read heights by, behind all that is drawn."""
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def shown_k(cell: Cell) -> str:
    """``k=5``, or nothing for a method without a k."""
    return "" if cell.top_k is None else f"k={cell.top_k}"


def _cycled(count: int) -> list[Any]:
    return [SERIES_COLOURS[number % len(SERIES_COLOURS)] for number in range(count)]


def shades(cells: Sequence[Cell]) -> list[Any]:
    """A colour for each cell: that of its series, paler for the first ones; of a single series a range of hues."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.series, []).append(cell)
    trained = [name for name, found in members.items() if not found[0].is_base]
    maps: dict[str, Any] = {
        name: LinearSegmentedColormap.from_list(name, ["white", colour])
        for name, colour in zip(trained, _cycled(len(trained)), strict=True)
    }
    span = (0.45, 1.0)
    if len(trained) == 1:
        maps, span = {trained[0]: colormaps["viridis_r"]}, (0.18, 0.68)

    def colour_of(cell: Cell) -> Any:
        if cell.is_base:
            return BASE_COLOUR
        found = members[cell.series]
        place = found.index(cell) / (len(found) - 1) if len(found) > 1 else 1.0
        return maps[cell.series](span[0] + place * (span[1] - span[0]))

    return [colour_of(cell) for cell in cells]


def saved(picture: Any, folder: Path, name: str, caption: str) -> Figure:
    """Write ``<name>.svg`` and ``<name>.png``."""
    path = folder / f"{name}.svg"
    picture.savefig(path, metadata={"Date": None})
    picture.savefig(folder / f"{name}.png", dpi=_PNG_DOTS_PER_INCH)
    return Figure(name, _for_page(path.read_text(encoding="utf-8")), caption)


def _for_page(svg: str) -> str:
    """The picture in the page's own ink and on its paper, without what only a file needs, or ids that repeat."""
    inside = svg[svg.index("<svg") :]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r' id="\w+_\d+"', "", inside)
    return inside.replace(INK, "currentColor").replace(f"fill: {_PAPER}", "fill: none")
