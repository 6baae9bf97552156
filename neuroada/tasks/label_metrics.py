"""The metrics of GLUE over the predictions of a benchmark, computed by torchmetrics, with 95 % intervals.

A metric that is undefined is 0: the correlation of predictions that are all equal, for instance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.tasks import intervals

_RESAMPLES = 1000
_SEED = 0
"""Of the resamples: equal predictions have equal intervals."""

Metric = Callable[[Any, Any], Any]
"""(predictions, gold) as tensors of shape (items,) -> a tensor of shape ()."""


@dataclass(frozen=True)
class Measured:
    """The metrics of one benchmark.

    Attributes:
        scores: Metric -> its value, between -1 and 1; the first is the score.
        ci95: Interval of the score by the percentiles of a bootstrap over the items; None for accuracy, whose interval
            is Wilson's.
    """

    scores: dict[str, float]
    ci95: list[float] | None

    @property
    def name(self) -> str:
        """The metric that is the score."""
        return next(iter(self.scores))

    @property
    def score(self) -> float:
        return self.scores[self.name]


def measured_labels(metrics: Sequence[str], predicted: Sequence[int], gold: Sequence[int], count: int) -> Measured:
    """The metrics of a classification.

    Args:
        predicted: Place of the chosen class of each item.
        gold: Place of the right one.
        count: Number of classes.
    """
    import torch  # seconds that those who score nothing need not wait for

    found = {name: _of_labels(name, count) for name in metrics}
    return _measured(found, torch.tensor(predicted), torch.tensor(gold))


def measured_values(metrics: Sequence[str], predicted: Sequence[float], gold: Sequence[float]) -> Measured:
    """The metrics of a regression."""
    import torch

    tensors = (torch.tensor(values, dtype=torch.float64) for values in (predicted, gold))
    return _measured({name: _of_values(name) for name in metrics}, *tensors)


def _measured(metrics: dict[str, Metric], predicted: Any, gold: Any) -> Measured:
    scores = {name: _finite(metric(predicted, gold)) for name, metric in metrics.items()}
    name, metric = next(iter(metrics.items()))
    return Measured(scores, None if name == "accuracy" else _interval(metric, predicted, gold))


def _interval(metric: Metric, predicted: Any, gold: Any) -> list[float]:
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    drawn = [torch.randint(len(gold), (len(gold),), generator=generator) for _ in range(_RESAMPLES)]
    values = torch.tensor([_finite(metric(predicted[items], gold[items])) for items in drawn], dtype=torch.float64)
    ends = torch.tensor([(1 - intervals.CONFIDENCE) / 2, (1 + intervals.CONFIDENCE) / 2], dtype=torch.float64)
    return [float(bound) for bound in values.quantile(ends)]


def _of_labels(name: str, count: int) -> Metric:
    from torchmetrics.functional import classification as functions

    if name == "accuracy":
        return lambda predicted, gold: functions.multiclass_accuracy(predicted, gold, count, average="micro")
    if name == "matthews":
        return lambda predicted, gold: _matthews(predicted, gold, count)
    if count == 2:
        return functions.binary_f1_score
    return lambda predicted, gold: functions.multiclass_f1_score(predicted, gold, count, average="macro")


def _matthews(predicted: Any, gold: Any, count: int) -> Any:
    """0 where one class alone is predicted, or is right, as in scikit-learn: torchmetrics has other numbers there."""
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    is_defined = len(predicted.unique()) > 1 and len(gold.unique()) > 1
    return multiclass_matthews_corrcoef(predicted, gold, count) if is_defined else 0.0


def _of_values(name: str) -> Metric:
    from torchmetrics.functional import regression as functions

    return functions.pearson_corrcoef if name == "pearson" else functions.spearman_corrcoef


def _finite(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else 0.0
