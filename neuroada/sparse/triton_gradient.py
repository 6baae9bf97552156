"""The sampled weight gradient as a Triton kernel. Imported only when it is used, so that triton stays optional.

Each program computes a block of neurons and a block of their columns, summed over a share of the tokens; the shares are
then added in a fixed order. There are no atomics, so the result is the same in every run.
"""

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

# Enough programs to keep every multiprocessor of a large GPU (132 on an H100) busy several times over.
_WANTED_PROGRAMS = 1024
_MIN_TOKENS_PER_PROGRAM = 128


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sum_over_tokens(  # type: ignore[no-untyped-def]
    grad,  # (tokens, num_outputs), any strides
    input,  # (tokens, in_features), any strides
    columns,  # (num_outputs, top_k), contiguous
    sums,  # (shares, num_outputs, top_k), contiguous; its dtype is that of the arithmetic
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


def weight_gradient(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """See ``gradient.sampled_weight_gradient``; products and sums are computed in ``dtype``."""
    num_tokens, num_outputs = grad_TO.shape
    top_k = columns_OK.shape[1]
    if top_k > 1:
        # With a row-major input, each gathered number costs a 32-byte sector; in the transpose, columns are contiguous.
        # One transposed copy pays off from the second column on.
        input_TI = input_TI.T.contiguous().T
    block_t, block_o, block_k = (32, 128, 1) if top_k == 1 else (64, 16, 4)

    blocks = triton.cdiv(num_outputs, block_o), triton.cdiv(top_k, block_k)
    wanted_shares = triton.cdiv(_WANTED_PROGRAMS, blocks[0] * blocks[1])
    num_shares = max(1, min(wanted_shares, num_tokens // _MIN_TOKENS_PER_PROGRAM))
    sums_SOK = torch.empty((num_shares, num_outputs, top_k), dtype=dtype, device=grad_TO.device)
    _sum_over_tokens[(*blocks, num_shares)](
        grad_TO,
        input_TI,
        columns_OK.contiguous(),
        sums_SOK,
        num_tokens,
        num_outputs,
        top_k,
        triton.cdiv(num_tokens, num_shares),
        *grad_TO.stride(),
        *input_TI.stride(),
        BLOCK_T=block_t,
        BLOCK_O=block_o,
        BLOCK_K=block_k,
    )
    return sums_SOK.sum(dim=0)
