"""How far two settings are apart, by what both did on the same items with the same seeds.

The seeds of a setting are averaged for each item; the interval and the test are then over the items' differences, so
that an item that is hard for both says nothing. The interval is the wider of two: the percentile bootstrap over the
items (B. Efron, Annals of Statistics 7, 1979), resampled within each benchmark, and Student's over the differences of
the seeds; a setting with a single run, such as the base, is set against every seed of the other. The test is the sign
test over the items that differ.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from scipy.stats import bootstrap

from neuroada.report.significance import Item, sign_test
from neuroada.tasks import intervals

_RESAMPLES = 9999
Values = Mapping[Item, float]
"""Item -> what a run got for it: 1 if it was right, or a loss."""


@dataclass(frozen=True)
class Difference:
    """The mean of one setting minus that of another.

    Attributes:
        mean: Over items and seeds; each benchmark has the same weight.
        low: Lower end of its 95 % interval.
        high: Upper end.
        higher: Items with a higher mean over the seeds.
        lower: Items with a lower one.
    """

    mean: float
    low: float
    high: float
    higher: int
    lower: int

    @property
    def p(self) -> float:
        """Of the sign test: how likely so uneven a split of the items is if neither setting is better."""
        return sign_test(self.higher, self.lower)


def difference(mine: Mapping[int, Values], theirs: Mapping[int, Values]) -> Difference | None:
    """Of two settings.

    Args:
        mine: Seed -> item -> value.
        theirs: The same of the other setting; only the items of all runs count.

    Returns:
        None if they share no item.
    """
    if not mine or not theirs:
        return None
    runs = [*mine.values(), *theirs.values()]
    shared = [item for item in runs[0] if all(item in run for run in runs)]
    if not shared:
        return None
    strata: dict[str, list[float]] = {}
    for item in shared:
        of_item = _mean(mine, item) - _mean(theirs, item)
        strata.setdefault(item.benchmark, []).append(of_item)
    bounds = [_over_items(list(strata.values()))]
    by_seed = _by_seed(mine, theirs, shared)
    if len(by_seed) > 1:
        low, high = intervals.of_mean(by_seed)
        bounds.append((low, high))
    lows, highs = zip(*bounds, strict=True)
    differences = [value for values in strata.values() for value in values]
    return Difference(
        mean=statistics.fmean(map(statistics.fmean, strata.values())),
        low=min(lows),
        high=max(highs),
        higher=sum(value > 0 for value in differences),
        lower=sum(value < 0 for value in differences),
    )


def _mean(runs: Mapping[int, Values], item: Item) -> float:
    return statistics.fmean(values[item] for values in runs.values())


def _by_seed(mine: Mapping[int, Values], theirs: Mapping[int, Values], shared: Sequence[Item]) -> list[float]:
    """The difference of each seed that both have; of each seed of one, if the other has a single run, as a base has."""
    if len(theirs) == 1:
        (other,) = theirs.values()
        return [_macro(values, other, shared) for values in mine.values()]
    if len(mine) == 1:
        (own,) = mine.values()
        return [_macro(own, values, shared) for values in theirs.values()]
    return [_macro(mine[seed], theirs[seed], shared) for seed in mine if seed in theirs]


def _macro(mine: Values, theirs: Values, shared: Sequence[Item]) -> float:
    """The difference of one seed; each benchmark has the same weight."""
    strata: dict[str, list[float]] = {}
    for item in shared:
        strata.setdefault(item.benchmark, []).append(mine[item] - theirs[item])
    return statistics.fmean(map(statistics.fmean, strata.values()))


def _over_items(strata: Sequence[Sequence[float]]) -> tuple[float, float]:
    if any(len(values) < 2 for values in strata):
        return float("-inf"), float("inf")  # one item says nothing about others
    found = bootstrap(
        [numpy.asarray(values) for values in strata],
        _mean_of_means,
        n_resamples=_RESAMPLES,
        confidence_level=intervals.CONFIDENCE,
        method="percentile",
        rng=numpy.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _mean_of_means(*strata: Any, axis: int) -> Any:
    return sum(values.mean(axis=axis) for values in strata) / len(strata)
