"""The gradient of the selected entries is the dense weight gradient, gathered, whichever way it is computed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuroada.sparse import gradient
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import best_way, check_way, sampled_weight_gradient
from neuroada.sparse.selection import select_columns

NUM_TOKENS, NUM_OUTPUTS, NUM_INPUTS = 1301, 37, 29  # odd, and more than one chunk of tokens
CPU_WAYS = ["auto", "gemm", "sampled"]
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sampling_half_precision_accumulates_in_fp32(dtype: torch.dtype) -> None:
    grad, input, columns = operands(dtype, 5)
    result = sampled_weight_gradient(grad, input, columns, torch.float32, "sampled")
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
def test_on_a_cpu_small_k_is_sampled_and_all_inputs_are_a_dense_product(dtype: torch.dtype, in_features: int) -> None:
    assert best_way(in_features, 1, dtype, "cpu") == "sampled"
    assert best_way(in_features, in_features, dtype, "cpu") == "gemm"


def test_devices_without_a_kernel_take_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_way(4096, 1, torch.bfloat16, "mps") == "gemm"
    monkeypatch.setattr(gradient, "_has_triton", lambda: False)
    assert best_way(4096, 1, torch.bfloat16, "cuda") == "gemm"
    monkeypatch.setattr(gradient, "_has_triton", lambda: True)
    assert best_way(4096, 1, torch.bfloat16, "cuda") == "triton"


def test_an_unknown_way_is_refused_with_the_choices() -> None:
    with pytest.raises(AdapterError, match="gradient='fast': choose one of auto, gemm, sampled, triton"):
        check_way("fast")


def test_triton_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "_has_triton", lambda: False)
    with pytest.raises(AdapterError, match="needs the package triton"):
        check_way("triton")


# The Triton kernel, run by Triton's interpreter on the CPU. It must be switched on before triton is first imported,
# and torch may have done that already: so in a process of its own, once for all cases.

TRITON_CASES = [
    (num_tokens, num_outputs, num_inputs, top_k, dtype, layout)
    for num_tokens, num_outputs, num_inputs, top_k in [
        (300, 140, 33, 1),
        (300, 17, 33, 5),
        (131, 19, 40, 20),
        (7, 5, 6, 6),
        (1, 1, 1, 1),
        (0, 3, 4, 2),
    ]
    for dtype, layout in [
        ("float32", "contiguous"),
        ("float32", "transposed"),
        ("float32", "strided"),
        ("bfloat16", "contiguous"),
        ("bfloat16", "transposed"),
        ("float16", "strided"),
        ("float64", "contiguous"),
    ]
]

TRITON_PROGRAM = """
import json, sys, torch
from neuroada.sparse.gradient import sampled_weight_gradient

def draw(num_tokens, width, dtype, layout):
    if layout == "transposed":
        return torch.randn(width, num_tokens).to(dtype).T
    if layout == "strided":
        return torch.randn(num_tokens, 2 * width).to(dtype)[:, ::2]
    return torch.randn(num_tokens, width).to(dtype)

errors = []
for num_tokens, num_outputs, num_inputs, top_k, name, layout in json.load(sys.stdin):
    dtype = getattr(torch, name)
    torch.manual_seed(0)
    grad, input = draw(num_tokens, num_outputs, dtype, layout), draw(num_tokens, num_inputs, dtype, layout)
    columns = torch.rand(num_outputs, num_inputs).topk(top_k).indices.sort(1).values.int()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    results = [sampled_weight_gradient(grad, input, columns, wide, "triton") for _ in range(2)]
    exact = (grad.double().T @ input.double()).gather(1, columns.long())
    assert results[0].dtype == wide and results[0].shape == columns.shape
    errors.append([(results[0] - exact).abs().max().item(), results[0].equal(results[1])])
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def triton_results() -> dict[str, tuple[float, bool]]:
    """For each case the largest error, and whether a second run gave the same bits."""
    pytest.importorskip("triton", reason="needs the extra 'triton'")
    run = subprocess.run(
        [sys.executable, "-c", TRITON_PROGRAM],
        input=json.dumps(TRITON_CASES),
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(zip(map(str, TRITON_CASES), json.loads(run.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("case", TRITON_CASES, ids=str)
def test_the_triton_kernel_equals_the_dense_product_gathered(
    case: tuple[object, ...], triton_results: dict[str, tuple[float, bool]]
) -> None:
    error, is_repeatable = triton_results[str(case)]
    # In half precision too, products and sums are in fp32.
    assert error < (1e-12 if case[4] == "float64" else 1e-4)
    assert is_repeatable


# It also has to compile, which needs no GPU: for an A100 and an H100, the row-major and the token-major input.

COMPILE_PROGRAM = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from neuroada.sparse.triton_gradient import _sum_over_tokens as kernel

POINTERS = {"grad": "*bf16", "input": "*bf16", "columns": "*i32", "sums": "*fp32"}
for blocks, contiguous in [((32, 128, 1), "input_stride_i"), ((64, 16, 4), "input_stride_t")]:
    fixed = dict(zip(("BLOCK_T", "BLOCK_O", "BLOCK_K"), blocks)) | {"grad_stride_o": 1, contiguous: 1}
    types = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    for capability in (80, 90):
        compiled = triton.compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", capability, 32))
        assert not re.search(r"\\b(atom|red)\\.", compiled.asm["ptx"])
        print(len(compiled.asm["cubin"]))
"""


def test_the_triton_kernel_compiles_for_gpus_and_has_no_atomics(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs the extra 'triton'")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE_PROGRAM],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert [int(size) > 0 for size in run.stdout.split()] == [True] * 4
