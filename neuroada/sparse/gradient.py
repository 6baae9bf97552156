"""The gradient of selected weight entries: k dot products per neuron instead of a dense weight gradient.

``sampled_weight_gradient`` is the entry point, an operator that ``torch.compile`` does not split. Shapes: T tokens (all
leading dimensions together), O neurons, I inputs, K trained inputs per neuron.
"""

import functools
import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.measured_ways import kind_of_gpu, measured_way

# Rows of the dense gradient are computed in blocks of about this many entries (16 MiB in fp32), gathered, and freed:
# a dense gradient of the whole layer never exists.
BLOCK_ENTRIES = 1 << 22
# The sampled product transposes its operands; in chunks of 512 tokens the copies stay small and in the cache. On one
# core of an EPYC with AVX-512, 2048 tokens, 1024x2048, k=64: 28.6 ms in chunks of 512, 30.6 of 1024, 52.8 at once.
CHUNK_TOKENS = 512

# Gathered columns of so many tokens stay in the cache until they are summed.
GATHERED_TOKENS = 128
_MOST_GATHERED = 2
"""Columns per neuron up to which a CPU gathers, see ``best_way``."""

AUTO = "auto"

INPUTS_PER_COLUMN = {"cpu": {"half": 32, "full": 6}, "cuda": {"half": 200, "full": 28}}
"""Device type -> precision -> from how many inputs for each trained one sampling is the fastest way; k = 1 always is on
CUDA.

CPU: measured, see ``best_way``. CUDA: for what ``measured_ways`` does not have. On an H100 with 4096 tokens of 4096
inputs, ``triton_groups`` took 0.253 ms for k=20 in bf16 and ``gemm`` 0.247; in fp32 ``triton_shared`` took 0.231 ms for
k=5 and 0.473 for k=20, and ``gemm`` 2.72 (docs/benchmarks/h100_checks.json): in line with k, they meet at about 150.
"""

logger = logging.getLogger(__name__)


