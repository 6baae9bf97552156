"""The gradient of the selected entries is the dense weight gradient, gathered, whichever way it is computed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neuroada.sparse import gradient
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import best_way, check_way, sampled_weight_gradient, why_triton_fails
from neuroada.sparse.selection import select_columns

NUM_TOKENS, NUM_OUTPUTS, NUM_INPUTS = 1301, 37, 29  # odd, and more than one chunk of tokens
CPU_WAYS = ["auto", "gemm", "sampled", "gathered"]
# The error allowed per unit of the exact sum's standard deviation: rounding of the inputs is not part of it.
PRECISION = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def operands(dtype: torch.dtype, top_k: int, layout: str = "contiguous") -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (tokens, outputs), input (tokens, inputs) and columns (outputs, k)."""
    generator = torch.Generator().manual_seed(top_k)

    def draw(width: int) -> Tensor:
        if layout == "transposed":
            return torch.randn(width, NUM_TOKENS, generator=generator).to(dtype).T
        if layout == "strided":
            return torch.randn(NUM_TOKENS, 2 * width, generator=generator).to(dtype)[:, ::2]
        return torch.randn(NUM_TOKENS, width, generator=generator).to(dtype)

    columns = select_columns(torch.randn(NUM_OUTPUTS, NUM_INPUTS, generator=generator), top_k, "magnitude")
    return draw(NUM_OUTPUTS), draw(NUM_INPUTS), columns


def exact(grad: Tensor, input: Tensor, columns: Tensor) -> Tensor:
    return (grad.double().T @ input.double()).gather(1, columns.long())


