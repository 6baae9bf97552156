"""The style and the parts of figures: canvas, axes, legends, files.

All figures of a report have one width, so that two fit side by side on a page and one on a phone. A text has a place of
its own: names are in the legend below the axes or at the ticks, values in a column on the right, never inside.
"""

import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.report.palette import BASE_COLOUR, FAINT, INK, PAPER, SERIES_COLOURS, dark_rules
from neuroada.storage.whole_files import whole_file, write_whole

_STYLE: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
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
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "neuroada",  # the same bytes for the same runs
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
_PNG_DOTS_PER_INCH = 160
WIDTH_INCHES = 4.6
HEIGHT_INCHES = 3.1
LETTER_INCHES = 0.072
"""Width of a letter in the usual size, rounded up."""
_LEGEND_ROW_INCHES = 0.17
LOG_MARGIN = 1.35
"""Room at both ends of a logarithmic axis, as a factor."""
_AXIS_INCHES = 3.6
"""About the length of a horizontal axis."""
_MARGIN_PERCENT = 1.5
_LINE_LETTERS = 24
"""Longer names in a legend are wrapped, so that it has two columns."""
_ZERO_WIDTH_SPACE = "\u200b"
"""A zero-width space: a marker that no name contains."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Name of its files, without extension.
        svg: The figure for an HTML page that sets the text colour and has ``palette.dark_rules()``.
        caption: What the figure shows.
    """

    name: str
    svg: str
    caption: str


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


def canvas(num_rows: int = 1, num_columns: int = 1, height: float = HEIGHT_INCHES) -> tuple[Any, Any]:
    """A figure of the common width, and its axes, row by row."""
    # Not through pyplot, which keeps every figure alive.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(WIDTH_INCHES, height), layout="constrained")
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False).flat)


def legend_below(figure: Any, axes: Any) -> None:
    """A legend below the axes, where it covers nothing; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = [wrapped(label) for label in labels]
    widest = 0.5 + LETTER_INCHES * max(len(row) for label in labels for row in label.splitlines())
    num_columns = max(1, min(len(labels), int(WIDTH_INCHES / widest)))
    num_lines = max(label.count("\n") + 1 for label in labels) * -(-len(labels) // num_columns)
    figure.set_size_inches(WIDTH_INCHES, figure.get_figheight() + _LEGEND_ROW_INCHES * num_lines)
    figure.legend(handles, labels, loc="outside lower left", ncols=num_columns)


def wrapped(name: str, num_letters: int = _LINE_LETTERS) -> str:
    """Wrap a long name at spaces, commas and slashes, and a longer word at hyphens, to leave room for the figure."""
    breakable = re.sub("([,/])", rf"\1 {_ZERO_WIDTH_SPACE}", name)
    has_long_word = any(len(word) > num_letters for word in breakable.split())
    rows = textwrap.wrap(breakable, num_letters, break_on_hyphens=has_long_word)
    return "\n".join(row.replace(f" {_ZERO_WIDTH_SPACE}", "").replace(_ZERO_WIDTH_SPACE, "") for row in rows)


def accuracy_axis(axes: Any, label: str) -> None:
    """A vertical axis in percent; it ends at 0 and 100 even if an error bar goes beyond. A correlation goes below 0."""
    low, high = axes.get_ylim()
    lowest = -100 if axes.dataLim.y0 < 0 else 0
    axes.set(ylabel=label, ylim=(max(low, lowest - _MARGIN_PERCENT), min(high, 100 + _MARGIN_PERCENT)))


def log_axis(axes: Any, ticks: Mapping[Any, str], label: str, limits: tuple[float, float] | None = None) -> None:
    """A logarithmic axis with only these ticks; if two labels would overlap, the later one is left out."""
    low, high = limits or (min(ticks) / LOG_MARGIN, max(ticks) * LOG_MARGIN)
    axes.set_xscale("log")
    shown = _apart(ticks, math.log(high / low) * LETTER_INCHES / _AXIS_INCHES)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    axes.set_xlabel(label)


def _apart(ticks: Mapping[Any, str], letter: float) -> dict[float, str]:
    """The ticks without those whose label would overlap the previous one; ``letter`` is a width in logarithms."""
    kept: dict[float, str] = {}
    end = -math.inf
    for place in sorted(ticks):
        half = letter * (max(map(len, ticks[place].splitlines())) + 1) / 2
        if math.log(place) - half >= end:
            kept[place], end = ticks[place], math.log(place) + half
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


def rules(axes: Any, axis: str = "y") -> None:
    """Faint grid lines behind the data."""
    axes.grid(axis=axis, color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def base_line(axes: Any, name: str, height: float, bounds: tuple[float, float] | None) -> None:
    """The base as a dashed line, with its interval as a band; the legend names it."""
    axes.axhline(height, color=BASE_COLOUR, linestyle=(0, (4, 3)), linewidth=1, label=name)
    if bounds is not None:
        axes.axhspan(*bounds, color=BASE_COLOUR, alpha=0.15, linewidth=0)


def short_count(count: int) -> str:
    """``27.2M`` for 27197440."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def saved(picture: Any, folder: Path, name: str, caption: str) -> Figure:
    """Write ``<name>.svg``, which follows the reader's light or dark setting, and ``<name>.png``, which is light."""
    path = folder / f"{name}.svg"
    save_svg(picture, path)
    with whole_file(folder / f"{name}.png") as partial:
        picture.savefig(partial, format="png", dpi=_PNG_DOTS_PER_INCH)
    return Figure(name, _for_page(path.read_text(encoding="utf-8")), caption)


def save_svg(picture: Any, path: Path) -> None:
    """Write an SVG that follows the reader's light or dark setting."""
    drawn = io.StringIO()
    picture.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    start = text.index(">", text.index("<svg")) + 1
    write_whole(path, f"{text[:start]}\n <style>{dark_rules()}</style>{text[start:]}")


def _for_page(svg: str) -> str:
    """The SVG as wide as its place on the page and without background, file headers and duplicate ids."""
    inside = svg[svg.index("<svg") :]
    inside = re.sub(r"<(metadata|style)[ >].*?</\1>", "", inside, flags=re.DOTALL)
    inside = re.sub(r' id="\w+_\d+"', "", inside)
    inside = re.sub(r' width="[^"]*" height="[^"]*"', "", inside, count=1)
    return inside.replace(f"fill: {PAPER}", "fill: none")
