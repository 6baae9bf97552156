"""The gradient of the selected entries is the dense weight gradient, gathered."""

import pytest
import torch

from neuroada.sparse import gradient
from neuroada.sparse.gradient import sampled_weight_gradient
from neuroada.sparse.selection import select_columns

NUM_TOKENS, NUM_OUTPUTS, NUM_INPUTS = 11, 7, 13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("top_k", [1, 5, NUM_INPUTS])
def test_equals_the_dense_product_gathered(dtype: torch.dtype, top_k: int) -> None:
    grad, input = torch.randn(NUM_TOKENS, NUM_OUTPUTS, dtype=dtype), torch.randn(NUM_TOKENS, NUM_INPUTS, dtype=dtype)
    columns = select_columns(torch.randn(NUM_OUTPUTS, NUM_INPUTS), top_k, "magnitude")
    dense = grad.T @ input
    sampled = sampled_weight_gradient(grad, input, columns, dtype)
    assert sampled.dtype == dtype
    torch.testing.assert_close(sampled, dense.gather(1, columns.long()), rtol=0, atol=0)


@pytest.mark.parametrize("block_entries", [1, 3 * NUM_INPUTS, 4 * NUM_INPUTS + 1])
def test_blocks_change_nothing(block_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grad, input = torch.randn(NUM_TOKENS, NUM_OUTPUTS).double(), torch.randn(NUM_TOKENS, NUM_INPUTS).double()
    columns = select_columns(torch.randn(NUM_OUTPUTS, NUM_INPUTS), 3, "magnitude")
    whole = sampled_weight_gradient(grad, input, columns, torch.float64)
    monkeypatch.setattr(gradient, "_BLOCK_ENTRIES", block_entries)
    torch.testing.assert_close(sampled_weight_gradient(grad, input, columns, torch.float64), whole)


def test_no_tokens_means_no_gradient() -> None:
    columns = torch.zeros(NUM_OUTPUTS, 2, dtype=torch.int32)
    sampled = sampled_weight_gradient(torch.empty(0, NUM_OUTPUTS), torch.empty(0, NUM_INPUTS), columns, torch.float32)
    assert sampled.equal(torch.zeros(NUM_OUTPUTS, 2))
