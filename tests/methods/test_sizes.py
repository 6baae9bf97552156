"""The setting nearest to a wanted count, against trying every one; and how many counts that takes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroada.methods.sizes import nearest_of, nearest_share, nearest_whole

STEPS = st.lists(st.integers(0, 50), min_size=2, max_size=40)
"""Differences between the counts of 1, 2, ... of a method."""


class Counting:
    """A count that knows how often it was asked for."""

    def __init__(self, count: Callable[[int], int | None]) -> None:
        self.calls: list[int] = []
        self._count = count

    def __call__(self, value: int) -> int | None:
        self.calls.append(value)
        return self._count(value)


def rising(steps: list[int]) -> list[int]:
    return [sum(steps[: place + 1]) for place in range(len(steps))]


def nearest(counts: list[int], wanted: int) -> int:
    """The first of those that are nearest, counted from 1."""
    return 1 + min(range(len(counts)), key=lambda place: (abs(counts[place] - wanted), place))


@given(STEPS, st.integers(0, 2500))
def test_no_other_whole_number_up_to_the_most_comes_nearer(steps: list[int], wanted: int) -> None:
    counts = rising(steps)
    count = Counting(lambda value: counts[value - 1])
    found = nearest_whole(count, wanted, most=len(counts))
    assert abs(counts[found - 1] - wanted) == abs(counts[nearest(counts, wanted) - 1] - wanted)
    assert max(count.calls) <= len(counts)
    assert len(count.calls) == len(set(count.calls))


@given(STEPS, st.integers(0, 2500))
def test_no_whole_number_below_the_first_refused_comes_nearer(steps: list[int], wanted: int) -> None:
    counts = rising(steps)
    found = nearest_whole(lambda value: counts[value - 1] if value <= len(counts) else None, wanted)
    assert abs(counts[found - 1] - wanted) == abs(counts[nearest(counts, wanted) - 1] - wanted)


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 10**10))
def test_a_straight_line_takes_few_counts(start: int, slope: int, wanted: int) -> None:
    count = Counting(lambda value: start + slope * value)
    found = nearest_whole(count, wanted)
    assert abs(start + slope * found - wanted) <= max(slope / 2, start + slope - wanted)
    assert len(count.calls) <= 5


def test_the_smaller_of_two_equally_near_is_taken() -> None:
    assert nearest_whole(lambda value: 10 * value, 45) == 4


def test_a_count_that_grows_faster_than_a_line_is_met() -> None:
    count = Counting(lambda value: value**3)
    assert nearest_whole(count, 10**9) == 1000
    assert len(count.calls) < 45


def test_a_budget_below_the_smallest_and_one_above_the_largest() -> None:
    assert nearest_whole(lambda value: 100 * value, 3) == 1
    assert nearest_whole(lambda value: 100 * value if value <= 7 else None, 10**6) == 7
    assert nearest_whole(lambda value: 100 * value, 10**6, most=7) == 7


@given(
    st.dictionaries(st.integers(1, 64), st.one_of(st.none(), st.integers(0, 100)), min_size=1, max_size=8),
    st.integers(0, 120),
)
def test_none_of_the_values_comes_nearer(counts: dict[int, int | None], wanted: int) -> None:
    found = counts[nearest_of(list(counts), counts.__getitem__, wanted)]
    accepted = [count for count in counts.values() if count is not None]
    if accepted:
        assert found is not None
        assert abs(found - wanted) == min(abs(count - wanted) for count in accepted)


@given(st.lists(st.integers(100, 10_000), min_size=1, max_size=8), st.floats(0.01, 1))
def test_a_share_comes_within_one_parameter_a_layer(entries: list[int], asked: float) -> None:
    def count(share: float) -> int | None:
        kept = [int(size * (1 - share)) for size in entries]
        return None if min(kept) < 1 else sum(kept)

    wanted = max(int(asked * sum(entries)), 2 * sum(entries) // min(entries))
    found = count(nearest_share(count, wanted))
    assert found is not None
    assert abs(found - wanted) <= len(entries)


@pytest.mark.parametrize(("wanted", "kept"), [(1, 10), (10**6, 1000)])
def test_a_share_out_of_reach_is_the_nearest_accepted(wanted: int, kept: int) -> None:
    def count(share: float) -> int | None:
        left = int(1000 * (1 - share))
        return left if left >= 10 else None

    assert count(nearest_share(count, wanted)) == pytest.approx(kept, abs=1)
