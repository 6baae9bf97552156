"""Numbers over the seeds of a cell, and 95 % intervals of accuracies.

Seeds say more than items: with several seeds, the interval is Student's over their means. A single run has only its
items: each benchmark has Wilson's interval, and the macro average combines their half-widths like independent errors
(the MOVER method of G. Zou and A. Donner, Statistics in Medicine 27, 2008). One benchmark simply has Wilson's interval.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t  # type: ignore[attr-defined]  # made at import

from neuroada.tasks.scoring import interval

SPREAD = "±"
CONFIDENCE = 0.95


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


def over_seeds(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two accuracies in percent, clipped to 0 and 100."""
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(max(mean - reach, 0.0), min(mean + reach, 100.0))


def over_items(scores: Mapping[str, Mapping[str, Any]]) -> Interval | None:
    """The 95 % interval of the macro average of one run; None unless every benchmark has its counts.

    Args:
        scores: Benchmark -> its entry in ``metrics.json``.
    """
    if not scores or not all(score.get("n") and "correct" in score for score in scores.values()):
        return None
    shares = [score["correct"] / score["n"] for score in scores.values()]
    bounds = [bounds_of(score) for score in scores.values()]
    mean = statistics.fmean(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, bounds, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, bounds, strict=True))) / len(shares)
    return Interval(100 * (mean - below), 100 * (mean + above))


def bounds_of(score: Mapping[str, Any]) -> tuple[float, float]:
    """Wilson's 95 % interval of a benchmark as fractions; computed from the counts if none was recorded."""
    low, high = score.get("ci95") or interval(score["correct"], score["n"])
    return low, high
