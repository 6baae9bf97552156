"""The Triton kernels: right under Triton's interpreter, and small when compiled for GPUs, neither of which needs one.

Both run in a process of their own, once for all cases: the interpreter must be switched on before triton is first
imported, and torch may have done that already.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs the extra 'triton'")

ROOT = Path(__file__).parents[2]
WAYS = ("triton_rows", "triton_groups", "triton_shared")
SHAPES = [(45, 140, 33, 1), (45, 17, 33, 5), (29, 70, 40, 20), (7, 5, 6, 6), (1, 1, 1, 1), (0, 3, 4, 2)]
"""Tokens, outputs, inputs and k."""
NUMBERS = [("float32", "strided"), ("bfloat16", "contiguous"), ("float16", "transposed"), ("float64", "contiguous")]
CASES = [(way, *shape, *numbers) for way in WAYS for shape in SHAPES for numbers in NUMBERS]
QUICK = [case for number, case in enumerate(CASES) if number % len(NUMBERS) == number // len(NUMBERS) % len(NUMBERS)]
"""Every shape in one kind of numbers: the interpreter is slow."""

INTERPRETED = """
import json, sys, torch
from neuroada.sparse import triton_gradient as kernels
from neuroada.sparse.gradient import sampled_weight_gradient

# Small blocks, so that every kernel needs several for the larger cases.
kernels.BLOCKS = {name: blocks._replace(outputs=64) for name, blocks in kernels.BLOCKS.items()}
kernels._MIN_TOKENS_PER_PROGRAM = 16

def draw(num_tokens, width, dtype, layout):
    if layout == "transposed":
        return torch.randn(width, num_tokens).to(dtype).T
    if layout == "strided":
        return torch.randn(num_tokens, 2 * width).to(dtype)[:, ::2]
    return torch.randn(num_tokens, width).to(dtype)

errors = []
for way, num_tokens, num_outputs, num_inputs, top_k, name, layout in json.load(sys.stdin):
    dtype = getattr(torch, name)
    torch.manual_seed(0)
    grad, input = draw(num_tokens, num_outputs, dtype, layout), draw(num_tokens, num_inputs, dtype, layout)
    columns = torch.rand(num_outputs, num_inputs).topk(top_k).indices.sort(1).values.int()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    result = sampled_weight_gradient(grad, input, columns, wide, way)
    exact = (grad.double().T @ input.double()).gather(1, columns.long())
    assert result.dtype == wide and result.shape == columns.shape
    errors.append((result - exact).abs().max().item())
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def interpreted(request: pytest.FixtureRequest) -> dict[str, float]:
    """For each case that was selected the largest error."""
    selected = {item.callspec.params["case"] for item in request.session.items if "interpreted" in item.fixturenames}
    cases = [case for case in CASES if case in selected]
    printed = output_of(INTERPRETED, json.dumps(cases), TRITON_INTERPRET="1")
    return dict(zip(map(str, cases), json.loads(printed.splitlines()[-1]), strict=True))


def output_of(program: str, given: str = "", **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(
        command, input=given, env=inherited | environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES], ids=str
)
def test_every_kernel_equals_the_dense_product_gathered(
    case: tuple[object, ...], interpreted: Mapping[str, float]
) -> None:
    # In half precision too, products and sums are in fp32.
    assert interpreted[str(case)] < (1e-12 if case[5] == "float64" else 1e-4)


# Compiled for an A100 and an H100, with sizes that are multiples of 16, as those of a model are, and token counts that
# are or are not, as those of packed rows. What must not happen are exchanges between threads in the loop over tokens,
# narrow loads of packed numbers, and registers that spill.

