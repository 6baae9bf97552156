"""95 % intervals of shares and of means."""

from collections.abc import Sequence

CONFIDENCE = 0.95


def of_share(num_correct: int, num_items: int) -> list[float]:
    """Wilson's interval of a share: ``[low, high]``."""
    from scipy.stats import binomtest  # half a second, which a mistake in a command need not wait for

    bounds = binomtest(num_correct, num_items).proportion_ci(CONFIDENCE, method="wilson")
    return [float(bounds.low), float(bounds.high)]


def of_mean(values: Sequence[float]) -> list[float]:
    """Student's interval of the mean of at least two values: ``[low, high]``."""
    if len(set(values)) == 1:  # scipy divides by their spread
        return [values[0], values[0]]
    from scipy.stats import ttest_1samp

    bounds = ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return [float(bounds.low), float(bounds.high)]
