"""Rewriting many layers at once writes what each layer would write by itself."""

import copy

import pytest
import torch
from torch import Tensor, nn

from neuroada.sparse import rewrite
from neuroada.sparse.layer import BypassedLinear, bypass_linear
from neuroada.sparse.rewrite import write_values
from neuroada.sparse.selection import select_columns

from .conftest import LargestResult

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def make_layer(dtype: torch.dtype, in_features: int, out_features: int, top_k: int) -> BypassedLinear:
    plain = nn.Linear(in_features, out_features, dtype=dtype).requires_grad_(False)
    layer = bypass_linear(plain, select_columns(plain.weight, top_k, "magnitude"))
    with torch.no_grad():
        layer.values.copy_(torch.randn(out_features, top_k) / 10)
    return layer


def mixed_layers() -> list[BypassedLinear]:
    torch.manual_seed(0)
    return [make_layer(dtype, 9 + i, 5 + i, 1 + i % 3) for dtype in [*DTYPES, torch.float32] for i in range(4)]


def weights(layers: list[BypassedLinear]) -> list[Tensor]:
    return [layer.weight.detach().clone() for layer in layers]


@pytest.mark.parametrize("group_values", [1, 17, 1 << 22])
def test_equals_the_rewrite_of_each_layer(group_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "_GROUP_VALUES", group_values)
    layers = mixed_layers()
    before, one_by_one = weights(layers), copy.deepcopy(layers)
    for layer in one_by_one:
        layer.sync()
    write_values(layers)
    for weight, expected, base in zip(weights(layers), weights(one_by_one), before, strict=True):
        assert weight.equal(expected)
        assert not weight.equal(base)


def test_leaves_values_and_base_entries_alone_and_can_be_repeated() -> None:
    layers = mixed_layers()
    kept = [(layer.values.detach().clone(), layer.bypass.original.clone()) for layer in layers]
    write_values(layers)
    once = weights(layers)
    write_values(layers)
    for layer, weight, (values, original) in zip(layers, once, kept, strict=True):
        assert layer.weight.equal(weight)
        assert layer.values.equal(values)
        assert layer.bypass.original.equal(original)


def test_a_stale_graph_of_any_layer_raises() -> None:
    layers = mixed_layers()
    losses = [layer(torch.randn(2, layer.in_features, dtype=layer.weight.dtype)).sum() for layer in layers]
    write_values(layers)
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_no_layers_is_no_work(largest_result: type[LargestResult]) -> None:
    with largest_result() as seen:
        write_values([])
    assert seen.num_entries == 0


def test_columns_that_are_loaded_or_moved_are_the_ones_that_are_written() -> None:
    torch.manual_seed(0)
    layer, other = (make_layer(torch.float32, 9, 5, 1) for _ in range(2))
    layer.sync()  # the columns in int64 are kept from here on
    other.sync()
    layer.load_state_dict(other.state_dict())
    assert layer.weight.equal(other.weight)
    write_values([layer])
    assert layer.weight.equal(other.weight)
    layer.to(torch.float64)
    layer.bypass.columns = layer.columns.flip(0)
    assert layer.bypass.places().equal(layer.columns.long())
