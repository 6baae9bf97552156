"""The value of one setting that brings a parameter count nearest to a wanted one.

A count of None means that a method refuses the value as too large.
"""

from collections.abc import Callable, Sequence

WholeCount = Callable[[int], int | None]
ShareCount = Callable[[float], int | None]


def nearest_whole(count: WholeCount, wanted: int, most: int | None = None) -> int:
    """The whole number from 1 whose count is nearest to ``wanted``; the smaller one of two that are equally near.

    Args:
        count: Grows with its argument, or stays equal. A straight line takes about four calls.
        wanted: The count to come near to.
        most: The largest number allowed.
    """
    counted = _Remembered(count)
    if not counted.is_below(1, wanted) or most == 1:
        return 1
    below, above = _bracket(counted, wanted, most)
    if above is None:
        return below
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if counted.is_below(middle, wanted) else (below, middle)
    at_below, at_above = counted(below), counted(above)
    assert at_below is not None, "what is below was accepted"
    return below if at_above is None or wanted - at_below <= at_above - wanted else above


def nearest_of(values: Sequence[int], count: WholeCount, wanted: int) -> int:
    """The one of a few values whose count is nearest to ``wanted``; the first one of those that are equally near."""
    counted = {value: count(value) for value in values}
    distances = {value: abs(found - wanted) for value, found in counted.items() if found is not None}
    return min(distances or counted, key=lambda value: distances.get(value, 0))


def nearest_share(count: ShareCount, wanted: int) -> float:
    """The share in [0, 1) whose count is nearest to ``wanted``; counts fall as the share grows, and None means too
    few."""
    low, high = 0.0, 1.0
    best, distance = 0.0, None
    for _ in range(40):
        middle = (low + high) / 2
        found = count(middle)
        if found is not None and (distance is None or abs(found - wanted) < distance):
            best, distance = middle, abs(found - wanted)
        if distance == 0:
            break
        low, high = (middle, high) if found is not None and found > wanted else (low, middle)
    return best


class _Remembered:
    """Counts that are asked for once."""

    def __init__(self, count: WholeCount) -> None:
        self._count = count
        self._known: dict[int, int | None] = {}

    def __call__(self, value: int) -> int | None:
        if value not in self._known:
            self._known[value] = self._count(value)
        return self._known[value]

    def is_below(self, value: int, wanted: int) -> bool:
        found = self(value)
        return found is not None and found < wanted


def _bracket(counted: _Remembered, wanted: int, most: int | None) -> tuple[int, int | None]:
    """Two numbers with the wanted count between theirs; None for the second where ``most`` is not enough.

    Most counts are straight lines, so the line through 1 and 2 tells where to look.
    """
    at_one, at_two = counted(1), counted(2)
    assert at_one is not None
    if at_two is None or at_two >= wanted:
        return 1, 2
    guess = 1 + max(1, (wanted - at_one) // max(1, at_two - at_one))
    below, above = 2, max(3, guess)
    while True:
        above = above if most is None else min(above, most)
        if not counted.is_below(above, wanted):
            return max(below, above - 1 if counted.is_below(above - 1, wanted) else below), above
        if above == most:
            return above, None
        below, above = above, above + max(1, above - guess + 1)
