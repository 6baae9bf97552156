"""What a reader of a figure sees."""

from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import pytest


class Seen:
    """The texts of a drawn figure."""

    def __init__(self, figure: Any) -> None:
        figure.draw_without_rendering()
        entries = chain.from_iterable(legend.get_texts() for legend in figure.legends)
        found = [*figure.texts, *entries]
        for axes in figure.axes:
            found += _texts_of(axes) if axes.get_visible() else []
        self.boxes = [(text.get_text(), text.get_window_extent()) for text in found if text.get_text().strip()]

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.boxes]

    @property
    def overlaps(self) -> list[tuple[str, str]]:
        """Pairs of texts that overprint each other; a pixel is rounding."""
        return [
            (one, other)
            for (one, first), (other, second) in combinations(self.boxes, 2)
            if min(first.x1, second.x1) - max(first.x0, second.x0) > 1
            and min(first.y1, second.y1) - max(first.y0, second.y0) > 1
        ]


def _texts_of(axes: Any) -> list[Any]:
    titles = [axes.title, axes._left_title, axes._right_title]
    return [*titles, *axes.texts, axes.xaxis.label, axes.yaxis.label, *_ticks(axes.xaxis), *_ticks(axes.yaxis)]


def _ticks(axis: Any) -> Iterator[Any]:
    """Labels of the ticks between the ends of an axis."""
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        if low <= tick.get_loc() <= high:
            yield tick.label1


@pytest.fixture
def seen() -> type[Seen]:
    """``seen(figure)`` has the texts of a figure and those that overlap; skips without matplotlib."""
    pytest.importorskip("matplotlib")
    return Seen
