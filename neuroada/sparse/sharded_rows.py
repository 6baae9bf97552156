"""A tensor's rows where a model may be spread over ranks: whole, a rank's share, and from one to the other.

Every function takes any tensor; one that is not sharded is all rows and the share in one.
"""

from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def local_rows(tensor: Tensor) -> Tensor:
    """This rank's rows of a sharded tensor, in the same memory; any other tensor as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def all_rows(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor, for which every rank has to ask at once; any other tensor as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def rows_as(tensor: Tensor, example: Tensor) -> Tensor:
    """A tensor that every rank holds whole, sharded as the example is, if it is; no rank sends anything."""
    if not is_sharded(example):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = example.device_mesh
    return distribute_tensor(tensor.to(example.device), mesh, example.placements, src_data_rank=None)


def joined_rows(rows: Tensor, example: Tensor) -> Tensor:
    """One tensor of the rows that each rank has, sharded as the example is, if it is."""
    if not is_sharded(example):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows, example.device_mesh, example.placements, shape=example.shape, stride=example.stride()
    )


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is spread over ranks."""
    if type(tensor) in (Tensor, nn.Parameter):  # nearly always; the import below takes more than a second
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
