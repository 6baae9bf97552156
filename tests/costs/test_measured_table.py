"""The table of fastest ways follows from the rows of scope ``gradient``."""

import json
from typing import Any

import pytest

from neuroada.costs.measured_table import fastest_ways, merged_table


def row(method: str, step_ms: float | None, top_k: int = 1, **other: Any) -> dict[str, Any]:
    about = {"dtype": "bfloat16", "in_features": 4096, "host_ms": None, "failed": None}
    return {**about, "method": method, "top_k": top_k, "step_ms": step_ms, **other}


def test_the_fastest_over_all_outputs_and_tokens_counts() -> None:
    rows = [row("gemm", 1.0), row("triton_rows", 0.5), row("gemm", 1.0), row("triton_rows", 1.5), row("floor", 0.1)]
    assert fastest_ways(rows) == {"half": [(1, 4096, "triton_rows")]}  # 0.75 of the product of times


@pytest.mark.parametrize(("slower", "best"), [(1.05, "triton_groups"), (1.2, "gemm")])
def test_of_ways_that_are_as_fast_the_one_that_takes_the_host_least_counts(slower: float, best: str) -> None:
    rows = [row("gemm", 0.25, 20, host_ms=0.33), row("triton_groups", 0.25 * slower, 20, host_ms=0.09)]
    assert fastest_ways(rows) == {"half": [(20, 4096, best)]}


def test_what_failed_anywhere_is_not_the_fastest() -> None:
    rows = [row("gemm", 1.0), row("triton_rows", 0.5), row("gemm", 1.0), row("triton_rows", None, failed="wrong")]
    assert fastest_ways(rows) == {"half": [(1, 4096, "gemm")]}


def test_a_place_where_all_failed_has_no_way() -> None:
    assert fastest_ways([row("gemm", None, failed="out of memory")]) == {}


def test_precisions_sizes_and_shapes_are_places_of_their_own() -> None:
    rows = [row("gemm", 1.0, 20), row("gathered", 2.0, 1, dtype="float32"), row("sampled", 1.0, 5, in_features=576)]
    assert fastest_ways(rows) == {
        "half": [(5, 576, "sampled"), (20, 4096, "gemm")],
        "full": [(1, 4096, "gathered")],
    }


@pytest.mark.parametrize("kind", ["9.0", "8.9"])
def test_other_gpus_and_precisions_of_the_table_stay(kind: str) -> None:
    before = {"9.0": {"full": [[1, 4096, "gemm"]], "half": [[1, 64, "sampled"]]}}
    after = json.loads(merged_table(json.dumps(before), kind, [row("gemm", 1.0)]))
    measured = {"half": [[1, 4096, "gemm"]]}
    assert after[kind] == ({**before["9.0"], **measured} if kind == "9.0" else measured)
    assert after["9.0"]["full"] == before["9.0"]["full"]
