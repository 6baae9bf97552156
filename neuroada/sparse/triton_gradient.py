"""The sampled weight gradient as Triton kernels. Imported only when they are used, so that triton stays optional.

Three kernels compute the same sums; which one is fastest depends on k and on the GPU:

- ``rows`` reads the input as it lies. A number costs a sector of 32 bytes, so that a block takes many neurons and few
  tokens: their part of the input stays in the L1 cache. Made for k = 1, where a copy of the input does not pay off.
- ``groups`` reads a packed copy, in which the numbers of an input column for 16 bytes of tokens lie together: one load
  serves a whole group, and its products are added without an exchange between threads.
- ``shared`` holds groups of four tokens of all input columns in shared memory and gathers there, 8 bytes at a time. It
  is for half precision, and rows as long as shared memory allows.

Each program computes a block of neurons and of their columns, summed over a share of the tokens; the shares are then
added in a fixed order. There are no atomics, so the result is the same in every run.

Shapes: T tokens, O neurons, I inputs, K trained inputs per neuron, G groups of tokens, S shares.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

# Enough to keep every multiprocessor of a large GPU (132 on an H100) busy.
_WANTED_WARPS = 4096
_MIN_TOKENS_PER_PROGRAM = 128
_BYTES_OF_A_LOAD = 16
_TOKENS_IN_SHARED = 4
"""Of half precision in one 64-bit number, the widest that Triton gathers."""
_BYTES_OF_SHARED_MEMORY = 64 * 1024
"""What every GPU since Volta gives to one program."""


class Blocks(NamedTuple):
    """How much one program computes, and with how many warps.

    At sm_90 none of the three spills registers: a larger block of ``shared`` would read the input less often, but would
    keep its sums in memory.
    """

    outputs: int
    slots: int
    warps: int


BLOCKS = {"rows": Blocks(1024, 1, 8), "groups": Blocks(256, 4, 8), "shared": Blocks(2048, 4, 16)}
TOKENS_OF_ROWS = 8
"""Tokens that a program of ``rows`` reads at a time: 4,096 inputs in half precision take 64 KiB of the L1 cache."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def sum_rows(  # type: ignore[no-untyped-def]
    grad,  # (T, O), any strides
    input,  # (T, I), any strides
    columns,  # (O, K), contiguous
    sums,  # (S, O, K), contiguous; its dtype is that of the arithmetic
    num_tokens,
    num_outputs,
    top_k,
    tokens_per_share,
    grad_stride_t,
    grad_stride_o,
    input_stride_t,
    input_stride_i,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Sums over a share of the tokens, for a block of outputs: reads one number for each token and column."""
    rows = (tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)).to(tl.int64)
    slots = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    share = tl.program_id(2).to(tl.int64)
    is_row = rows < num_outputs
    is_entry = is_row[:, None] & (slots < top_k)[None, :]
    entries = rows[:, None] * top_k + slots[None, :]
    columns_OK = tl.load(columns + entries, mask=is_entry, other=0).to(tl.int64)

    total_OK = tl.zeros((BLOCK_O, BLOCK_K), dtype=sums.dtype.element_ty)
    end = tl.minimum((share + 1) * tokens_per_share, num_tokens)
    for start in range(share * tokens_per_share, end, BLOCK_T):
        tokens = start + tl.arange(0, BLOCK_T)
        is_token = tokens < end
        grad_TO = tl.load(
            grad + tokens[:, None] * grad_stride_t + rows[None, :] * grad_stride_o,
            mask=is_token[:, None] & is_row[None, :],
            other=0.0,
        )
        input_TOK = tl.load(
            input + tokens[:, None, None] * input_stride_t + columns_OK[None, :, :] * input_stride_i,
            mask=is_token[:, None, None] & is_entry[None, :, :],
            other=0.0,
        )
        product_TOK = grad_TO.to(total_OK.dtype)[:, :, None] * input_TOK.to(total_OK.dtype)
        total_OK += tl.sum(product_TOK, axis=0)
    tl.store(sums + share * num_outputs * top_k + entries, total_OK, mask=is_entry)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def pack_tokens(  # type: ignore[no-untyped-def]
    input,  # (T, I), any strides
    packed,  # (G, I, GROUP), contiguous
    num_tokens,
    num_inputs,
    input_stride_t,
    input_stride_i,
    GROUP: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Turns the input so that the tokens of a group lie side by side, (G, I, GROUP)."""
    group = tl.program_id(0).to(tl.int64)
    inputs = (tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)).to(tl.int64)
    slots = tl.arange(0, GROUP)
    tokens = group * GROUP + slots
    is_input = inputs < num_inputs
    # Tokens beyond the last one become zeros: whole groups need no mask where they are read.
    input_IT = tl.load(
        input + tokens[None, :] * input_stride_t + inputs[:, None] * input_stride_i,
        mask=is_input[:, None] & (tokens < num_tokens)[None, :],
        other=0.0,
    )
    places = (group * num_inputs + inputs)[:, None] * GROUP + slots[None, :]
    tl.store(packed + places, input_IT, mask=is_input[:, None])


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def sum_groups(  # type: ignore[no-untyped-def]
    grad,  # (T, O), rows contiguous
    packed,  # (G, I, GROUP), contiguous
    columns,  # (O, K), contiguous
    sums,  # (S, O, K), contiguous; its dtype is that of the arithmetic
    num_tokens,
    num_outputs,
    num_inputs,
    top_k,
    groups_per_share,
    grad_stride_t,
    GROUP: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """As ``sum_rows``, on packed tokens: one load gives a column of a whole group."""
    rows = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    slots = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    share = tl.program_id(2)
    is_row = rows < num_outputs
    is_entry = is_row[:, None] & (slots < top_k)[None, :]
    entries = rows[:, None].to(tl.int64) * top_k + slots[None, :]
    columns_OK = tl.load(columns + entries, mask=is_entry, other=0).to(tl.int32)
    within = tl.arange(0, GROUP)

    total_OK = tl.zeros((BLOCK_O, BLOCK_K), dtype=sums.dtype.element_ty)
    end = tl.minimum((share + 1) * groups_per_share, tl.cdiv(num_tokens, GROUP))
    for group in range(share * groups_per_share, end):
        tokens = group * GROUP + within
        grad_OT = tl.load(
            grad + tokens[None, :].to(tl.int64) * grad_stride_t + rows[:, None],
            mask=is_row[:, None] & (tokens < num_tokens)[None, :],
            other=0.0,
        )
        start = packed + tl.cast(group, tl.int64) * num_inputs * GROUP
        input_OKT = tl.load(start + (columns_OK * GROUP)[:, :, None] + within[None, None, :])
        product_OKT = grad_OT.to(total_OK.dtype)[:, None, :] * input_OKT.to(total_OK.dtype)
        total_OK += tl.sum(product_OKT, axis=2)
    tl.store(sums + tl.cast(share, tl.int64) * num_outputs * top_k + entries, total_OK, mask=is_entry)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def sum_shared(  # type: ignore[no-untyped-def]
    grad,  # (T, O) of half precision, rows contiguous
    packed,  # (G, I) 64-bit numbers of GROUP tokens each
    columns,  # (O, K), contiguous
    sums,  # (S, O, K), contiguous; its dtype is that of the arithmetic
    num_tokens,
    num_outputs,
    num_inputs,
    top_k,
    groups_per_share,
    grad_stride_t,
    GROUP: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """As ``sum_groups``, with the group of all inputs in shared memory, from where columns are gathered."""
    rows = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    slots = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    share = tl.program_id(2)
    is_row = rows < num_outputs
    is_entry = is_row[:, None] & (slots < top_k)[None, :]
    entries = rows[:, None].to(tl.int64) * top_k + slots[None, :]
    columns_N = tl.reshape(tl.load(columns + entries, mask=is_entry, other=0).to(tl.int32), (BLOCK_O * BLOCK_K,))
    inputs = tl.arange(0, BLOCK_I)

    total_OK = tl.zeros((BLOCK_O, BLOCK_K), dtype=sums.dtype.element_ty)
    end = tl.minimum((share + 1) * groups_per_share, tl.cdiv(num_tokens, GROUP))
    for group in range(share * groups_per_share, end):
        start = packed + tl.cast(group, tl.int64) * num_inputs
        row_I = tl.load(start + inputs, mask=inputs < num_inputs, other=0)
        group_OK = tl.reshape(tl.gather(row_I, columns_N, 0), (BLOCK_O, BLOCK_K))
        for within in tl.static_range(GROUP):
            token = group * GROUP + within
            grad_O = tl.load(
                grad + tl.cast(token, tl.int64) * grad_stride_t + rows,
                mask=is_row & (token < num_tokens),
                other=0.0,
            )
            bits_OK = ((group_OK >> (16 * within)) & 0xFFFF).to(tl.uint16)
            input_OK = bits_OK.to(grad.dtype.element_ty, bitcast=True)
            total_OK += grad_O.to(total_OK.dtype)[:, None] * input_OK.to(total_OK.dtype)
    tl.store(sums + tl.cast(share, tl.int64) * num_outputs * top_k + entries, total_OK, mask=is_entry)


def best_kernel(grad_TO: Tensor, input_TI: Tensor, top_k: int) -> str:
    """A key of ``KERNELS``; by arithmetic on an H100's caches, not measured."""
    if top_k == 1:
        return "rows"
    return "shared" if _fits_shared(grad_TO, input_TI) else "groups"


def by_rows(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """``gradient.sampled_weight_gradient`` by the kernel ``rows``."""
    blocks, num_tokens = BLOCKS["rows"], grad_TO.shape[0]
    sums_SOK, grid = _sums(blocks, num_tokens, columns_OK, dtype)
    with torch.cuda.device_of(grad_TO):
        sum_rows[grid](
            grad_TO,
            input_TI,
            columns_OK.contiguous(),
            sums_SOK,
            num_tokens,
            *columns_OK.shape,
            triton.cdiv(num_tokens, grid[2]),
            *grad_TO.stride(),
            *input_TI.stride(),
            BLOCK_T=TOKENS_OF_ROWS,
            BLOCK_O=blocks.outputs,
            BLOCK_K=blocks.slots,
            num_warps=blocks.warps,
        )
    return sums_SOK.sum(dim=0)


def by_groups(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """``gradient.sampled_weight_gradient`` by the kernel ``groups``."""
    blocks, num_tokens = BLOCKS["groups"], grad_TO.shape[0]
    sums_SOK, grid = _sums(blocks, num_tokens, columns_OK, dtype)
    with torch.cuda.device_of(grad_TO):
        packed_GIT = _packed(input_TI, _BYTES_OF_A_LOAD // input_TI.element_size())
        grad_TO = _with_contiguous_rows(grad_TO)
        sum_groups[grid](
            grad_TO,
            packed_GIT,
            columns_OK.contiguous(),
            sums_SOK,
            num_tokens,
            columns_OK.shape[0],
            input_TI.shape[1],
            columns_OK.shape[1],
            triton.cdiv(packed_GIT.shape[0], grid[2]),
            grad_TO.stride(0),
            GROUP=packed_GIT.shape[2],
            BLOCK_O=blocks.outputs,
            BLOCK_K=blocks.slots,
            num_warps=blocks.warps,
        )
    return sums_SOK.sum(dim=0)


def by_shared(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """``gradient.sampled_weight_gradient`` by the kernel ``shared``; by ``groups`` where it cannot be used."""
    if not _fits_shared(grad_TO, input_TI):
        return by_groups(grad_TO, input_TI, columns_OK, dtype)
    blocks, num_tokens = BLOCKS["shared"], grad_TO.shape[0]
    sums_SOK, grid = _sums(blocks, num_tokens, columns_OK, dtype)
    with torch.cuda.device_of(grad_TO):
        packed_GI = _packed(input_TI, _TOKENS_IN_SHARED).view(torch.int64).squeeze(2)
        grad_TO = _with_contiguous_rows(grad_TO)
        sum_shared[grid](
            grad_TO,
            packed_GI,
            columns_OK.contiguous(),
            sums_SOK,
            num_tokens,
            columns_OK.shape[0],
            input_TI.shape[1],
            columns_OK.shape[1],
            triton.cdiv(packed_GI.shape[0], grid[2]),
            grad_TO.stride(0),
            GROUP=_TOKENS_IN_SHARED,
            BLOCK_I=triton.next_power_of_2(input_TI.shape[1]),
            BLOCK_O=blocks.outputs,
            BLOCK_K=blocks.slots,
            num_warps=blocks.warps,
        )
    return sums_SOK.sum(dim=0)


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor]] = {
    "rows": by_rows,
    "groups": by_groups,
    "shared": by_shared,
}


def _sums(
    blocks: Blocks, num_tokens: int, columns_OK: Tensor, dtype: torch.dtype
) -> tuple[Tensor, tuple[int, int, int]]:
    """The sums (S, O, K) to fill, and the grid of programs that fills them."""
    num_outputs, top_k = columns_OK.shape
    places = triton.cdiv(num_outputs, blocks.outputs), triton.cdiv(top_k, blocks.slots)
    wanted_shares = triton.cdiv(_WANTED_WARPS, places[0] * places[1] * blocks.warps)
    num_shares = max(1, min(wanted_shares, num_tokens // _MIN_TOKENS_PER_PROGRAM))
    sums_SOK = torch.empty((num_shares, num_outputs, top_k), dtype=dtype, device=columns_OK.device)
    return sums_SOK, (*places, num_shares)


def _packed(input_TI: Tensor, group: int) -> Tensor:
    """(G, I, group): the input with ``group`` tokens of a column side by side; zeros beyond the last token."""
    num_tokens, num_inputs = input_TI.shape
    num_groups = triton.cdiv(num_tokens, group)
    packed_GIT = torch.empty((num_groups, num_inputs, group), dtype=input_TI.dtype, device=input_TI.device)
    block = 512
    pack_tokens[(num_groups, triton.cdiv(num_inputs, block))](
        input_TI, packed_GIT, num_tokens, num_inputs, *input_TI.stride(), GROUP=group, BLOCK_I=block
    )
    return packed_GIT


def _with_contiguous_rows(grad_TO: Tensor) -> Tensor:
    return grad_TO if grad_TO.stride(1) == 1 else grad_TO.contiguous()


def _fits_shared(grad_TO: Tensor, input_TI: Tensor) -> bool:
    if not (grad_TO.dtype == input_TI.dtype and grad_TO.dtype in (torch.bfloat16, torch.float16)):
        return False
    wanted = triton.next_power_of_2(input_TI.shape[1]) * _TOKENS_IN_SHARED * grad_TO.element_size()
    device = torch.cuda.get_device_properties(grad_TO.device) if grad_TO.is_cuda else None  # None: the interpreter
    return bool(wanted <= getattr(device, "shared_memory_per_block_optin", _BYTES_OF_SHARED_MEMORY))
