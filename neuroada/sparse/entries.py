"""The selected entries of a weight: where they are, read and written.

Usually every neuron has k of them, and ``columns`` (out_features, k) says which. Where only some neurons have some, or
neurons have different numbers, ``rows`` (rows,) says which neuron each row of ``columns`` (rows, k) belongs to: in
ascending order, each neuron once; or, with k = 1, one entry after another, and a neuron as often as it has entries.

Shapes: O neurons, I inputs, K selected inputs of a row, R rows.
"""

import torch
from torch import Tensor

COLUMN_DTYPES = (torch.int16, torch.int32, torch.int64)


def entries_at(weight_OI: Tensor, columns_RK: Tensor, rows_R: Tensor | None = None) -> Tensor:
    """(rows, k) entries of a weight."""
    columns_RK = columns_RK.long().to(weight_OI.device)
    if rows_R is None:
        return weight_OI.gather(1, columns_RK)
    return weight_OI[rows_R.long().to(weight_OI.device)[:, None], columns_RK]


def scattered(weight_OI: Tensor, entries_RK: Tensor, columns_RK: Tensor, rows_R: Tensor | None = None) -> Tensor:
    """A copy of a weight with other selected entries."""
    if rows_R is None:
        return weight_OI.scatter(1, columns_RK.long(), entries_RK)
    return weight_OI.index_put((rows_R.long()[:, None], columns_RK.long()), entries_RK)


def keys_of(columns_RK: Tensor, rows_R: Tensor | None, num_inputs: int) -> Tensor:
    """(rows, k) int64 places in the flattened weight; ascending from one to the next."""
    if rows_R is None:
        rows_R = torch.arange(len(columns_RK), device=columns_RK.device)
    return rows_R.long()[:, None] * num_inputs + columns_RK.long()


def are_columns(columns_OK: Tensor, values_OK: Tensor) -> bool:
    """Whether a stored tensor names the input of each value: whole numbers from 0, none of them twice in a row."""
    if columns_OK.dim() != 2 or columns_OK.shape != values_OK.shape or columns_OK.numel() == 0:
        return False
    # Ascending, so no duplicates: two values on one entry would overwrite each other.
    is_whole = columns_OK.dtype in COLUMN_DTYPES
    return is_whole and int(columns_OK.min()) >= 0 and bool((columns_OK.diff(dim=1) > 0).all())


def are_rows(rows_R: Tensor, columns_RK: Tensor) -> bool:
    """Whether a stored tensor names the neuron of each row of columns, so that no entry is there twice."""
    is_whole = rows_R.dtype in COLUMN_DTYPES
    if not is_whole or rows_R.dim() != 1 or len(rows_R) != len(columns_RK) or int(rows_R.min()) < 0:
        return False
    if columns_RK.shape[1] > 1:
        return bool((rows_R.diff() > 0).all())
    return bool((keys_of(columns_RK, rows_R, int(columns_RK.max()) + 1).flatten().diff() > 0).all())
