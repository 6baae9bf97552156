"""Where the entries of a checkpoint's weight lie in the tensors of a model that vLLM has loaded.

vLLM joins weights (q, k and v in one tensor), splits them over devices and may store them transposed. Its models'
``load_weights`` knows how: it is called here with a weight that has a shape but no content, and every copy that it asks
for is noted instead of made. vLLM's own sparse updates (``checkpoint_weight_patch``) rely on the same calls, with one
copy per entry; they pass over whole weights each time, which the noted places make needless.

Shapes: E entries, F entries that this process holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuroada.sparse.errors import AdapterError


@dataclass(frozen=True)
class Place:
    """A rectangle of a checkpoint's weight, and where a parameter holds it.

    Attributes:
        parameter: Name of the parameter.
        first: Row and column of the rectangle's corner in the checkpoint's weight.
        size: Its rows and columns.
        offset: Where the corner lies in the parameter's storage.
        strides: From one row to the next there, and from one column to the next.
    """

    parameter: str
    first: tuple[int, int]
    size: tuple[int, int]
    offset: int
    strides: tuple[int, int]

    def positions(self, rows_E: Tensor, columns_E: Tensor) -> tuple[Tensor, Tensor]:
        """(F,) which of the entries lie in the rectangle, and (F,) their positions in the parameter's storage."""
        below_E, right_E = rows_E - self.first[0], columns_E - self.first[1]
        is_inside_E = (below_E >= 0) & (below_E < self.size[0]) & (right_E >= 0) & (right_E < self.size[1])
        which_F = is_inside_E.nonzero().flatten()
        return which_F, self.offset + below_E[which_F] * self.strides[0] + right_E[which_F] * self.strides[1]


def places_of(model: nn.Module, name: str, shape: Sequence[int]) -> list[Place]:
    """Where a model holds what it would load from a weight of its checkpoint; nothing is loaded.

    Args:
        model: One of vLLM's: it has ``load_weights``.
        name: Of the weight in the checkpoint.
        shape: Rows and columns there.

    Returns:
        None of them, if the weight belongs to another process.

    Raises:
        AdapterError: The model has no such weight, or does not keep its entries as they are.
    """
    stand_in = torch.empty(tuple(shape), device="meta")
    before = _storages(model)
    load: Callable[[Any], Any] = model.load_weights  # type: ignore[assignment]
    try:
        with torch.no_grad(), _Copies() as copies:
            load([(name, stand_in)])
    except Exception as error:  # whatever a model's loader does with a weight that is no longer where it was
        raise AdapterError(
            f"{name}: vLLM does not keep this weight as it is ({type(error).__name__}: {error})"
        ) from error
    if _storages(model) != before:
        raise AdapterError(f"{name}: vLLM replaces this weight instead of writing into it; start vLLM again")
    owners = {storage: parameter for parameter, storage in before.items()}
    return [_place(name, stand_in, owners, *copied) for copied in copies.made]


class _Copies(TorchFunctionMode):
    """Notes what is copied where, and copies nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.copy_:
            return func(*args, **(kwargs or {}))
        self.made.append((args[0], args[1]))
        return args[0]

    def __enter__(self) -> Self:
        super().__enter__()
        return self


def _storages(model: nn.Module) -> dict[str, int]:
    """Where the storage of each parameter begins; a shared one counts for the first of its parameters."""
    found: dict[int, str] = {}
    for name, parameter in model.named_parameters():
        if parameter.numel():
            found.setdefault(parameter.untyped_storage().data_ptr(), name)
    return {name: storage for storage, name in found.items()}


def _place(name: str, stand_in: Tensor, owners: Mapping[int, str], target: Tensor, source: Tensor) -> Place:
    parameter = owners.get(target.untyped_storage().data_ptr())
    is_part = source is stand_in or source._base is stand_in
    if parameter is None or not is_part or source.dim() != 2 or target.shape != source.shape:
        raise AdapterError(f"{name}: vLLM rearranges this weight as it loads it, so that single entries have no place")
    if not target.is_floating_point():
        raise AdapterError(f"{name}: vLLM holds this weight quantised ({target.dtype}); serve the unquantised base")
    num_columns, corner = int(stand_in.shape[1]), int(source.storage_offset())
    along_rows, along_columns = _axes(name, source, num_columns)
    return Place(
        parameter,
        (corner // num_columns, corner % num_columns),
        (source.shape[along_rows], source.shape[along_columns]),
        int(target.storage_offset()),
        (target.stride(along_rows), target.stride(along_columns)),
    )


def _axes(name: str, source: Tensor, num_columns: int) -> tuple[int, int]:
    """Which dimension of a part runs along the rows of the checkpoint's weight, and which along its columns."""
    strides = source.stride()
    for rows, columns in ((0, 1), (1, 0)):
        runs_along_rows = strides[rows] == num_columns or source.shape[rows] == 1
        runs_along_columns = strides[columns] == 1 or source.shape[columns] == 1
        if runs_along_rows and runs_along_columns:
            return rows, columns
    raise AdapterError(f"{name}: vLLM takes only some rows or columns of this weight, so that entries have no place")
