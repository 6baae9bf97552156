"""The metrics of a benchmark of labels are those of scikit-learn and scipy, where they are defined and where not."""

import random
import warnings

import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from neuroada.tasks.label_metrics import measured_labels, measured_values

_random = random.Random(0)
_GOLD = [_random.randrange(2) for _ in range(60)]
_NEAR = [label if _random.random() < 0.7 else 1 - label for label in _GOLD]
_GOLD_3 = [_random.randrange(3) for _ in range(60)]
_NEAR_3 = [label if _random.random() < 0.6 else _random.randrange(3) for label in _GOLD_3]

TWO = [
    pytest.param(_NEAR, _GOLD, id="mixed"),
    pytest.param([1] * 60, _GOLD, id="one class predicted"),
    pytest.param([0] * 60, _GOLD, id="the other predicted"),
    pytest.param(_GOLD, _GOLD, id="all right"),
    pytest.param([1 - label for label in _GOLD], _GOLD, id="all wrong"),
    pytest.param(_NEAR, [1] * 60, id="one class is right"),
    pytest.param([1] * 60, [1] * 60, id="one class at all"),
]


@pytest.mark.parametrize(("predicted", "gold"), TWO)
def test_two_classes_score_as_in_scikit_learn(predicted: list[int], gold: list[int]) -> None:
    found = measured_labels(["accuracy", "f1", "matthews"], predicted, gold, count=2).scores
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(gold, predicted))
        assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(gold, predicted), abs=1e-6)
        assert found["matthews"] == pytest.approx(sklearn_metrics.matthews_corrcoef(gold, predicted), abs=1e-6)


def test_three_classes_score_as_in_scikit_learn() -> None:
    found = measured_labels(["accuracy", "f1", "matthews"], _NEAR_3, _GOLD_3, count=3).scores
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(_GOLD_3, _NEAR_3))
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(_GOLD_3, _NEAR_3, average="macro"), abs=1e-6)
    assert found["matthews"] == pytest.approx(sklearn_metrics.matthews_corrcoef(_GOLD_3, _NEAR_3), abs=1e-6)


def test_correlations_are_those_of_scipy_with_ties() -> None:
    gold = [round(_random.uniform(0, 5)) / 2 for _ in range(50)]
    predicted = [value + _random.gauss(0, 1) for value in gold]
    found = measured_values(["pearson", "spearman"], predicted, gold).scores
    assert found["pearson"] == pytest.approx(stats.pearsonr(predicted, gold).statistic, abs=1e-6)
    assert found["spearman"] == pytest.approx(stats.spearmanr(predicted, gold).statistic, abs=1e-6)


def test_a_correlation_of_equal_predictions_is_zero() -> None:
    assert measured_values(["pearson", "spearman"], [1.0] * 9, list(range(9))).scores == {"pearson": 0, "spearman": 0}


def test_the_interval_is_that_of_the_first_metric_and_the_same_every_time() -> None:
    found = measured_labels(["matthews", "accuracy"], _NEAR, _GOLD, count=2)
    assert found == measured_labels(["matthews", "accuracy"], _NEAR, _GOLD, count=2)
    assert found.name == "matthews"
    assert found.ci95 is not None
    low, high = found.ci95
    assert -1 <= low < found.score < high <= 1
    assert measured_labels(["accuracy", "matthews"], _NEAR, _GOLD, count=2).ci95 is None  # a count of items
