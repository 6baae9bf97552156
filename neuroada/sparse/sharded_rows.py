"""Rows of tensors that may be sharded over ranks: all rows, this rank's rows, and conversions between them.

Every function accepts any tensor; for one that is not sharded, this rank's rows are all rows.
"""

from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def local_rows(tensor: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor, in the same memory; any other tensor unchanged."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def all_rows(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor (a collective that every rank must call); any other tensor unchanged."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def rows_as(tensor: Tensor, example: Tensor) -> Tensor:
    """Shard a tensor that every rank holds whole like the example, if that is sharded; no rank sends anything."""
    if not is_sharded(example):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = example.device_mesh
    return distribute_tensor(tensor.to(example.device), mesh, example.placements, src_data_rank=None)


def joined_rows(rows: Tensor, example: Tensor) -> Tensor:
    """One tensor from each rank's rows, sharded like the example, if that is sharded."""
    if not is_sharded(example):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows, example.device_mesh, example.placements, shape=example.shape, stride=example.stride()
    )


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is sharded over ranks."""
    if type(tensor) in (Tensor, nn.Parameter):  # the common case; the import below takes more than a second
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
