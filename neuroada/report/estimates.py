"""Numbers over the seeds of a cell, and 95 % intervals of accuracies.

An accuracy varies with the items that were asked and with the seed, and an interval covers both:

- Items: a benchmark has Wilson's interval. The macro average weighs benchmarks equally whatever their size, so its
  interval is stratified: the half-widths of the benchmarks' intervals combine like independent errors (the MOVER method
  of G. Zou and A. Donner, Statistics in Medicine 27, 2008). Several seeds answer the same items, so they count as one
  run, with the mean of their bounds, and not as more items.
- Seeds: Student's interval of the mean, if there are at least two.

Each bound is that of the wider one. So two seeds that happen to agree do not look certain.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.tasks import intervals

SPREAD = "±"


@dataclass(frozen=True)
class Estimate:
    """A number over the seeds of a cell."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, decimals: int) -> str:
        """``85.3``, or ``85.3 ± 0.4`` for several values."""
        spread = "" if self.std is None else f" {SPREAD} {self.std:.{decimals}f}"
        return f"{self.mean:,.{decimals}f}{spread}"


@dataclass(frozen=True)
class Interval:
    """Bounds of an accuracy in percent."""

    low: float
    high: float

    @property
    def text(self) -> str:
        """``84.9–94.4``."""
        return f"{self.low:.1f}–{self.high:.1f}"


def combined(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> Interval | None:
    """The 95 % interval of the mean macro accuracy of runs that differ only in their seed; None without counts.

    Args:
        runs: For each run, benchmark -> its entry in ``metrics.json``.
    """
    scored = [scores for scores in runs if scores]
    of_items = over_items(scored)
    if of_items is None or len(scored) == 1:
        return of_items
    of_seeds = over_seeds([100 * statistics.fmean(map(_share, scores.values())) for scores in scored])
    return Interval(min(of_items.low, of_seeds.low), max(of_items.high, of_seeds.high))


def over_seeds(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two scores in percent, which ends at 0 and 100.

    A correlation can be negative; then it ends at -100.
    """
    low, high = intervals.of_mean(values)
    return Interval(max(low, -100.0 if min(values) < 0 else 0.0), min(high, 100.0))


def over_items(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> Interval | None:
    """The 95 % interval over the items of the mean macro accuracy; None unless every benchmark has its counts.

    Args:
        runs: For each seed, benchmark -> its entry in ``metrics.json``; the same benchmarks in each.
    """
    if not runs or not all(runs) or not all(_is_counted(score) for scores in runs for score in scores.values()):
        return None
    strata = [[scores[name] for scores in runs] for name in runs[0]]
    shares = [statistics.fmean(map(_share, scores)) for scores in strata]
    bounds = [_bounds_of_mean(scores) for scores in strata]
    mean = statistics.fmean(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, bounds, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, bounds, strict=True))) / len(shares)
    return Interval(100 * (mean - below), 100 * (mean + above))


def _is_counted(score: Mapping[str, Any]) -> bool:
    return bool(score.get("n")) and "correct" in score


def _share(score: Mapping[str, Any]) -> float:
    """What the interval of a benchmark is about: its score; the share of correct items where none was recorded."""
    recorded = score.get("protocol")
    return float(score["correct"] / score["n"] if recorded is None else recorded)


def _bounds_of_mean(scores: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The mean bounds of several seeds on the same items."""
    lows, highs = zip(*map(bounds_of, scores), strict=True)
    return statistics.fmean(lows), statistics.fmean(highs)


def bounds_of(score: Mapping[str, Any]) -> tuple[float, float]:
    """Wilson's 95 % interval of a benchmark as fractions; computed from the counts if none was recorded."""
    low, high = score.get("ci95") or intervals.of_share(score["correct"], score["n"])
    return low, high