COMPILED = """
import collections, json, re, subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from neuroada.sparse import triton_gradient as kernels

TYPES = {"grad": "*bf16", "input": "*bf16", "packed": "*bf16", "columns": "*i32", "sums": "*fp32"}
OF_THE_MODEL = [*TYPES, "num_outputs", "num_inputs", "grad_stride_t", "input_stride_t"]
OF_THE_ROW = ["num_tokens", "tokens_per_share", "groups_per_share"]
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

def compiled(kernel, constants, capability, warps, is_aligned, **types):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else {**TYPES, **types}.get(name, "i32") for name in names}
    fixed = {(names.index(name),): value for name, value in constants.items()}
    divisible = [name for name in names if name in OF_THE_MODEL + OF_THE_ROW * is_aligned and name not in constants]
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in divisible}
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(ASTSource(kernel, signature, fixed, hints), target=target, options={"num_warps": warps})

def sass(binary):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listing = subprocess.run([CUOBJDUMP, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^ +/[*][0-9a-f]+[*]/ +(?:@!?U?P[0-9T]+ )?([A-Z][A-Z0-9_.]+)", listing, flags=re.MULTILINE)

def constants(name, **more):
    blocks = kernels.BLOCKS[name]
    return {"BLOCK_O": blocks.outputs, "BLOCK_K": blocks.slots, **more}

KERNELS = {
    "rows": (kernels.sum_rows, constants("rows", BLOCK_T=8, grad_stride_o=1, input_stride_i=1), {}),
    "groups": (kernels.sum_groups, constants("groups", GROUP=8), {}),
    "shared": (kernels.sum_shared, constants("shared", GROUP=4, BLOCK_I=4096), {"packed": "*i64"}),
}
found = []
for name, (kernel, fixed, types) in KERNELS.items():
    for capability, is_aligned in ((80, False), (90, False), (90, True)):
        made = compiled(kernel, fixed, capability, kernels.BLOCKS[name].warps, is_aligned, **types)
        words = sass(made.asm["cubin"])
        found.append({
            "kernel": name, "capability": capability, "is_aligned": is_aligned,
            "instructions": len(words), "counts": collections.Counter(words), "shared": made.metadata.shared,
            "has_atomics": bool(re.search(r"\\b(atom|red)[.]", made.asm["ptx"])),
        })
packing = compiled(kernels.pack_tokens, {"GROUP": 8, "BLOCK_I": 512, "input_stride_i": 1}, 90, 4, False)
found.append({"kernel": "pack", "counts": collections.Counter(sass(packing.asm["cubin"]))})
print(json.dumps(found))
"""
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """For each kernel, GPU and alignment, the instructions of its machine code."""
    cache = tmp_path_factory.mktemp("cache")
    found: Found = json.loads(output_of(COMPILED, TRITON_CACHE_DIR=str(cache)))
    return found


def of_kernel(compiled: Found, name: str) -> Found:
    return [one for one in compiled if one["kernel"] == name]


def count(one: dict[str, Any], family: str) -> int:
    """Instructions of a family, such as ``SHFL``, exchanges between threads."""
    return sum(number for word, number in one["counts"].items() if word == family or word.startswith(f"{family}."))


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "most"), [("rows", 750), ("groups", 400), ("shared", 1000)])
def test_every_kernel_stays_small_for_any_number_of_tokens(compiled: Found, kernel: str, most: int) -> None:
    sizes = {(one["capability"], one["is_aligned"]): one["instructions"] for one in of_kernel(compiled, kernel)}
    assert 100 < max(sizes.values()) < most
    assert sizes[90, False] < 1.3 * sizes[90, True]


@pytest.mark.parametrize("kernel", ["rows", "groups", "shared"])
def test_no_kernel_exchanges_numbers_between_threads_or_spills_many(compiled: Found, kernel: str) -> None:
    for one in of_kernel(compiled, kernel):
        assert count(one, "SHFL") == 0
        assert count(one, "LDL") <= 8
        assert not one["has_atomics"]


def test_packed_numbers_are_read_and_written_16_bytes_at_a_time(compiled: Found) -> None:
    for one in of_kernel(compiled, "groups"):
        assert one["counts"]["LDG.E.128"] >= 4
    (packing,) = of_kernel(compiled, "pack")
    assert count(packing, "STG.E.128") == count(packing, "STG") > 0


def test_groups_in_shared_memory_are_read_8_bytes_at_a_time_and_fit_an_a100(compiled: Found) -> None:
    for one in of_kernel(compiled, "shared"):
        assert one["counts"]["LDS.64"] >= 16
        assert one["shared"] <= 64 * 1024