@pytest.mark.parametrize("way", CPU_WAYS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("top_k", [1, 5, 20, NUM_INPUTS])
@pytest.mark.parametrize("dtype", PRECISION)
def test_equals_the_dense_product_gathered(dtype: torch.dtype, top_k: int, layout: str, way: str) -> None:
    grad, input, columns = operands(dtype, top_k, layout)
    result_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    result = sampled_weight_gradient(grad, input, columns, result_dtype, way)
    assert result.dtype == result_dtype
    error = (result - exact(grad, input, columns)).abs().max().item() / NUM_TOKENS**0.5
    assert error < PRECISION[dtype]


@pytest.mark.parametrize("way", CPU_WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_in_half_precision_get_the_rounded_fp32_gradient(dtype: torch.dtype, way: str) -> None:
    """As TRL makes them, which casts what trains."""
    grad, input, columns = operands(torch.float32, 5)
    result = sampled_weight_gradient(grad, input, columns, dtype, way)
    assert result.equal(sampled_weight_gradient(grad, input, columns, torch.float32, way).to(dtype))


@pytest.mark.parametrize("way", ["sampled", "gathered"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_selected_products_of_half_precision_are_added_in_fp32(dtype: torch.dtype, way: str) -> None:
    grad, input, columns = operands(dtype, 5)
    result = sampled_weight_gradient(grad, input, columns, torch.float32, way)
    torch.testing.assert_close(result.double(), exact(grad, input, columns), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("way", CPU_WAYS)
def test_a_gradient_in_lower_precision_than_the_input_is_taken(way: str) -> None:
    grad, input, columns = operands(torch.float32, 5)
    result = sampled_weight_gradient(grad.bfloat16(), input, columns, torch.float32, way)
    error = (result - exact(grad, input, columns)).abs().max().item() / NUM_TOKENS**0.5
    assert result.dtype == torch.float32
    assert error < PRECISION[torch.bfloat16]


@pytest.mark.parametrize("way", CPU_WAYS)
def test_an_expanded_gradient_as_that_of_a_sum_is_taken(way: str) -> None:
    _, input, columns = operands(torch.float32, 2)
    grad = torch.ones(()).expand(NUM_TOKENS, NUM_OUTPUTS)
    result = sampled_weight_gradient(grad, input, columns, torch.float32, way)
    torch.testing.assert_close(result, input.sum(0)[columns.long()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block_entries", [1, 3 * NUM_INPUTS, 4 * NUM_INPUTS + 1])
def test_blocks_of_rows_change_nothing(block_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grad, input, columns = operands(torch.float64, 3)
    whole = sampled_weight_gradient(grad, input, columns, torch.float64, "gemm")
    monkeypatch.setattr(gradient, "BLOCK_ENTRIES", block_entries)
    torch.testing.assert_close(sampled_weight_gradient(grad, input, columns, torch.float64, "gemm"), whole)


@pytest.mark.parametrize("way", CPU_WAYS)
def test_no_tokens_means_no_gradient(way: str) -> None:
    columns = torch.zeros(NUM_OUTPUTS, 1, dtype=torch.int32)
    grad, input = torch.empty(0, NUM_OUTPUTS), torch.empty(0, NUM_INPUTS)
    assert sampled_weight_gradient(grad, input, columns, torch.float32, way).equal(torch.zeros(NUM_OUTPUTS, 1))


def test_a_compiler_and_a_planner_see_one_operator_and_eager_code_calls_past_it() -> None:
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    grad, input, columns = operands(torch.float32, 2)
    seen: list[Any] = []
    alone = sampled_weight_gradient(grad, input, columns, torch.float32)
    with Watch():
        watched = sampled_weight_gradient(grad, input, columns, torch.float32)
    assert seen[0] is torch.ops.neuroada.sampled_weight_gradient.default
    assert watched.equal(alone)


@pytest.mark.parametrize("way", CPU_WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_a_well_formed_operator(dtype: torch.dtype, way: str) -> None:
    grad, input, columns = operands(dtype, 2)
    operator = torch.ops.neuroada.sampled_weight_gradient.default
    checks = torch.library.opcheck(operator, (grad, input, columns, torch.float32, way))
    assert set(checks.values()) == {"SUCCESS"}


# The choice


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_features", [576, 1536, 4096, 11008])
def test_on_a_cpu_few_columns_are_gathered_some_sampled_and_all_a_dense_product(
    dtype: torch.dtype, in_features: int
) -> None:
    assert best_way(in_features, 1, dtype, "cpu") == "gathered"
    assert best_way(in_features, 10, dtype, "cpu") == "sampled"
    assert best_way(in_features, in_features, dtype, "cpu") == "gemm"


def test_on_cuda_one_column_is_always_sampled_and_more_in_half_precision_only_of_long_rows() -> None:
    assert best_way(64, 1, torch.bfloat16, "cuda") == "triton"
    assert best_way(4000, 20, torch.bfloat16, "cuda") == "triton"
    assert best_way(3999, 20, torch.bfloat16, "cuda") == "gemm"
    assert best_way(4096, 20, torch.float32, "cuda") == "triton"


def test_devices_without_a_kernel_take_the_dense_product() -> None:
    assert best_way(4096, 1, torch.bfloat16, "mps") == "gemm"


def test_an_unknown_way_is_refused_with_the_choices() -> None:
    with pytest.raises(AdapterError, match="gradient='fast': choose one of auto, gemm, sampled, gathered, triton,"):
        check_way("fast")


def test_triton_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "has_triton", lambda: False)
    with pytest.raises(AdapterError, match=r"gradient='triton_rows' needs a working triton .the package is not"):
        check_way("triton_rows")


def _without_compiler(*_: object) -> Tensor:
    raise RuntimeError("Failed to find C compiler.\nPlease specify it with CC.")


def test_a_node_without_a_compiler_says_so_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "has_triton", lambda: True)
    monkeypatch.setattr(gradient, "why_triton_fails", lambda device: "Failed to find C compiler.")
    with pytest.raises(AdapterError, match=r"working triton .Failed to find C compiler.*use gradient='auto'"):
        check_way("triton", torch.device("cuda"))


def test_what_a_tiny_kernel_raises_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "by_triton", _without_compiler)
    why_triton_fails.cache_clear()
    assert why_triton_fails(torch.device("cpu")) == "Failed to find C compiler."
    why_triton_fails.cache_clear()


def test_where_triton_fails_auto_takes_the_dense_product_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gradient, "best_way", lambda *_: "triton")  # as on a GPU
    monkeypatch.setattr(gradient, "has_triton", lambda: True)
    monkeypatch.setattr(gradient, "by_triton", _without_compiler)
    for cached in (why_triton_fails, gradient._works):
        cached.cache_clear()
    grad, input, columns = operands(torch.float32, 2)
    results = [sampled_weight_gradient(grad, input, columns, torch.float32) for _ in range(2)]
    for cached in (why_triton_fails, gradient._works):
        cached.cache_clear()
    assert results[0].equal(sampled_weight_gradient(grad, input, columns, torch.float32, "gemm"))
    assert [record.message for record in caplog.records if "C compiler" in record.message] == [
        "triton does not work here (Failed to find C compiler.): gradients are computed by dense products, more slowly"
    ]
