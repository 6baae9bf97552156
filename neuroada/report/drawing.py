"""The style and the parts of figures: panels, axes, lines, colours, files.

The colours suit colour-blind readers: the first six are those of M. Okabe and K. Ito, Color Universal Design (2008),
https://jfly.uni-koeln.de/color/; the others are from P. Tol's muted scheme, https://sronpersonalpages.nl/~pault/
"""

import re
import textwrap
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
SERIES_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#332288", "#882255", "#999933", "#117733"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
"""One more than there are colours, so that a repeated colour gets another marker."""
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
"""Two of them fit side by side on a page."""
WIDEST_INCHES = 12.4
_NOTE_MARGIN = 0.1
"""Share of the height that a note below the lowest point needs."""
LOG_MARGIN = 1.35
"""Room at both ends of a logarithmic axis, as a factor."""
_MARGIN_PERCENT = 1.5
_LEAST_GAP = 0.07
"""Smallest gap between two names, as a share of the axis."""
_LINE_LETTERS = 36
"""Longer names are wrapped."""
_ZERO_WIDTH_SPACE = "\u200b"
"""A zero-width space: a marker that no name contains."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Name of its files, without extension.
        svg: The figure for an HTML page that sets the text colour itself.
        caption: What the figure shows.
    """

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Look:
    """How a series is drawn in every figure of its group."""

    colour: str
    marker: str


@dataclass(frozen=True)
class End:
    """Where the line of a series ends."""

    name: str
    x: float
    y: float
    colour: str


@dataclass(frozen=True)
class Ends:
    """Where names can be placed in one panel.

    Attributes:
        series: Ends of the lines.
        base: Height of the base's line, which is labelled on the right; None without one.
    """

    series: Sequence[End]
    base: float | None


