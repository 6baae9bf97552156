"""A row for each setting: its name on the left, a dot with its interval, its value in a column on the right.

A value of zero is a dot at zero and the text ``0.0``; a missing one has no dot, and the text says that it is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.report.drawing import FAINT, INK, canvas, rules, wrapped
from neuroada.report.palette import Look

_ROW_INCHES = 0.19
_LINE_INCHES = 0.13
"""Of each further line of a name."""
_AROUND_INCHES = 0.5
"""Title and ticks of a panel."""
_NAME_LETTERS = 26
_TITLE_LETTERS = 22
_VALUE_GAP = 0.03
"""Between a panel and its values, as a share of the panel."""


@dataclass(frozen=True)
class Dot:
    """A value in a panel.

    Attributes:
        text: The value as a text.
        values: Of each seed; none if the value is missing.
        mean: Their mean; None if missing.
        bounds: The ends of its interval; None without one.
    """

    text: str
    values: Sequence[float] = ()
    mean: float | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One column of values.

    Attributes:
        title: What the values are.
        dots: One for each row.
        limits: Ends of the axis; None fits them to the values, from zero.
    """

    title: str
    dots: Sequence[Dot]
    limits: tuple[float, float] | None = None


def dot_rows(names: Sequence[str], looks: Sequence[Look], panels: Sequence[Panel]) -> Any:
    """A figure with a panel for each column of values, at most two side by side."""
    names = [wrapped(name, _NAME_LETTERS) for name in names]
    num_columns = min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    further_lines = sum(name.count("\n") for name in names)
    height = num_rows * (_AROUND_INCHES + _ROW_INCHES * len(names) + _LINE_INCHES * further_lines)
    figure, axes = canvas(num_rows, num_columns, height=height)
    places = _places(names)
    for place, (part, panel) in enumerate(zip(axes, panels, strict=False)):
        _panel(part, panel, places, looks)
        is_first = place % num_columns == 0
        part.set_yticks(list(places), names if is_first else [""] * len(names), fontsize=8)
    for part in axes[len(panels) :]:
        part.set_visible(False)
    return figure


def _places(names: Sequence[str]) -> list[float]:
    """Heights of the rows from the top, in rows; a name of several lines has more room."""
    sizes = [1 + name.count("\n") * _LINE_INCHES / _ROW_INCHES for name in names]
    return [sum(sizes[:number]) + size / 2 for number, size in enumerate(sizes)]


def _panel(axes: Any, panel: Panel, places: Sequence[float], looks: Sequence[Look]) -> None:
    axes.set_title(wrapped(panel.title, _TITLE_LETTERS))
    for place, dot, look in zip(places, panel.dots, looks, strict=True):
        _row(axes, place, dot, look)
    axes.set_ylim(places[-1] + 0.5 + places[0] / 2, 0)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.locator_params(axis="x", nbins=4)
    axes.spines["left"].set_visible(False)
    rules(axes, "x")
    axes.set_xlim(*(panel.limits or _from_zero(panel.dots)))


def _from_zero(dots: Sequence[Dot]) -> tuple[float, float]:
    return limits_around(dots, [0.0])


def limits_around(dots: Sequence[Dot], others: Sequence[float] = ()) -> tuple[float, float]:
    """Ends of an axis with all values, intervals and other places, and room for the markers."""
    found = [*others, *(value for dot in dots for value in (*dot.values, *(dot.bounds or ())))]
    if not found:
        return 0.0, 1.0
    margin = 0.06 * ((max(found) - min(found)) or 1.0)
    return min(found) - margin, max(found) + margin


def _row(axes: Any, place: float, dot: Dot, look: Look) -> None:
    beside: Mapping[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.5}
    axes.text(1 + _VALUE_GAP, place, dot.text, color=FAINT if dot.mean is None else INK, **beside)
    if dot.mean is None:
        return
    if dot.bounds is not None:
        axes.plot(dot.bounds, [place, place], color=look.colour, linewidth=1.2, solid_capstyle="butt")
    if len(dot.values) > 1:
        heights = [place] * len(dot.values)
        axes.plot(dot.values, heights, "o", color=look.colour, alpha=0.4, markersize=3, markeredgewidth=0)
    # Not clipped: a dot at the end of the axis is whole.
    axes.plot(dot.mean, place, look.marker, color=look.colour, markersize=5, clip_on=False)
