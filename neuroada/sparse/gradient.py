"""The gradient of selected weight entries: k dot products per neuron instead of a dense weight gradient.

Shapes: T tokens (all leading dimensions together), O neurons, I inputs, K trained inputs per neuron.
"""

import torch
from torch import Tensor

# Rows of the weight gradient are made in blocks of about this many entries (16 MiB in fp32), gathered, and dropped:
# a dense gradient of the whole layer never exists.
_BLOCK_ENTRIES = 1 << 22


def sampled_weight_gradient(grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype) -> Tensor:
    """``grad.T @ input`` at the selected entries.

    Args:
        grad_TO: (tokens, out_features) gradient of the layer's output.
        input_TI: (tokens, in_features) input of the layer, same dtype.
        columns_OK: (out_features, k) selected columns, int32.
        dtype: Dtype of the result.

    Returns:
        (out_features, k) gradient of the bypass values.
    """
    rows_per_block = max(1, _BLOCK_ENTRIES // input_TI.shape[1])
    out_OK = torch.empty(columns_OK.shape, dtype=dtype, device=grad_TO.device)
    for start in range(0, columns_OK.shape[0], rows_per_block):
        rows = slice(start, start + rows_per_block)
        dense_block = grad_TO[:, rows].T @ input_TI
        out_OK[rows] = dense_block.gather(1, columns_OK[rows].long())
    return out_OK
