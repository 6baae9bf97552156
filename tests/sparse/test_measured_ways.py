"""What was measured on a kind of GPU decides there; elsewhere the rule does."""

import pytest
import torch

from neuroada.sparse import measured_ways
from neuroada.sparse.gradient import WAYS, best_way
from neuroada.sparse.measured_ways import Measured, nearest, stored

TABLE = {
    "9.0": {"half": [Measured(1, 4096, "triton_rows"), Measured(20, 4096, "gemm"), Measured(20, 11008, "sampled")]}
}


@pytest.mark.parametrize(
    ("top_k", "in_features", "way"),
    [
        (1, 4096, "triton_rows"),
        (2, 4096, "triton_rows"),
        (5, 4096, "gemm"),  # a fourth of 20, and five times 1
        (20, 4096, "gemm"),
        (40, 8192, "sampled"),
    ],
)
def test_the_nearest_measurement_counts(top_k: int, in_features: int, way: str) -> None:
    assert nearest(TABLE, "9.0", "half", in_features, top_k) == way


@pytest.mark.parametrize(("top_k", "in_features"), [(81, 4096), (20, 1023), (64, 8192)])
def test_what_is_far_from_all_measurements_is_not_guessed(top_k: int, in_features: int) -> None:
    assert nearest(TABLE, "9.0", "half", in_features, top_k) is None


@pytest.mark.parametrize(("kind", "precision"), [("8.0", "half"), ("9.0", "full")])
def test_what_was_not_measured_is_not_guessed(kind: str, precision: str) -> None:
    assert nearest(TABLE, kind, precision, 4096, 1) is None


def test_it_goes_before_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_ways.measured_way.cache_clear()
    monkeypatch.setattr(measured_ways, "stored", lambda: TABLE)
    try:
        assert best_way(11008, 20, torch.bfloat16, "cuda", "9.0") == "sampled"
        assert best_way(11008, 20, torch.bfloat16, "cuda", "8.0") == "triton"
        assert best_way(11008, 20, torch.bfloat16, "cuda") == "triton"
    finally:
        measured_ways.measured_way.cache_clear()


def test_the_stored_table_names_ways_that_there_are() -> None:
    ways = {one.way for precisions in stored().values() for measured in precisions.values() for one in measured}
    assert ways <= set(WAYS)
