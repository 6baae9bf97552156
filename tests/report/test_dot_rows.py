"""A row for each setting: zero is a value, missing is missing, and nothing is printed over anything."""

from typing import Any

import pytest

from neuroada.report.dot_rows import Dot, Panel, dot_rows, limits_around
from neuroada.report.drawing import style
from neuroada.report.palette import Look

LOOK = Look("#25639c", "o")
ZERO, MISSING = Dot("0.0", (0.0,), 0.0, (0.0, 3.7)), Dot("not scored")


def drawn(*dots: Dot, **choices: Any) -> Any:
    pytest.importorskip("matplotlib")
    names = [f"neuroada-k{place}" for place in range(len(dots))]
    with style():
        return dot_rows(names, [LOOK] * len(dots), [Panel("boolq", dots, **choices)])


def test_zero_is_a_dot_at_zero_with_its_value(seen: Any) -> None:
    figure = drawn(ZERO, limits=(-3, 103))
    [axes] = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"] == [[0.0]]
    assert "0.0" in seen(figure).texts


def test_a_missing_value_has_no_dot_and_says_so(seen: Any) -> None:
    figure = drawn(MISSING, limits=(-3, 103))
    assert not list(figure.axes[0].lines)
    assert "not scored" in seen(figure).texts


def test_an_interval_is_a_line_through_its_dot() -> None:
    [axes] = drawn(Dot("50.0", (50.0,), 50.0, (40.0, 60.0))).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[40.0, 60.0], [50.0]]


def test_means_stand_in_a_column_of_their_own(seen: Any) -> None:
    """Beside the rightmost dot, a mean looks like the value of that dot."""
    figure = drawn(Dot("50.0", (20.0, 80.0), 50.0), Dot("30.0", (10.0, 50.0), 30.0))
    places = {text: box.x0 for text, box in seen(figure).boxes}
    assert places["50.0"] == places["30.0"] > figure.axes[0].get_window_extent().x1


def test_names_and_values_do_not_overlap(seen: Any) -> None:
    names = [f"my-own-method-with-a-long-name-r{place} adapter=…/a0d9865{place}/…" for place in range(12)]
    dots = [Dot("12,345.6", (place,), place) for place in range(12)]
    titles = ["macro", "bundled_arithmetic", "a_benchmark_with_a_rather_long_name"]
    with style():
        figure = dot_rows(names, [LOOK] * 12, [Panel(title, dots) for title in titles])
    assert seen(figure).overlaps == []


def test_small_memories_are_not_stretched_from_their_own_minimum() -> None:
    [axes] = drawn(Dot("0.70", (0.7,), 0.7), Dot("0.71", (0.71,), 0.71)).axes
    assert axes.get_xlim()[0] <= 0


def test_a_close_up_has_every_dot_and_every_interval_inside() -> None:
    low, high = limits_around([Dot("66.1", (63.5, 68.0), 66.1, (63.8, 68.4)), Dot("68.8", (68.8,), 68.8), MISSING])
    assert 63 < low < 63.5
    assert 68.8 < high < 69.3


def test_a_close_up_of_nothing_is_an_axis() -> None:
    assert limits_around([MISSING]) == (0.0, 1.0)
