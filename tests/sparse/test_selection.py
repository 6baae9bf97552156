"""The k strongest connections of each neuron, ties towards the lowest column."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from neuroada.sparse import selection
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.selection import layer_seed, select_columns, top_k_per_row

WEIGHT_ALONE = ("magnitude", "random", "smallest")


def strongest_by_sorting(weight: Tensor, top_k: int) -> list[list[int]]:
    """The definition, in plain Python: sort by (-|w|, column), keep the first k."""
    rows = weight.abs().tolist()
    return [sorted(sorted(range(len(row)), key=lambda column: (-row[column], column))[:top_k]) for row in rows]


@st.composite
def tied_weights(draw: st.DrawFn) -> Tensor:
    """Small matrices with few distinct values, so that most rows tie at the boundary."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    entries = draw(st.lists(st.integers(-3, 3), min_size=rows * columns, max_size=rows * columns))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
    return torch.tensor(entries).view(rows, columns).to(dtype)


@given(tied_weights(), st.integers(1, 12))
def test_selects_the_largest_magnitudes_and_of_equal_ones_the_lowest_columns(weight: Tensor, top_k: int) -> None:
    assert select_columns(weight, top_k, "magnitude").tolist() == strongest_by_sorting(weight, top_k)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_bf16_rows_that_tie_at_the_boundary_are_resolved_too(seed: int, top_k: int) -> None:
    weight = torch.randn(4, 300, generator=torch.Generator().manual_seed(seed)).bfloat16()
    assert select_columns(weight, top_k, "magnitude").tolist() == strongest_by_sorting(weight, top_k)


@given(tied_weights(), st.integers(1, 12))
def test_smallest_is_the_largest_of_the_negated_magnitudes(weight: Tensor, top_k: int) -> None:
    rows = weight.abs().tolist()
    expected = [sorted(sorted(range(len(row)), key=lambda column: (row[column], column))[:top_k]) for row in rows]
    assert select_columns(weight, top_k, "smallest").tolist() == expected


@given(tied_weights(), st.integers(1, 12), st.sampled_from(WEIGHT_ALONE))
def test_every_selection_gives_k_distinct_columns_in_ascending_order(weight: Tensor, top_k: int, name: str) -> None:
    columns = select_columns(weight, top_k, name)
    assert columns.dtype == torch.int32
    assert columns.shape == (weight.shape[0], min(top_k, weight.shape[1]))
    assert (columns.diff(dim=1) > 0).all()
    assert columns.min() >= 0
    assert columns.max() < weight.shape[1]


def test_more_than_all_inputs_means_all_of_them() -> None:
    assert select_columns(torch.randn(2, 3), 7, "magnitude").tolist() == [[0, 1, 2], [0, 1, 2]]


def test_zeros_of_either_sign_tie() -> None:
    assert select_columns(torch.tensor([[0.0, -0.0, 0.0]]), 2, "magnitude").tolist() == [[0, 1]]


def test_infinite_weights_can_be_ranked() -> None:
    assert select_columns(torch.tensor([[1.0, float("-inf"), 2.0]]), 2, "magnitude").tolist() == [[1, 2]]


@pytest.mark.parametrize("name", WEIGHT_ALONE)
def test_reading_the_weight_in_blocks_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randint(-3, 4, (13, 10), generator=torch.Generator().manual_seed(0)).float()
    whole = select_columns(weight, 4, name, seed=5)
    for block_entries in (1, 29, 40):
        monkeypatch.setitem(selection._BLOCK_ENTRIES, "cpu", block_entries)
        assert select_columns(weight, 4, name, seed=5).equal(whole)


@pytest.mark.parametrize("name", WEIGHT_ALONE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_copy_of_a_large_weight_is_made(
    name: str, dtype: torch.dtype, largest_result: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(selection._BLOCK_ENTRIES, "cpu", 400)
    weight = torch.randint(-3, 4, (60, 40)).to(dtype)  # rows that tie, too
    with largest_result() as largest:
        select_columns(weight, 5, name)
    assert largest.num_entries == 400


class Sends(TorchFunctionMode):
    """Counts the tensors that are sent to a GPU, which is not here: they stay where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.to and args[1:] == (GPU,):
            self.rows.append(len(args[0]))
            return args[0]
        return func(*args, **(kwargs or {}))


GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(("name", "sent"), [("magnitude", [4, 4, 2]), ("smallest", [4, 4, 2]), ("random", [])])
def test_weights_on_the_cpu_are_ranked_on_another_device_block_by_block_where_each_ranks_alike(
    name: str, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(selection._BLOCK_ENTRIES, "cuda", 4 * 6)
    weight_OI = torch.randn(10, 6)
    with Sends() as sends:
        found = select_columns(weight_OI, 2, name, device=GPU)
    assert sends.rows == sent
    assert torch.equal(found, select_columns(weight_OI, 2, name))


def test_random_columns_depend_on_the_seed_alone() -> None:
    weight = torch.randn(20, 50)
    first = select_columns(weight, 3, "random", seed=1)
    assert select_columns(torch.zeros(20, 50), 3, "random", seed=1).equal(first)
    assert not select_columns(weight, 3, "random", seed=2).equal(first)


def test_layers_and_seeds_draw_independently() -> None:
    seeds = {layer_seed(seed, name) for seed in range(3) for name in ("q_proj", "k_proj", "1 q_proj")}
    assert len(seeds) == 9
    assert layer_seed(0, "q_proj") == layer_seed(0, "q_proj")


@pytest.mark.parametrize("row", [[float("nan"), 1.0, 2.0], [float("nan"), 1.0, 1.0], [float("nan")] * 3])
def test_a_weight_with_nan_is_refused(row: list[float]) -> None:
    weight = torch.stack([torch.tensor([3.0, 2.0, 1.0]), torch.tensor(row)])
    with pytest.raises(AdapterError, match="NaN"):
        top_k_per_row(weight.abs(), 2)