@contextmanager
def style() -> Iterator[None]:
    """Apply this style inside the block, whatever the user's own matplotlib settings are.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


def panels(count: int, inches: tuple[float, float] = PANEL_INCHES) -> tuple[Any, list[Any]]:
    """A figure with axes side by side; ``inches`` is the size of each."""
    # Not through pyplot, which keeps every figure alive.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(inches[0] * count, inches[1]), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def looks(group: Group) -> dict[str, Look]:
    """Series -> colour and marker."""
    return {
        name: Look(SERIES_COLOURS[number % len(SERIES_COLOURS)], _MARKERS[number % len(_MARKERS)])
        for number, name in enumerate(group.series)
    }


def lines(
    axes: Any,
    group: Group,
    number: str,
    place: Callable[[Cell], float | None],
    note: Callable[[Cell], str] | None = None,
) -> Ends:
    """A line for each series, with the base as a dashed line; returns where the lines end."""
    ends = []
    for (name, cells), look in zip(group.series.items(), looks(group).values(), strict=True):
        placed = {x: cell for cell in cells if (x := place(cell)) is not None and cell.estimate(number)}
        if not placed:
            continue
        _line(axes, placed, number, look, name)
        ends.append(End(name, *_last_point(placed, number), look.colour))
        if note is not None:
            axes.margins(y=_NOTE_MARGIN)
            for x, cell in placed.items():
                annotate(axes, note(cell), (x, _lowest(cell, number)), (2, -11), fontsize=7.5)
    base = base_line(axes, group, number)
    if number == "held-out loss":
        axes.set_ylabel("held-out loss")
    else:
        accuracy_axis(axes, f"{number} accuracy, %")
    rules(axes)
    return Ends(ends, base)


def base_line(axes: Any, group: Group, number: str) -> float | None:
    """The base as a dashed line with its value on the right; returns its height, None if it has no such number."""
    base = group.base.estimate(number) if group.base else None
    if base is None:
        return None
    axes.axhline(base.mean, color=BASE_COLOUR, linestyle=(0, (4, 3)), linewidth=1)
    where = {"xycoords": ("axes fraction", "data"), "va": "center"}
    annotate(axes, f"base\n{base.mean:.1f}", (1, base.mean), (4, 0), color=FAINT, fontsize=8, **where)
    return base.mean


def accuracy_axis(axes: Any, label: str) -> None:
    """A vertical axis in percent; it ends at 0 and 100 even if an error bar goes beyond."""
    low, high = axes.get_ylim()
    axes.set(ylabel=label, ylim=(max(low, -_MARGIN_PERCENT), min(high, 100 + _MARGIN_PERCENT)))


def name_lines(figure: Any, parts: Sequence[Any], ends: Sequence[Ends]) -> None:
    """Names at the ends of the lines; in one legend beside the panels if they would overlap."""
    if not all(_has_room(axes, found) for axes, found in zip(parts, ends, strict=True)):
        legend_beside(figure, parts)
        return
    for axes, found in zip(parts, ends, strict=True):
        for end in found.series:
            annotate(axes, end.name, (end.x, end.y), (7, 0), color=end.colour, va="center")


def legend_beside(figure: Any, parts: Sequence[Any]) -> None:
    """One legend to the right of all panels, where it covers nothing."""
    entries: dict[str, Any] = {}
    for axes in parts:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside right upper")


def legend_inches(labels: Sequence[str]) -> float:
    """Width of a legend with these labels, each of which may have several lines."""
    return 0.7 + 0.075 * max(len(row) for label in labels for row in label.splitlines())


def wrapped(name: str) -> str:
    """Wrap a long name at spaces, commas and slashes, so that it leaves room for the figure."""
    breakable = re.sub("([,/])", rf"\1 {_ZERO_WIDTH_SPACE}", name)
    rows = textwrap.wrap(breakable, _LINE_LETTERS, break_on_hyphens=False)
    return "\n".join(row.replace(f" {_ZERO_WIDTH_SPACE}", "").replace(_ZERO_WIDTH_SPACE, "") for row in rows)


def _has_room(axes: Any, ends: Ends) -> bool:
    """Whether one-line names would not overlap with each other or with the name of the base."""
    heights = sorted([*(end.y for end in ends.series), *([] if ends.base is None else [ends.base])])
    low, high = axes.get_ylim()
    is_short = all(len(end.name) <= _LINE_LETTERS for end in ends.series)
    return is_short and all(above - below >= _LEAST_GAP * (high - low) for below, above in pairwise(heights))


def _line(axes: Any, placed: dict[float, Cell], number: str, look: Look, name: str) -> None:
    """Means with error bars, and single seeds as faint dots."""
    known = [estimate for cell in placed.values() if (estimate := cell.estimate(number))]
    for x, estimate in zip(placed, known, strict=True):
        if len(estimate.values) > 1:
            dots = [x] * len(estimate.values)
            axes.plot(dots, estimate.values, "o", color=look.colour, alpha=0.35, markersize=6, markeredgewidth=0)
    means, spreads = [estimate.mean for estimate in known], [estimate.std or 0 for estimate in known]
    drawn = {"fmt": f"{look.marker}-", "color": look.colour, "label": wrapped(name)}
    axes.errorbar(list(placed), means, spreads, capsize=2.5, elinewidth=1, **drawn)


def _last_point(placed: dict[float, Cell], number: str) -> tuple[float, float]:
    x = max(placed)
    return x, _mean(placed[x], number)


def _mean(cell: Cell, number: str) -> float:
    estimate = cell.estimate(number)
    assert estimate is not None, f"{cell.label} has no {number}"
    return estimate.mean


def _lowest(cell: Cell, number: str) -> float:
    """Lowest point drawn for a cell: the lowest seed or the lower end of the error bar."""
    estimate = cell.estimate(number)
    assert estimate is not None, f"{cell.label} has no {number}"
    return min(*estimate.values, estimate.mean - (estimate.std or 0))


def annotate(axes: Any, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """A text next to a point; ``offset`` is in typographic points."""
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **style)


def log_axis(axes: Any, ticks: Mapping[Any, str], label: str, limits: tuple[float, float] | None = None) -> None:
    """A logarithmic axis with only these ticks; if two labels would overlap, the later one is left out."""
    low, high = limits or (min(ticks) / LOG_MARGIN, max(ticks) * LOG_MARGIN)
    axes.set_xscale("log")
    shown = _apart(ticks, (high / low) ** _LEAST_GAP)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    axes.set_xlabel(label)


def _apart(ticks: Mapping[Any, str], gap: float) -> dict[float, str]:
    """The ticks without those whose label would overlap the previous one; ``gap`` is a factor."""
    kept: dict[float, str] = {}
    for place in sorted(ticks):
        if not kept or place > gap * max(kept):
            kept[place] = ticks[place]
    return kept


def decades_axis(axes: Any) -> None:
    """A logarithmic vertical axis with plain numbers: 0.01, 0.1, 1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_yticks([], minor=True)


def steps_axis(axes: Any) -> None:
    """An axis of optimizer steps, with ticks at whole numbers."""
    axes.set_xlabel("optimizer step")
    axes.xaxis.get_major_locator().set_params(integer=True)


def rules(axes: Any) -> None:
    """Faint horizontal grid lines behind the data."""
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def shown_k(cell: Cell) -> str:
    """``k=5``, or nothing for a method without a k."""
    return "" if cell.top_k is None else f"k={cell.top_k}"


def short_name(cell: Cell, group: Group) -> str:
    """The shortest name that distinguishes a cell within its group."""
    return shown_k(cell) if len(group.series) == 1 and shown_k(cell) else wrapped(cell.label)


def short_count(count: int) -> str:
    """``27.2M`` for 27197440."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def shades(group: Group, cells: Sequence[Cell]) -> list[Any]:
    """A colour for each cell: that of its series, paler for small cells; for a single series a range of hues."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    maps: dict[str, Any] = {
        name: LinearSegmentedColormap.from_list(name, ["white", look.colour]) for name, look in looks(group).items()
    }
    span = (0.45, 1.0)
    if len(maps) == 1:
        maps, span = dict.fromkeys(maps, colormaps["viridis_r"]), (0.18, 0.68)

    def colour_of(cell: Cell) -> Any:
        if cell.is_base:
            return BASE_COLOUR
        found = group.series[cell.series]
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
    """The SVG in the page's own text and background colours, without file headers and without duplicate ids."""
    inside = svg[svg.index("<svg") :]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r' id="\w+_\d+"', "", inside)
    return inside.replace(INK, "currentColor").replace(f"fill: {_PAPER}", "fill: none")
