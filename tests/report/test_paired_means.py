"""Differences of two settings on the same items."""

import math

import pytest

from neuroada.report.paired_means import Values, difference
from neuroada.report.significance import Item


def run(**benchmarks: list[float]) -> Values:
    """Benchmark -> the value of each item."""
    return {Item(name, row, "?"): value for name, values in benchmarks.items() for row, value in enumerate(values)}


def test_benchmarks_of_different_size_weigh_the_same() -> None:
    found = difference({1: run(a=[1] * 8, b=[0, 0])}, {1: run(a=[0] * 8, b=[0, 0])})
    assert found is not None
    assert (found.mean, found.higher, found.lower) == (0.5, 8, 0)


def test_equal_settings_do_not_differ() -> None:
    one = {1: run(a=[1, 0, 1]), 2: run(a=[0, 0, 1])}
    found = difference(one, one)
    assert found is not None
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_interval_is_that_of_the_bootstrap_over_items() -> None:
    # Of 100 items 40 differ by 1, so the mean is 0.4 and its standard error sqrt(0.4 * 0.6 / 100).
    found = difference({1: run(a=[1] * 40 + [0] * 60)}, {1: run(a=[0] * 100)})
    assert found is not None
    reach = 1.96 * math.sqrt(0.4 * 0.6 / 100)
    assert (found.low, found.high) == pytest.approx((0.4 - reach, 0.4 + reach), abs=0.02)


def test_seeds_that_disagree_widen_it() -> None:
    agreeing = difference({1: run(a=[1, 0] * 50), 2: run(a=[1, 0] * 50)}, {1: run(a=[0] * 100), 2: run(a=[0] * 100)})
    # The same mean of every item, from one seed that answers all and one that answers none.
    split = difference({1: run(a=[1] * 100), 2: run(a=[0] * 100)}, {1: run(a=[0] * 100), 2: run(a=[0] * 100)})
    assert agreeing is not None
    assert split is not None
    assert split.mean == agreeing.mean == 0.5
    assert split.high - split.low > 10 * (agreeing.high - agreeing.low)


def test_a_base_with_one_run_is_set_against_every_seed() -> None:
    trained = {1: run(a=[1] * 60 + [0] * 40), 2: run(a=[1] * 90 + [0] * 10), 3: run(a=[1] * 30 + [0] * 70)}
    base = run(a=[1] * 50 + [0] * 50)
    once, every = difference(trained, {1: base}), difference(trained, dict.fromkeys(trained, base))
    assert once == every
    assert once is not None
    assert once.low < -0.5 < 0.5 < once.high
    turned = difference({1: base}, trained)
    assert turned is not None
    assert (turned.low, turned.high) == pytest.approx((-once.high, -once.low), abs=0.02)


def test_the_sign_test_counts_items_and_not_how_far_they_are_apart() -> None:
    found = difference({1: run(a=[9, 0, 0, 0, 0])}, {1: run(a=[0, 1, 1, 1, 1])})
    assert found is not None
    assert (found.higher, found.lower, found.p) == (1, 4, pytest.approx(0.375))


def test_only_items_of_all_runs_count() -> None:
    assert difference({1: run(a=[1])}, {1: run(b=[1])}) is None
    found = difference({1: run(a=[1, 1, 1])}, {1: run(a=[0, 0])})
    assert found is not None
    assert found.higher == 2


def test_a_single_item_says_nothing_about_others() -> None:
    found = difference({1: run(a=[1])}, {1: run(a=[0])})
    assert found is not None
    assert math.isinf(found.low)
