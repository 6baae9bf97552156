"""Means over seeds, and 95 % intervals over seeds or over items."""

import statistics
from typing import Any

import pytest

from neuroada.report.estimates import Estimate, Interval, combined, over_items, over_seeds
from neuroada.tasks.intervals import of_share


def test_mean_and_deviation_are_over_the_seeds() -> None:
    found = Estimate((49.0, 50.0, 52.0))
    assert found.mean == pytest.approx(statistics.fmean([49, 50, 52]))
    assert found.std == pytest.approx(statistics.stdev([49, 50, 52]))
    assert found.text(1) == "50.3 ± 1.5"


def test_one_value_has_no_deviation() -> None:
    assert Estimate((12.34,)).std is None
    assert Estimate((12.34,)).text(1) == "12.3"


def test_over_seeds_it_is_students_interval() -> None:
    """By the tables, the 97.5 % point of Student's t with 2 degrees of freedom is 4.303."""
    found = over_seeds([49.0, 50.0, 51.0])
    assert (found.low, found.high) == pytest.approx((50 - 4.3027 / 3**0.5, 50 + 4.3027 / 3**0.5), abs=1e-4)
    assert found.text == "47.5–52.5"


def test_no_accuracy_is_below_0_or_above_100() -> None:
    assert over_seeds([98.0, 100.0]).high == 100
    assert over_seeds([0.0, 2.0]).low == 0


def score(correct: int, n: int) -> dict[str, Any]:
    return {"n": n, "correct": correct}


def test_over_the_items_of_one_benchmark_it_is_wilsons() -> None:
    found = over_items([{"boolq": score(30, 40)}])
    assert found is not None
    assert [found.low / 100, found.high / 100] == pytest.approx(of_share(30, 40))


def test_two_equal_benchmarks_tell_as_much_of_their_mean_as_errors_that_add_up() -> None:
    one, two = over_items([{"a": score(30, 40)}]), over_items([{"a": score(30, 40), "b": score(30, 40)}])
    assert one is not None
    assert two is not None
    assert two.high - 75 == pytest.approx((one.high - 75) / 2**0.5)
    assert 75 - two.low == pytest.approx((75 - one.low) / 2**0.5)


def test_a_recorded_interval_is_not_counted_anew() -> None:
    found = over_items([{"boolq": {**score(30, 40), "ci95": [0.5, 1.0]}}])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((50, 100))


@pytest.mark.parametrize("scores", [{}, {"boolq": {"protocol": 0.5}}, {"a": score(1, 2), "b": score(0, 0)}])
def test_without_counts_there_is_no_interval(scores: dict[str, Any]) -> None:
    assert over_items([scores]) is None


def test_bounds_have_one_decimal() -> None:
    assert Interval(1.25, 99.96).text == "1.2–100.0"


def test_several_seeds_answer_the_same_items() -> None:
    """They are not more items, so agreement of the seeds does not make the interval of the items narrower."""
    one, two = over_items([{"a": score(30, 40)}]), over_items([{"a": score(30, 40)}] * 2)
    assert one == two


def test_seeds_that_agree_do_not_look_certain() -> None:
    found = combined([{"a": score(40, 40)}] * 2)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((100 * of_share(40, 40)[0], 100))


def test_seeds_that_differ_more_than_items_widen_the_interval() -> None:
    found = combined([{"a": score(200, 1000)}, {"a": score(400, 1000)}, {"a": score(600, 1000)}])
    of_seeds = over_seeds([20.0, 40.0, 60.0])
    assert found == of_seeds


def test_seeds_of_a_negative_correlation_have_an_interval_around_them() -> None:
    found = over_seeds([-20.0, -30.0, -25.0])
    assert -100 <= found.low < -25 < found.high < 0