def by_gemm(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """Dense product in blocks of rows, then a gather: any device and dtype, best if k is a large part of I."""
    input_TI = input_TI.to(grad_TO.dtype)
    rows_per_block = max(1, BLOCK_ENTRIES // input_TI.shape[1])
    out_OK = torch.empty(columns_OK.shape, dtype=dtype, device=grad_TO.device)
    for start in range(0, columns_OK.shape[0], rows_per_block):
        rows = slice(start, start + rows_per_block)
        dense_block = grad_TO[:, rows].T @ input_TI
        out_OK[rows] = dense_block.gather(1, columns_OK[rows].long())
    return out_OK


def by_sampling(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """Only the selected products, by torch's sampled product on a CSR pattern; computed in the result's dtype.

    The product supports only fp32 and fp64, so half precision is cast chunk by chunk.
    """
    pattern = _pattern(columns_OK, input_TI.shape[1], dtype)
    if len(grad_TO) <= CHUNK_TOKENS:
        return _sampled_product(pattern, grad_TO, input_TI, dtype).view(columns_OK.shape)
    total_N = torch.zeros(columns_OK.numel(), dtype=dtype, device=columns_OK.device)
    for grad_chunk, input_chunk in zip(grad_TO.split(CHUNK_TOKENS), input_TI.split(CHUNK_TOKENS), strict=True):
        total_N += _sampled_product(pattern, grad_chunk, input_chunk, dtype)
    return total_N.view(columns_OK.shape)


def _pattern(columns_OK: Tensor, num_inputs: int, dtype: torch.dtype) -> Tensor:
    """A CSR matrix (O, I) whose entries, zeros, are the selected ones."""
    num_outputs, top_k = columns_OK.shape
    entries = num_outputs * top_k
    row_ends = torch.arange(0, entries + 1, top_k, dtype=columns_OK.dtype, device=columns_OK.device)
    _silence_csr_warnings()
    return torch.sparse_csr_tensor(
        row_ends,
        columns_OK.reshape(-1),
        torch.zeros(entries, dtype=dtype, device=columns_OK.device),
        size=(num_outputs, num_inputs),
        check_invariants=False,
    )


def _sampled_product(pattern: Tensor, grad_TO: Tensor, input_TI: Tensor, dtype: torch.dtype) -> Tensor:
    """(O * K,) entries of ``grad.T @ input``."""
    return torch.sparse.sampled_addmm(pattern, grad_TO.to(dtype).T, input_TI.to(dtype), beta=0).values()


@functools.cache
def _silence_csr_warnings() -> None:
    # torch warns once, at the first CSR tensor of a process, that the layout is in beta and, in some versions, that
    # indices are not checked. Neither is of use to the user, so trigger both here with warnings ignored.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], size=(1, 1), check_invariants=False)


def by_gathering(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """One selected column of each neuron at a time, without a pattern; computed in the result's dtype, any device."""
    columns = columns_OK.unbind(1)
    if len(grad_TO) <= GATHERED_TOKENS:
        return _gathered(grad_TO, input_TI, columns, dtype)
    total_OK = torch.zeros(columns_OK.shape, dtype=dtype, device=columns_OK.device)
    for grad_chunk, input_chunk in zip(grad_TO.split(GATHERED_TOKENS), input_TI.split(GATHERED_TOKENS), strict=True):
        total_OK += _gathered(grad_chunk, input_chunk, columns, dtype)
    return total_OK


def _gathered(grad_TO: Tensor, input_TI: Tensor, columns: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    grad_TO, input_TI = grad_TO.to(dtype), input_TI.to(dtype)
    products = [input_TI.index_select(1, columns_O).mul_(grad_TO).sum(0) for columns_O in columns]
    return products[0].unsqueeze(1) if len(products) == 1 else torch.stack(products, dim=1)


def by_triton(
    grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype, kernel: str | None = None
) -> Tensor:
    """Only the selected products, by our own kernels (NVIDIA and AMD GPUs); accumulated in the result's dtype.

    Args:
        kernel: A key of ``triton_gradient.KERNELS``; None for the best one.
    """
    from neuroada.sparse import triton_gradient

    chosen = kernel or triton_gradient.best_kernel(grad_TO, input_TI, columns_OK.shape[1])
    return triton_gradient.KERNELS[chosen](grad_TO, input_TI, columns_OK, dtype)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor]] = {
    "gemm": by_gemm,
    "sampled": by_sampling,
    "gathered": by_gathering,
    "triton": by_triton,
    "triton_rows": functools.partial(by_triton, kernel="rows"),
    "triton_groups": functools.partial(by_triton, kernel="groups"),
    "triton_shared": functools.partial(by_triton, kernel="shared"),
}


def check_way(name: str, device: torch.device | None = None) -> None:
    """Raise AdapterError unless the name is "auto" or a key of ``WAYS`` that can run here.

    Args:
        device: Where the layers are; None if that is not known yet.
    """
    if name != AUTO and name not in WAYS:
        raise AdapterError(f"gradient={name!r}: choose one of {AUTO}, {', '.join(WAYS)}")
    if name.startswith("triton"):
        reason = None if has_triton() else "the package is not installed"
        if reason is None and device is not None and device.type == "cuda":
            reason = why_triton_fails(device)
        if reason is not None:
            raise AdapterError(f"gradient={name!r} needs a working triton ({reason}); use gradient='auto'")


def best_way(in_features: int, top_k: int, dtype: torch.dtype, device_type: str, gpu: str | None = None) -> str:
    """The fastest way for a layer: selected products while k is a small part of the inputs, else the dense product.

    Args:
        gpu: Its kind, as ``measured_ways.kind_of_gpu`` names it: what was measured on it counts before the rule below.

    CPU, measured on one core of an EPYC with AVX-512 BF16, CPU time of ``gemm`` / ``sampled`` in ms, 1024 tokens::

        layer (out x in)   dtype      k=1         k=20        k=64        k=128       k=256
        1536 x 576         fp32    27.5 /  5.5  23.4 /  7.5  28.1 / 17.1  23.3 / 24.8  26.7 / 51.6
        1536 x 576         bf16    11.5 /  6.7  11.7 / 10.3  10.8 / 18.8  11.7 / 30.3  12.0 / 50.4
        2048 x 2048        fp32   122.2 / 10.8 127.4 / 17.9 121.3 / 31.5 119.7 / 43.2 127.7 / 67.7
        2048 x 2048        bf16    53.4 / 12.5  52.2 / 20.7  50.6 / 32.0  53.0 / 46.3  53.6 / 101.5

    ``sampled`` / ``gathered`` in ms, 512 tokens of the first two layers and 1024 of the last::

        layer (out x in)   dtype      k=1         k=2         k=3         k=5
        576 x 576          fp32     2.3 / 0.6   1.5 / 0.9   1.5 / 1.1   1.4 / 2.5
        576 x 576          bf16     0.8 / 0.5   1.0 / 1.1   1.2 / 1.2   1.4 / 2.0
        1536 x 576         fp32     3.9 / 1.3   3.8 / 2.8   4.3 / 3.5   4.5 / 5.2
        1536 x 576         bf16     3.5 / 1.2   4.8 / 2.5   3.4 / 3.6   3.1 / 4.3
        2048 x 2048        fp32    20.2 / 5.5  14.8 /10.2  13.9 /10.6  13.2 /14.6
        2048 x 2048        bf16    13.1 / 3.7  21.0 / 6.1  23.9 /11.3  30.1 /16.3

    CUDA: see ``measured_ways``, else ``INPUTS_PER_COLUMN``. It is assumed that Triton works.
    """
    precision = "half" if dtype in (torch.bfloat16, torch.float16) else "full"
    measured = None if gpu is None else measured_way(gpu, precision, in_features, top_k)
    if measured is not None:
        return measured
    sampling = {"cpu": "sampled", "cuda": "triton"}.get(device_type)
    if sampling is None:
        return "gemm"
    if device_type == "cuda" and top_k == 1:
        return sampling
    if device_type == "cpu" and top_k <= _MOST_GATHERED and top_k < in_features:
        return "gathered"
    return sampling if INPUTS_PER_COLUMN[device_type][precision] * top_k <= in_features else "gemm"


def has_triton() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def why_triton_fails(device: torch.device) -> str | None:
    """What a tiny kernel says on a device; None if it runs. Triton needs a C compiler, which a node may lack."""
    ones = torch.ones(1, 1, device=device)
    try:
        by_triton(ones, ones, torch.zeros(1, 1, dtype=torch.int32, device=device), torch.float32)
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever a compiler, a driver or the loader of a library raises
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


@functools.cache
def _works(device: torch.device) -> bool:
    """The same; a failure is a warning, once."""
    if not has_triton():
        return False
    reason = why_triton_fails(device)
    if reason is not None:
        logger.warning("triton does not work here (%s): gradients are computed by dense products, more slowly", reason)
    return reason is None


def _compute(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype, way: str) -> Tensor:
    if grad_TO.shape[0] == 0:
        return torch.zeros(columns_OK.shape, dtype=dtype, device=columns_OK.device)
    if way == AUTO:
        device, gpu = grad_TO.device, kind_of_gpu(grad_TO.device) if grad_TO.is_cuda else None
        way = best_way(input_TI.shape[1], columns_OK.shape[1], grad_TO.dtype, device.type, gpu)
        if way.startswith("triton") and not _works(device):
            way = "gemm"
    # TRL casts what trains to bfloat16. Not every way can sum in half precision, and none should.
    summed_in = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    return WAYS[way](grad_TO, input_TI, columns_OK, summed_in).to(dtype)


def _shape_only(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype, way: str) -> Tensor:
    return torch.empty(columns_OK.shape, dtype=dtype, device=columns_OK.device)


# Not by torch.library.custom_op: its wrappers for autograd and mutation cost the host more time in each call than the
# rest of the backward pass. This operator is called inside a backward pass, so that it needs no autograd of its own.
_LIBRARY = torch.library.Library("neuroada", "DEF")
_LIBRARY.define(
    "sampled_weight_gradient(Tensor grad, Tensor input, Tensor columns, ScalarType dtype, str way) -> Tensor"
)
_LIBRARY.impl("sampled_weight_gradient", _compute, "CompositeExplicitAutograd")
torch.library.register_fake("neuroada::sampled_weight_gradient", _shape_only, lib=_LIBRARY)
_OPERATOR = torch.ops.neuroada.sampled_weight_gradient.default


def sampled_weight_gradient(
    grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype, way: str = AUTO
) -> Tensor:
    """``grad.T @ input`` at the selected entries.

    Args:
        grad_TO: (tokens, out_features) gradient of the layer's output.
        input_TI: (tokens, in_features) input of the layer; under autocast of a wider dtype than ``grad_TO``.
        columns_OK: (out_features, k) selected columns, int32.
        dtype: Dtype of the result; half precision is summed in fp32.
        way: How to compute it: "auto" (see ``best_way``) or a key of ``WAYS``.

    Returns:
        (out_features, k) gradient of the bypass values.
    """
    if _is_traced(grad_TO):
        return cast(Tensor, _OPERATOR(grad_TO, input_TI, columns_OK, dtype, way))
    # The dispatcher would cost the host as much as a small layer's product.
    return _compute(grad_TO, input_TI, columns_OK, dtype, way)


def _is_traced(tensor: Tensor) -> bool:
    """Whether somebody else watches operators: a compiler, a fake or other tensor, or a dispatch mode."""
    return torch.compiler.is_compiling() or type(tensor) is not Tensor or torch._C._len_torch_dispatch_stack() > 0
